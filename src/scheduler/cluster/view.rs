//! What other nodes run: read before a job gets another run.

use super::Cluster;
use crate::job::JobId;
use crate::job::admission::Rules;
use crate::run::SkipReason;
use crate::scheduler::request::{PendingRequest, Request};
use crate::scheduler::state::capacity::InstanceView;
use crate::scheduler::state::{Phase, SchedulerState};
use crate::scheduler::step::Step;
use crate::scheduler::step::complete;
use crate::scheduler::step::context::StepContext;
use crate::store::{Store, StoreError};

/// Reads what other nodes run and have changed, as far as this step needs it.
pub(crate) async fn refresh<S: Store>(
    cluster: &mut Cluster,
    store: &S,
    state: &mut SchedulerState,
    rules: &mut Rules,
    step: &mut Step,
    requests: &[PendingRequest],
) -> Result<InstanceView, StoreError> {
    let has_renewed = std::mem::take(&mut cluster.has_renewed);
    let has_completions = !state.executions.completions.is_empty();
    let may_start = state.capacity.needs_cluster_check() && has_completions
        || state.capacity.newly_needs_cluster_check();
    let checks_waiting = has_renewed || may_start;
    if checks_waiting {
        refresh_waiting(store, state, rules, step).await?;
    }
    // Another node may have paused or changed jobs that are due here.
    state.due_cache.refresh(step.jobs());
    let asks_for_run = requests.iter().any(|pending| matches!(pending.request, Request::Run(_)));
    // The jobs were read before: a node that creates a run of one of them from now on changes its revision. A job that is
    // new may have runs elsewhere too, of a removed job with its id.
    let fires = state.will_fire(step.pause().is_some(), requests)
        && state.due_jobs(&step.open_pools, step.now).next().is_some();
    if checks_waiting || asks_for_run || fires {
        let elsewhere = store.count_in_flight_elsewhere(state.node()).await?;
        state.capacity.set_other_nodes(elsewhere);
    }
    Ok(if checks_waiting { InstanceView::AllNodes } else { InstanceView::ThisNode })
}

/// Updates waiting runs to what other nodes have made of their jobs.
async fn refresh_waiting<S: Store>(
    store: &S,
    state: &mut SchedulerState,
    rules: &mut Rules,
    step: &mut Step,
) -> Result<(), StoreError> {
    let waiting = state.capacity.waiting_jobs();
    if waiting.is_empty() || state.phase == Phase::Draining {
        return Ok(());
    }
    let ids: Vec<JobId> = waiting.into_iter().collect();
    for job in store.load_jobs(&ids).await? {
        step.add_loaded(&job.into());
    }
    let context = &mut StepContext::new(step, state, rules);
    for id in &ids {
        if let Some(job) = context.step.job(id) {
            context.capacity.redefine(job);
            continue;
        }
        for waiting in context.capacity.take_waiting(id) {
            complete::withdraw(context, waiting, SkipReason::Removed);
        }
    }
    Ok(())
}
