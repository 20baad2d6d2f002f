//! One step of the scheduler, while it is being decided: the jobs as they will be, the ledger
//! rows to write, the runs to start and the answers to give. Nothing of it is true before the
//! store has committed it.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::command::{Answer, Refusal};
use crate::clock::Timestamp;
use crate::executor::{Assignment, Completion};
use crate::job::{Job, JobId};
use crate::run::Run;
use crate::store::Change;

/// A job before this step and after it.
#[derive(Debug, Default)]
struct Entry {
    before: Option<Job>,
    after: Option<Job>,
    touched: bool,
}

/// An answer that is given once the step is committed.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) to: oneshot::Sender<Result<Answer, Refusal>>,
    pub(super) answer: Result<Answer, Refusal>,
}

/// What a step will do.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) now: Timestamp,
    jobs: BTreeMap<JobId, Entry>,
    ledger: Vec<Change>,
    /// Since when the scheduler is paused, as of this step.
    paused_since: Option<Timestamp>,
    pub(super) starts: Vec<(String, Assignment)>,
    pub(super) replies: Vec<Reply>,
    /// Runs whose end this step records.
    pub(super) ended: Vec<Run>,
}

impl Step {
    /// A step at `now` that knows these jobs, of a scheduler that is paused since then or not.
    pub(super) fn new(now: Timestamp, jobs: Vec<Job>, paused_since: Option<Timestamp>) -> Self {
        let mut step = Self {
            now,
            jobs: BTreeMap::new(),
            ledger: Vec::new(),
            paused_since,
            starts: Vec::new(),
            replies: Vec::new(),
            ended: Vec::new(),
        };
        for job in jobs {
            step.learn(job);
        }
        step
    }

    /// A job as it stands in this step.
    pub(super) fn job(&self, id: &JobId) -> Option<&Job> {
        self.jobs.get(id)?.after.as_ref()
    }

    /// The jobs that this step knows, as they stand.
    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values().filter_map(|entry| entry.after.as_ref())
    }

    /// Whether this step has looked at the job: then the store's copy may be behind.
    pub(super) fn knows(&self, id: &JobId) -> bool {
        self.jobs.contains_key(id)
    }

    /// Takes up a job that the store gave.
    pub(super) fn learn(&mut self, job: Job) {
        let entry = Entry { before: Some(job.clone()), after: Some(job.clone()), touched: false };
        self.jobs.entry(job.id).or_insert(entry);
    }

    /// Makes a job this from now on. The revision shown is the one that the store will give it.
    pub(super) fn put(&mut self, job: Job) -> Job {
        let entry = self.jobs.entry(job.id.clone()).or_default();
        let stored = entry.before.as_ref().map_or(0, |before| before.revision);
        let shown = Job { revision: stored + 1, ..job.clone() };
        entry.after = Some(Job { revision: stored, ..job });
        entry.touched = true;
        shown
    }

    /// Removes a job.
    pub(super) fn delete(&mut self, id: &JobId) {
        let entry = self.jobs.entry(id.clone()).or_default();
        entry.after = None;
        entry.touched = true;
    }

    /// Since when the scheduler is paused.
    pub(super) fn paused_since(&self) -> Option<Timestamp> {
        self.paused_since
    }

    /// Pauses the scheduler from now on, or resumes it.
    pub(super) fn set_paused(&mut self, paused: bool) {
        if self.paused_since.is_some() != paused {
            self.paused_since = Some(self.now).filter(|_| paused);
            self.ledger.push(Change::SetPaused(self.paused_since));
        }
    }

    /// Adds a row to the ledger.
    pub(super) fn insert_run(&mut self, run: Run) {
        self.ledger.push(Change::InsertRun(Box::new(run)));
    }

    /// Writes a row of the ledger anew. A row that this same step added is simply added as it now is.
    pub(super) fn update_run(&mut self, run: Run) {
        let added = self.ledger.iter_mut().rev().find_map(|change| match change {
            Change::InsertRun(known) if known.id == run.id => Some(known),
            Change::InsertRun(_)
            | Change::UpdateRun(_)
            | Change::InsertJob(_)
            | Change::UpdateJob(_)
            | Change::DeleteJob(_)
            | Change::PutOutput { .. }
            | Change::SetPaused(_) => None,
        });
        match added {
            Some(known) => **known = run,
            None => self.ledger.push(Change::UpdateRun(Box::new(run))),
        }
    }

    /// Records how a run ended, with its output.
    pub(super) fn end_run(&mut self, mut run: Run, completion: &Completion) {
        run.end(completion.started_at, completion.finished_at, completion.outcome.clone());
        if !completion.output.is_empty() {
            let output = completion.output.clone();
            let (run_id, bytes) = (run.id.clone(), output.total());
            self.ledger.push(Change::PutOutput { run_id, tail: output.into_text(), bytes });
        }
        self.ended.push(run.clone());
        self.ledger.push(Change::UpdateRun(Box::new(run)));
    }

    /// Everything that is to be written, in one transaction.
    pub(super) fn changes(&self) -> Vec<Change> {
        let jobs = self.jobs.iter().filter(|(_, entry)| entry.touched);
        let jobs = jobs.filter_map(|(id, entry)| match (&entry.before, &entry.after) {
            (None, Some(job)) => Some(Change::InsertJob(Box::new(job.clone()))),
            (Some(_), Some(job)) => Some(Change::UpdateJob(Box::new(job.clone()))),
            (Some(_), None) => Some(Change::DeleteJob(id.clone())),
            (None, None) => None,
        });
        jobs.chain(self.ledger.iter().cloned()).collect()
    }

    /// The jobs as they are now that the step has been written; none for one that is gone.
    pub(super) fn written(&mut self) -> impl Iterator<Item = (JobId, Option<Job>)> + use<> {
        let touched = std::mem::take(&mut self.jobs).into_iter().filter(|(_, entry)| entry.touched);
        touched.map(|(id, entry)| {
            (id, entry.after.map(|job| Job { revision: job.revision + 1, ..job }))
        })
    }
}
