//! One step of the scheduler, while it is being decided: the jobs as they will be, the ledger
//! rows to write, the runs to start and the answers to give. Nothing of it is true before the
//! store has committed it.

pub(crate) mod apply;
pub(crate) mod complete;
pub(crate) mod correct;
pub(crate) mod declared;
pub(crate) mod fire;
pub(crate) mod load;
pub(crate) mod notify;
pub(crate) mod outputs;
pub(crate) mod overlap;
pub(crate) mod redefine;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::TimeDelta;
use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::executor::{Assignment, Heartbeat};
use crate::job::{Job, JobId};
use crate::output::Output;
use crate::run::{Execution, Run, RunId, RunState};
use crate::scheduler::admission::Rules;
use crate::scheduler::log::Note;
use crate::scheduler::request::{Request, RequestError, Response};
use crate::scheduler::step::correct::CorrectedPage;
use crate::store::Change;
use crate::trigger::Span;

/// For how long an instant to which a definition was dated back has to be told apart from later ones.
const DATED_BACK_APART: TimeDelta = TimeDelta::seconds(1);

/// What a step writes of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum JobWrite {
    /// Nothing.
    #[default]
    Not,
    /// Its place in the schedule.
    Advanced,
    /// All of it.
    Defined,
}

/// A job before this step and after it.
#[derive(Debug, Default)]
struct JobChange {
    before: Option<Arc<Job>>,
    /// Its revision is the one that it will have.
    after: Option<Arc<Job>>,
    written: JobWrite,
}

impl JobChange {
    /// Says who holds the job, if it is written.
    fn set_owner(&mut self, owner: impl Fn(&Job) -> Option<Arc<str>>) {
        let Some(job) = self.after.as_mut().filter(|_| self.written != JobWrite::Not) else {
            return;
        };
        let owner = owner(job);
        if job.owner != owner {
            Arc::make_mut(job).owner = owner;
        }
    }
}

/// An answer that is given once the step is committed.
#[derive(Debug)]
pub(crate) struct StepReply {
    pub(crate) to: oneshot::Sender<Result<Response, RequestError>>,
    pub(crate) answer: Result<Response, RequestError>,
}

/// What a step will do.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) now: Timestamp,
    node: Arc<str>,
    jobs: BTreeMap<JobId, JobChange>,
    ledger: Vec<Change>,
    /// Where in the ledger the rows are that this step adds.
    added: BTreeMap<RunId, usize>,
    /// Since when the scheduler is paused, as of this step.
    paused_since: Option<Timestamp>,
    pub(crate) starts: Vec<(String, Assignment)>,
    /// Runs that are asked to end, and why.
    pub(crate) cancels: Vec<(RunId, String)>,
    pub(crate) replies: Vec<StepReply>,
    /// What was asked: it may have to be asked again.
    pub(crate) asked: Vec<Request>,
    /// The rules before this step, if it has changed them.
    pub(crate) former_rules: Option<Rules>,
    /// Jobs that fire in this step.
    pub(crate) fired: Vec<JobId>,
    /// Heartbeats to send.
    pub(crate) beats: Vec<Heartbeat>,
    /// Attempts whose end this step records.
    pub(crate) recorded: Vec<Execution>,
    /// Outputs of runs that go on, which this step saves.
    pub(crate) saved: Vec<(Execution, Arc<Output>)>,
    /// Runs whose end this step records.
    pub(crate) ended: Vec<Arc<Run>>,
    /// The last instant to which a definition was dated back.
    pub(crate) dated_back: Option<Timestamp>,
    /// Jobs that were looked at because the clock was corrected.
    pub(crate) looked: Option<CorrectedPage>,
    /// What the log tells once the step is committed.
    pub(crate) notes: Vec<Note>,
    /// Runs that the requests speak of, as the store has them.
    runs: BTreeMap<RunId, Arc<Run>>,
}

impl Step {
    /// A step of this node at `now` that knows these jobs and runs, of a scheduler that is paused since then or not.
    pub(crate) fn new(
        now: Timestamp,
        node: Arc<str>,
        (jobs, runs): (Vec<Job>, Vec<Run>),
        paused_since: Option<Timestamp>,
    ) -> Self {
        let mut step = Self {
            now,
            node,
            jobs: BTreeMap::new(),
            ledger: Vec::new(),
            added: BTreeMap::new(),
            paused_since,
            starts: Vec::new(),
            cancels: Vec::new(),
            replies: Vec::new(),
            asked: Vec::new(),
            former_rules: None,
            fired: Vec::new(),
            beats: Vec::new(),
            recorded: Vec::new(),
            saved: Vec::new(),
            ended: Vec::new(),
            dated_back: None,
            looked: None,
            notes: Vec::new(),
            runs: runs.into_iter().map(|run| (run.id.clone(), Arc::new(run))).collect(),
        };
        for job in jobs {
            step.learn(&Arc::new(job));
        }
        step
    }

    /// A job as it stands in this step.
    pub(crate) fn job(&self, id: &JobId) -> Option<&Arc<Job>> {
        self.jobs.get(id)?.after.as_ref()
    }

    /// The jobs that this step knows, as they stand.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs.values().filter_map(|entry| entry.after.as_ref())
    }

    /// Whether this step changes the job.
    pub(crate) fn writes(&self, id: &JobId) -> bool {
        self.jobs.get(id).is_some_and(|entry| entry.written != JobWrite::Not)
    }

    /// Takes up a job that the store gave.
    pub(crate) fn learn(&mut self, job: &Arc<Job>) {
        let entry = JobChange {
            before: Some(Arc::clone(job)),
            after: Some(Arc::clone(job)),
            ..JobChange::default()
        };
        self.jobs.entry(job.id.clone()).or_insert(entry);
    }

    /// Makes a job this from now on.
    pub(crate) fn put(&mut self, job: Job) -> Arc<Job> {
        self.write(job, JobWrite::Defined)
    }

    /// Gives a job another place in the schedule, and nothing else.
    pub(crate) fn advance(&mut self, job: Job) -> Arc<Job> {
        self.write(job, JobWrite::Advanced)
    }

    fn write(&mut self, job: Job, written: JobWrite) -> Arc<Job> {
        let entry = self.jobs.entry(job.id.clone()).or_default();
        // One that this step also removed is the same one to the store.
        let stored = entry.before.as_ref().map(|before| (before.revision, before.created_at));
        let (revision, created_at) = stored.unwrap_or((0, job.created_at));
        let job = Arc::new(Job { revision: revision + 1, created_at, ..job });
        entry.after = Some(Arc::clone(&job));
        entry.written = entry.written.max(written);
        job
    }

    /// An instant before this step that no other definition has: a microsecond before it, and one more for each. Steps can
    /// follow each other within a microsecond, so that it is also before those of the last second.
    pub(crate) fn date_back(&mut self) -> Timestamp {
        let is_near =
            |last: &Timestamp| self.now.signed_duration_since(*last).abs() < DATED_BACK_APART;
        let former = self.dated_back.filter(is_near).map_or(self.now, |last| last.min(self.now));
        let at = former.checked_sub_signed(TimeDelta::microseconds(1)).unwrap_or(former);
        self.dated_back = Some(at);
        at
    }

    /// Removes a job.
    pub(crate) fn delete(&mut self, id: &JobId) {
        let entry = self.jobs.entry(id.clone()).or_default();
        entry.after = None;
        entry.written = JobWrite::Defined;
    }

    /// Since when the scheduler is paused.
    pub(crate) fn paused_since(&self) -> Option<Timestamp> {
        self.paused_since
    }

    /// Pauses the scheduler from now on, or resumes it.
    pub(crate) fn set_paused(&mut self, paused: bool) {
        if self.paused_since.is_some() != paused {
            self.paused_since = Some(self.now).filter(|_| paused);
            self.ledger.push(Change::SetPaused(self.paused_since));
        }
    }

    /// Adds a change that is about no row of its own.
    pub(crate) fn note(&mut self, change: Change) {
        self.ledger.push(change);
    }

    /// Adds a row to the ledger.
    pub(crate) fn insert_run(&mut self, run: Arc<Run>) {
        self.added.insert(run.id.clone(), self.ledger.len());
        self.ledger.push(Change::InsertRun(run));
    }

    /// Overwrites a row of the ledger. A row that this same step added is simply added as it now is.
    pub(crate) fn update_run(&mut self, run: Arc<Run>) {
        let added = self.added.get(&run.id).and_then(|number| self.ledger.get_mut(*number));
        if let Some(change) = added {
            *change = Change::InsertRun(run);
        } else {
            let held_by = Arc::clone(&self.node);
            self.ledger.push(Change::UpdateRun { run, held_by });
        }
    }

    /// Has a row of skipped occurrences take in those of `span`, and gives it back as it then is.
    pub(crate) fn extend_skipped(&mut self, row: &Run, span: Span) -> Option<Arc<Run>> {
        let RunState::Skipped { reason, last_scheduled_at: former_last, count } = row.state else {
            return None;
        };
        let (last_scheduled_at, count) = (span.last, count.saturating_add(span.count));
        let state = RunState::Skipped { reason, last_scheduled_at, count };
        let run = Arc::new(Run { state, ..row.clone() });
        self.ledger.push(Change::ExtendSkipped { run: Arc::clone(&run), former_last });
        Some(run)
    }

    /// A run that the store gave.
    pub(crate) fn run(&self, id: &RunId) -> Option<&Arc<Run>> {
        self.runs.get(id)
    }

    /// Records an attempt that has ended and is not the last of its run.
    pub(crate) fn end_attempt(&mut self, run: &Run) {
        if let Some(attempt) = run.last_attempt() {
            self.ledger.push(Change::InsertAttempt(Arc::new(attempt)));
        }
    }

    /// Everything that is to be written, in one transaction. `owner` says who holds a job from now on.
    pub(crate) fn changes(&mut self, owner: impl Fn(&Job) -> Option<Arc<str>>) -> Vec<Change> {
        let mut changes = Vec::with_capacity(self.jobs.len() + self.ledger.len());
        for (id, entry) in &mut self.jobs {
            entry.set_owner(&owner);
            let change = match (&entry.before, &entry.after, entry.written) {
                (_, _, JobWrite::Not) | (None, None, _) => continue,
                (None, Some(job), _) => Change::InsertJob(Arc::clone(job)),
                (Some(_), Some(job), JobWrite::Advanced) => Change::AdvanceJob(Arc::clone(job)),
                (Some(_), Some(job), JobWrite::Defined) => Change::UpdateJob(Arc::clone(job)),
                (Some(before), None, _) => {
                    let (revision, created_at) = (before.revision, before.created_at);
                    Change::DeleteJob { id: id.clone(), revision, created_at }
                }
            };
            changes.push(change);
        }
        changes.append(&mut self.ledger);
        // Like changes share a statement: those of one kind follow each other, and keep their order.
        changes.sort_by_key(|change| match change {
            Change::InsertJob(_) | Change::UpdateJob(_) | Change::DeleteJob { .. } => 0,
            Change::AdvanceJob(_) => 1,
            Change::InsertRun(_) => 2,
            Change::UpdateRun { .. } => 3,
            Change::ExtendSkipped { .. } => 4,
            Change::InsertAttempt(_) => 5,
            Change::PutOutput { .. } => 6,
            Change::SavePartialOutput { .. } => 7,
            Change::CancelJobRuns { .. }
            | Change::CancelRun { .. }
            | Change::SetPaused(_)
            | Change::RecordTime(_) => 8,
            Change::Prune { .. } => 9,
        });
        changes
    }

    /// The jobs as they are now that the step has been written; none for one that is gone.
    pub(crate) fn written(&mut self) -> impl Iterator<Item = (JobId, Option<Arc<Job>>)> + use<> {
        let jobs = std::mem::take(&mut self.jobs).into_iter();
        let written = jobs.filter(|(_, entry)| entry.written != JobWrite::Not);
        written.map(|(id, entry)| (id, entry.after))
    }
}
