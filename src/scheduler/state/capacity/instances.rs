//! The runs of each job that are in flight, here and on other nodes.

use std::collections::BTreeMap;

use super::slots::WaitingRun;
use crate::job::{Job, JobId};
use crate::run::{Cause, Run};
use crate::store::InFlightCount;

/// Whether what runs on other nodes has been asked for in this step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstanceView {
    /// Of this node alone.
    ThisNode,
    /// Of all nodes.
    AllNodes,
}

/// Runs of a job on this node.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Count {
    pub(crate) running: u32,
    pub(crate) waiting: u32,
    /// Hook runs, waiting or running. They are no instances of the job.
    pub(crate) hooks: u32,
}

impl Count {
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

/// The runs in flight of each job. Hook runs are counted apart.
#[derive(Debug, Default)]
pub(crate) struct Instances {
    here: BTreeMap<JobId, Count>,
    /// On other nodes, as far as is known.
    elsewhere: BTreeMap<JobId, InFlightCount>,
}

/// Whether a run is an instance of its job.
pub(crate) fn is_instance(run: &Run) -> bool {
    !matches!(run.cause, Cause::Event { .. })
}

impl Instances {
    /// Takes up what is in flight on other nodes.
    pub(crate) fn set_other_nodes(&mut self, in_flight: Vec<(JobId, InFlightCount)>) {
        self.elsewhere = in_flight.into_iter().collect();
    }

    /// Runs of a job on this node.
    pub(crate) fn here(&self, id: &JobId) -> Count {
        self.here.get(id).copied().unwrap_or_default()
    }

    /// Whether a run of the job is in flight, here or, as far as is known, on another node; a hook run here counts too.
    pub(crate) fn has_in_flight(&self, id: &JobId) -> bool {
        self.here.contains_key(id) || self.elsewhere.contains_key(id)
    }

    /// Runs of a job that were started on other nodes, as far as is known.
    pub(crate) fn running_elsewhere(&self, id: &JobId) -> u32 {
        self.elsewhere.get(id).map_or(0, |count| count.running)
    }

    /// Whether another run of the job is within its `max_instances`, over all nodes.
    pub(crate) fn has_free_instance(&self, job: &Job) -> bool {
        let Count { running, waiting, .. } = self.here(&job.id);
        let elsewhere = self.elsewhere.get(&job.id).copied().unwrap_or_default();
        let all = [running, waiting, elsewhere.running, elsewhere.waiting];
        all.into_iter().fold(0, u32::saturating_add) < job.policy.max_instances
    }

    /// Whether a run that waits may start.
    pub(crate) fn may_start(&self, waiting: &WaitingRun, known: InstanceView) -> bool {
        let job = &waiting.job;
        if !is_instance(&waiting.run) {
            return true;
        }
        let running = self.here(&job.id).running.saturating_add(self.running_elsewhere(&job.id));
        let is_known = !waiting.needs_cluster_check || known == InstanceView::AllNodes;
        is_known && running < job.policy.max_instances
    }

    /// A run waits.
    pub(crate) fn wait(&mut self, run: &Run) {
        self.change(&run.job_id, |count| *count.waiting_of(is_instance(run)) += 1);
    }

    /// A run that waited does not any more.
    pub(crate) fn end_waiting(&mut self, run: &Run) {
        self.change(&run.job_id, |count| decrement(count.waiting_of(is_instance(run))));
    }

    /// A run was started.
    pub(crate) fn start(&mut self, run: &Run) {
        self.change(&run.job_id, |count| *count.running_of(is_instance(run)) += 1);
    }

    /// A run that was started has ended: an instance of the job, or a hook run.
    pub(crate) fn end(&mut self, job_id: &JobId, is_instance: bool) {
        self.change(job_id, |count| decrement(count.running_of(is_instance)));
    }

    fn change(&mut self, job_id: &JobId, change: impl FnOnce(&mut Count)) {
        let count = self.here.entry(job_id.clone()).or_default();
        change(count);
        if count.is_zero() {
            self.here.remove(job_id);
        }
    }
}
