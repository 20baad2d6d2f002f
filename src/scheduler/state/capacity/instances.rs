//! The instances of each job that are in flight, here and on other nodes.

use std::collections::BTreeMap;

use super::slots::WaitingRun;
use crate::job::{Job, JobId};
use crate::run::{Cause, Run};
use crate::store::InFlightCount;

/// Which nodes' runs this step knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstanceView {
    ThisNode,
    AllNodes,
}

/// Runs of a job on this node.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct RunCount {
    pub(crate) running: u32,
    pub(crate) waiting: u32,
    /// Hook runs, waiting or running. They do not count as instances of the job.
    pub(crate) hooks: u32,
}

impl RunCount {
    fn waiting_of(&mut self, is_instance: bool) -> &mut u32 {
        if is_instance { &mut self.waiting } else { &mut self.hooks }
    }

    fn running_of(&mut self, is_instance: bool) -> &mut u32 {
        if is_instance { &mut self.running } else { &mut self.hooks }
    }

    fn is_zero(self) -> bool {
        self.running == 0 && self.waiting == 0 && self.hooks == 0
    }
}

fn decrement(count: &mut u32) {
    *count = count.saturating_sub(1);
}

#[derive(Debug, Default)]
pub(crate) struct Instances {
    here: BTreeMap<JobId, RunCount>,
    /// On other nodes, as of the last look.
    elsewhere: BTreeMap<JobId, InFlightCount>,
}

/// Whether a run is an instance of its job.
pub(crate) fn is_instance(run: &Run) -> bool {
    !matches!(run.cause, Cause::Event { .. })
}

impl Instances {
    pub(crate) fn set_other_nodes(&mut self, in_flight: Vec<(JobId, InFlightCount)>) {
        self.elsewhere = in_flight.into_iter().collect();
    }

    pub(crate) fn here(&self, id: &JobId) -> RunCount {
        self.here.get(id).copied().unwrap_or_default()
    }

    /// Whether a run of the job is in flight on any node, or a hook run on this one.
    pub(crate) fn has_in_flight(&self, id: &JobId) -> bool {
        self.here.contains_key(id) || self.elsewhere.contains_key(id)
    }

    pub(crate) fn running_elsewhere(&self, id: &JobId) -> u32 {
        self.elsewhere.get(id).map_or(0, |count| count.running)
    }

    pub(crate) fn has_free_instance(&self, job: &Job) -> bool {
        let RunCount { running, waiting, .. } = self.here(&job.id);
        let elsewhere = self.elsewhere.get(&job.id).copied().unwrap_or_default();
        let all = [running, waiting, elsewhere.running, elsewhere.waiting];
        all.into_iter().fold(0, u32::saturating_add) < job.policy.max_instances
    }

    /// Whether a waiting run may start. One that needs a cluster check may start only in a step that knows all nodes.
    pub(crate) fn may_start(&self, waiting: &WaitingRun, view: InstanceView) -> bool {
        let job = &waiting.job;
        if !is_instance(&waiting.run) {
            return true;
        }
        let running = self.here(&job.id).running.saturating_add(self.running_elsewhere(&job.id));
        let is_checked = !waiting.needs_cluster_check || view == InstanceView::AllNodes;
        is_checked && running < job.policy.max_instances
    }

    pub(crate) fn wait(&mut self, run: &Run) {
        self.change(&run.job_id, |count| *count.waiting_of(is_instance(run)) += 1);
    }

    pub(crate) fn end_waiting(&mut self, run: &Run) {
        self.change(&run.job_id, |count| decrement(count.waiting_of(is_instance(run))));
    }

    pub(crate) fn start(&mut self, run: &Run) {
        self.change(&run.job_id, |count| *count.running_of(is_instance(run)) += 1);
    }

    pub(crate) fn end(&mut self, job_id: &JobId, is_instance: bool) {
        self.change(job_id, |count| decrement(count.running_of(is_instance)));
    }

    fn change(&mut self, job_id: &JobId, change: impl FnOnce(&mut RunCount)) {
        let count = self.here.entry(job_id.clone()).or_default();
        change(count);
        if count.is_zero() {
            self.here.remove(job_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::scheduler::fixtures::{hook_run, job, run, shared};

    fn elsewhere(job: &Job, running: u32, waiting: u32) -> Vec<(JobId, InFlightCount)> {
        vec![(job.id.clone(), InFlightCount { running, waiting })]
    }

    fn waiting(run: Run, job: &Job, needs_cluster_check: bool) -> WaitingRun {
        WaitingRun { run: Arc::new(run), job: shared(job), needs_cluster_check, event: None }
    }

    #[test]
    fn instances_of_all_nodes_count_waiting_or_running() {
        let job = job("a", json!({"max_instances": 3}));
        let first = run("1", &job, 0);
        let mut instances = Instances::default();
        assert!(instances.has_free_instance(&job) && !instances.has_in_flight(&job.id));
        instances.wait(&first);
        instances.set_other_nodes(elsewhere(&job, 1, 0));
        assert!(instances.has_free_instance(&job));
        instances.set_other_nodes(elsewhere(&job, 1, 1));
        assert!(!instances.has_free_instance(&job));
        instances.end_waiting(&first);
        instances.start(&first);
        assert!(!instances.has_free_instance(&job), "it runs now");
        instances.end(&job.id, true);
        assert!(instances.has_free_instance(&job) && instances.has_in_flight(&job.id));
        instances.set_other_nodes(Vec::new());
        assert!(!instances.has_in_flight(&job.id));
    }

    #[test]
    fn a_run_starts_when_fewer_than_max_instances_run_on_all_nodes() {
        let job = job("a", json!({"max_instances": 2}));
        let next = waiting(run("2", &job, 0), &job, false);
        let mut instances = Instances::default();
        instances.start(&run("1", &job, 0));
        assert!(instances.may_start(&next, InstanceView::ThisNode));
        instances.set_other_nodes(elsewhere(&job, 0, 9));
        assert!(instances.may_start(&next, InstanceView::ThisNode), "waiting runs do not run");
        instances.set_other_nodes(elsewhere(&job, 1, 0));
        assert!(!instances.may_start(&next, InstanceView::AllNodes));
    }

    #[test]
    fn a_run_that_needs_a_cluster_check_starts_in_a_step_that_knows_all_nodes() {
        let job = job("a", json!({}));
        let next = waiting(run("1", &job, 0), &job, true);
        let instances = Instances::default();
        assert!(!instances.may_start(&next, InstanceView::ThisNode));
        assert!(instances.may_start(&next, InstanceView::AllNodes));
    }

    #[test]
    fn hook_runs_are_no_instances_but_in_flight() {
        let job = job("a", json!({}));
        let hook = hook_run("hook", &job, 0);
        let mut instances = Instances::default();
        instances.start(&run("1", &job, 0));
        instances.wait(&hook);
        let count = instances.here(&job.id);
        assert_eq!((count.running, count.waiting, count.hooks), (1, 0, 1));
        let waits = waiting(hook.clone(), &job, true);
        assert!(instances.may_start(&waits, InstanceView::ThisNode), "beside the run");
        instances.end(&job.id, true);
        assert!(instances.has_free_instance(&job) && instances.has_in_flight(&job.id));
        instances.end_waiting(&hook);
        assert!(!instances.has_in_flight(&job.id), "nothing is kept of a job without runs");
    }
}
