//! What hooks must report: each end of a run to the hooks of its job, and outages as these count them.

use std::sync::Arc;

use punctual::job::Job;
use punctual::run::{HookEvent, Outcome, Run, RunState, SkipReason};
use punctual::store::Change;

use crate::ledger::{Ledger, is_event};
use crate::properties::Property;

impl Ledger {
    /// The end of a run that has hooks is reported by runs that are written with it.
    pub(crate) fn are_told(&mut self, node: &Arc<str>, changes: &[Change]) {
        for change in changes {
            let (Change::InsertRun(run) | Change::UpdateRun { run, .. }) = change else { continue };
            let Some(event) = event_of(run).filter(|_| !is_event(run)) else { continue };
            let versions = self.judged_by(node, run);
            let was_failing = self.note_end(run, event, &versions);
            if versions.is_empty() {
                continue;
            }
            self.is_told(node, run, (event, was_failing), &versions);
            if event == HookEvent::Success {
                self.is_told(node, run, (HookEvent::Recovery, was_failing), &versions);
            }
        }
    }

    /// A job that is new, or removed, or that would not tell the end of an outage, has none. What ended in the same write
    /// was judged before that.
    pub(crate) fn end_outages(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::DeleteJob { id, .. } = change {
                self.failing.remove(id);
            }
            if let Change::InsertJob(job) = change {
                self.failing.remove(&job.id);
            }
            let Change::UpdateJob(job) = change else { continue };
            if !job.policy.needs_last_outcome() {
                self.failing.remove(&job.id);
            } else if !job.is_failing && self.may_be_another(job) {
                self.failing
                    .entry(job.id.clone())
                    .and_modify(|fails| *fails = fails.filter(|fails| !fails));
            }
        }
    }

    /// Whether a job that was written may have been removed and added again in one write.
    fn may_be_another(&self, job: &Job) -> bool {
        let versions = self.versions.get(&job.id).into_iter().flatten();
        let before = versions.rev().nth(1).and_then(|version| version.job.as_ref());
        before.is_none_or(|before| before.anchor != job.anchor)
    }

    /// The definitions by which a node may judge the end of a run; none if it may be the run of another job of that id.
    fn judged_by(&self, node: &Arc<str>, run: &Run) -> Vec<Arc<Job>> {
        // On a shared store, the node may know the definition by which the run was made.
        let since = if self.is_shared { self.added[&run.id] } else { self.view(node).knows };
        let versions = self.versions_since(&run.job_id, since);
        // Where the clock was set back, a job may look as if it were younger than its run.
        let is_its_job =
            |job: &&Arc<Job>| job.anchor == run.anchor && job.created_at <= run.created_at;
        if versions.iter().all(is_its_job) {
            versions.into_iter().cloned().collect()
        } else {
            Vec::new()
        }
    }

    /// Notes how a run has ended. Says whether its job was failing before; none if that cannot be known.
    fn note_end(&mut self, run: &Run, event: HookEvent, versions: &[Arc<Job>]) -> Option<bool> {
        let before = self.failing.get(&run.job_id).copied().unwrap_or(Some(false));
        let needs = |job: &Arc<Job>| job.policy.needs_last_outcome();
        let is_noted = versions.is_empty() || versions.iter().any(needs);
        if event != HookEvent::Missed && is_noted {
            let is_known = !versions.is_empty() && versions.iter().all(needs);
            let fails = is_known.then_some(event == HookEvent::Failure);
            self.failing.insert(run.job_id.clone(), fails);
        }
        before
    }

    fn is_told(
        &self,
        node: &Arc<str>,
        run: &Run,
        (event, was_failing): (HookEvent, Option<bool>),
        versions: &[Arc<Job>],
    ) {
        let before =
            [false, true].into_iter().filter(|fails| was_failing.is_none_or(|was| was == *fails));
        let tells = |before: bool| versions.iter().map(move |job| tells(job, event, before));
        let told: Vec<bool> = before.flat_map(tells).collect();
        // A node without pools cannot run a hook; the node that has the pool does.
        let must = !told.contains(&false) && !self.without_pools.contains(node);
        // A job that was gone for a while has no hook to run.
        let added = self.added[&run.id];
        let versions = self.versions.get(&run.job_id).into_iter().flatten();
        let was_gone =
            versions.clone().any(|version| version.since >= added && version.job.is_none());
        let is_told = self.told.contains(&(run.id.clone(), event.word()));
        let holds = if is_told { told.contains(&true) } else { !must || was_gone };
        let property = match event {
            HookEvent::Success | HookEvent::Missed => Property::ToldOnce,
            HookEvent::Failure | HookEvent::Recovery => Property::Outages,
        };
        property.holds(holds, || {
            format!("{event:?} of {run:?}: {is_told}, was failing: {was_failing:?}")
        });
    }
}

/// Whether a job has a hook for an event of a run, given whether it was failing before.
fn tells(job: &Job, event: HookEvent, was_failing: bool) -> bool {
    let policy = &job.policy;
    match event {
        HookEvent::Success => policy.on_success.is_some(),
        HookEvent::Failure => {
            policy.on_failure.is_some() && !(policy.on_failure_once && was_failing)
        }
        HookEvent::Recovery => policy.on_recovery.is_some() && was_failing,
        HookEvent::Missed => policy.on_missed.is_some(),
    }
}

/// The event that the end of a run is to its hooks.
fn event_of(run: &Run) -> Option<HookEvent> {
    match &run.state {
        RunState::Skipped { reason: SkipReason::Missed, .. } => Some(HookEvent::Missed),
        RunState::Ended { outcome: Outcome::Succeeded { .. }, .. } => Some(HookEvent::Success),
        RunState::Ended { outcome, .. } if !matches!(outcome, Outcome::Cancelled { .. }) => {
            Some(HookEvent::Failure)
        }
        RunState::Pending
        | RunState::Running { .. }
        | RunState::Ended { .. }
        | RunState::Skipped { .. } => None,
    }
}
