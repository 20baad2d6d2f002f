//! One step of the scheduler while it is being decided: the jobs as they will be, the ledger rows to write, the runs to
//! start and the answers to give. Nothing of it is true before the store has committed it.
//!
//! Each phase of a step is a file: [`load`] reads what the step must know, [`complete`] records ends, [`apply`] does what
//! was requested, [`fire`] turns due occurrences into runs, [`start`] gives runs a worker, [`act`] starts, answers and
//! logs after the commit. They share a [`context`].

pub(crate) mod act;
pub(crate) mod apply;
pub(crate) mod complete;
pub(crate) mod context;
pub(crate) mod correct;
mod declared;
pub(crate) mod fire;
pub(crate) mod load;
mod modify;
mod pause;
mod redefine;
pub(crate) mod start;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::TimeDelta;
use tokio::sync::oneshot;

use super::log::Note;
use super::metrics::SkipCounts;
use super::plan;
use super::request::{PendingRequest, Request, RequestError, Response};
use super::state::clock::CorrectedPage;
use crate::clock::Timestamp;
use crate::executor::{Assignment, Heartbeat};
use crate::job::admission::Rules;
use crate::job::{Job, JobId, Pause};
use crate::output::Output;
use crate::run::{Execution, Run, RunId, RunState};
use crate::store::{Change, StoreError};
use crate::trigger::Span;

/// How long an instant to which a definition was dated back has to differ from later ones.
const DATED_BACK_APART: TimeDelta = TimeDelta::seconds(1);

/// What a step writes of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum JobWrite {
    #[default]
    Nothing,
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
    write: JobWrite,
}

/// An answer to give once the step is committed.
#[derive(Debug)]
pub(crate) struct StepReply {
    pub(crate) to: oneshot::Sender<Result<Response, RequestError>>,
    pub(crate) answer: Result<Response, RequestError>,
}

#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) now: Timestamp,
    node: Arc<str>,
    jobs: BTreeMap<JobId, JobChange>,
    /// Changes of everything but jobs.
    changes: Vec<Change>,
    /// The indexes in `changes` of the runs that this step inserts.
    inserted: BTreeMap<RunId, usize>,
    /// The pause of the scheduler, as of this step.
    pause: Option<Arc<Pause>>,
    /// The pools whose queues take due runs.
    pub(crate) open_pools: Vec<String>,
    /// Runs to start, each with its pool.
    pub(crate) starts: Vec<(String, Assignment)>,
    /// Runs to cancel, with the reason.
    pub(crate) cancels: Vec<(RunId, String)>,
    pub(crate) replies: Vec<StepReply>,
    /// The requests of this step: if it fails, they may have to be made again.
    pub(crate) requests: Vec<Request>,
    /// The rules before this step, if it has changed them.
    pub(crate) former_rules: Option<Rules>,
    /// Jobs that fire in this step.
    pub(crate) fired: Vec<JobId>,
    /// Heartbeats to send.
    pub(crate) heartbeats: Vec<Heartbeat>,
    /// Attempts whose end this step records.
    pub(crate) recorded: Vec<Execution>,
    /// Outputs of running attempts that this step saves.
    pub(crate) saved: Vec<(Execution, Arc<Output>)>,
    /// Runs whose end this step records.
    pub(crate) ended: Vec<Arc<Run>>,
    /// Occurrences that this step skips.
    pub(crate) skipped: SkipCounts,
    /// The last instant to which a definition was dated back.
    pub(crate) dated_back: Option<Timestamp>,
    /// The jobs that this step looks at because the clock was corrected.
    pub(crate) corrected: Option<CorrectedPage>,
    /// What to log once the step is committed.
    pub(crate) notes: Vec<Note>,
    /// Runs that the requests name, as the store has them.
    runs: BTreeMap<RunId, Arc<Run>>,
}

impl Step {
    /// Starts a step of this node at `now`, of a scheduler with this pause.
    pub(crate) fn new(now: Timestamp, node: Arc<str>, pause: Option<Arc<Pause>>) -> Self {
        Self { now, node, pause, ..Self::default() }
    }

    /// A job as it will be after this step.
    pub(crate) fn job(&self, id: &JobId) -> Option<&Arc<Job>> {
        self.jobs.get(id)?.after.as_ref()
    }

    /// The jobs that this step knows, as they will be after it.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs.values().filter_map(|change| change.after.as_ref())
    }

    /// Whether this step changes the job.
    pub(crate) fn writes(&self, id: &JobId) -> bool {
        self.jobs.get(id).is_some_and(|change| change.write != JobWrite::Nothing)
    }

    /// Adds a job as the store has it. A job that the step knows already stays as it is.
    pub(crate) fn add_loaded(&mut self, job: &Arc<Job>) {
        self.jobs.entry(job.id.clone()).or_insert_with(|| JobChange {
            before: Some(Arc::clone(job)),
            after: Some(Arc::clone(job)),
            write: JobWrite::Nothing,
        });
    }

    /// Adds runs as the store has them.
    pub(crate) fn add_loaded_runs(&mut self, runs: Vec<Run>) {
        self.runs.extend(runs.into_iter().map(|run| (run.id.clone(), Arc::new(run))));
    }

    /// Defines a job.
    pub(crate) fn put(&mut self, job: Job) -> Arc<Job> {
        self.write(job, JobWrite::Defined)
    }

    /// Changes the place of a job in the schedule, and nothing else.
    pub(crate) fn advance(&mut self, job: Job) -> Arc<Job> {
        self.write(job, JobWrite::Advanced)
    }

    fn write(&mut self, job: Job, write: JobWrite) -> Arc<Job> {
        let change = self.jobs.entry(job.id.clone()).or_default();
        // A job that this step has removed and adds again is the same row to the store.
        let stored = change.before.as_ref().map(|before| (before.revision, before.created_at));
        let (revision, created_at) = stored.unwrap_or((0, job.created_at));
        let job = Arc::new(Job { revision: revision + 1, created_at, ..job });
        change.after = Some(Arc::clone(&job));
        change.write = change.write.max(write);
        job
    }

    /// An instant before this step that no other definition has: one microsecond earlier for each call. Steps can follow
    /// each other within a microsecond, so it is also earlier than the instants given out in the last second.
    pub(crate) fn date_back(&mut self) -> Timestamp {
        let is_near =
            |last: &Timestamp| self.now.signed_duration_since(*last).abs() < DATED_BACK_APART;
        let former = self.dated_back.filter(is_near).map_or(self.now, |last| last.min(self.now));
        let at = plan::before(former);
        self.dated_back = Some(at);
        at
    }

    pub(crate) fn delete(&mut self, id: &JobId) {
        let change = self.jobs.entry(id.clone()).or_default();
        change.after = None;
        change.write = JobWrite::Defined;
    }

    /// The pause of the scheduler as a whole, if it is paused.
    pub(crate) fn pause(&self) -> Option<&Arc<Pause>> {
        self.pause.as_ref()
    }

    /// Pauses the scheduler as a whole, or resumes it.
    pub(crate) fn set_pause(&mut self, pause: Option<Arc<Pause>>) {
        if self.pause != pause {
            self.changes.push(Change::SetPause(pause.clone()));
            self.pause = pause;
        }
    }

    /// Resumes the scheduler if its pause is over.
    pub(crate) fn end_pause(&mut self) {
        if let Some(pause) = self.pause.take_if(|pause| pause.is_over(self.now)) {
            let until = pause.until.unwrap_or(self.now);
            self.notes.push(Note::PauseEnded { job: None, until });
            self.changes.push(Change::EndPause(pause));
        }
    }

    /// Adds a change of something other than a job or a run.
    pub(crate) fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Adds a row to the ledger.
    pub(crate) fn insert_run(&mut self, run: Arc<Run>) {
        self.count_skipped(&run);
        self.inserted.insert(run.id.clone(), self.changes.len());
        self.changes.push(Change::InsertRun(run));
    }

    /// Overwrites a row of the ledger. A row that this same step inserts is inserted as it now is.
    pub(crate) fn update_run(&mut self, run: Arc<Run>) {
        self.count_skipped(&run);
        let inserted = self.inserted.get(&run.id).and_then(|index| self.changes.get_mut(*index));
        if let Some(change) = inserted {
            *change = Change::InsertRun(run);
        } else {
            let held_by = Arc::clone(&self.node);
            self.changes.push(Change::UpdateRun { run, held_by });
        }
    }

    /// Extends a row of skipped occurrences by those of `span`. Returns the extended row.
    pub(crate) fn extend_skipped(&mut self, row: &Run, span: Span) -> Option<Arc<Run>> {
        let RunState::Skipped { reason, last_scheduled_at: former_last, count } = row.state else {
            return None;
        };
        *self.skipped.entry(reason.word()).or_default() += span.count;
        let (last_scheduled_at, count) = (span.last, count.saturating_add(span.count));
        let state = RunState::Skipped { reason, last_scheduled_at, count };
        let run = Arc::new(Run { state, ..row.clone() });
        self.changes.push(Change::ExtendSkipped { run: Arc::clone(&run), former_last });
        Some(run)
    }

    fn count_skipped(&mut self, run: &Run) {
        if let RunState::Skipped { reason, count, .. } = &run.state {
            *self.skipped.entry(reason.word()).or_default() += count;
        }
    }

    /// A run that a request names, as the store has it.
    pub(crate) fn run(&self, id: &RunId) -> Option<&Arc<Run>> {
        self.runs.get(id)
    }

    /// Records the end of an attempt that is not the last of its run.
    pub(crate) fn end_attempt(&mut self, run: &Run) {
        if let Some(attempt) = run.last_attempt() {
            self.changes.push(Change::InsertAttempt(Arc::new(attempt)));
        }
    }

    /// Takes everything that is to be written in one transaction. `owner` is the node that holds a job from now on.
    pub(crate) fn take_changes(&mut self, owner: impl Fn(&Job) -> Option<Arc<str>>) -> Vec<Change> {
        let mut changes = Vec::with_capacity(self.jobs.len() + self.changes.len());
        for (id, JobChange { before, after, write }) in &mut self.jobs {
            if *write == JobWrite::Nothing {
                continue;
            }
            if let Some(job) = after {
                let owner = owner(job);
                if job.owner != owner {
                    Arc::make_mut(job).owner = owner;
                }
            }
            let change = match (before, after, write) {
                (None, None, _) => continue,
                (None, Some(job), _) => Change::InsertJob(Arc::clone(job)),
                (Some(_), Some(job), JobWrite::Advanced) => Change::AdvanceJob(Arc::clone(job)),
                (Some(_), Some(job), _) => Change::UpdateJob(Arc::clone(job)),
                (Some(before), None, _) => {
                    let (revision, created_at) = (before.revision, before.created_at);
                    Change::DeleteJob { id: id.clone(), revision, created_at }
                }
            };
            changes.push(change);
        }
        changes.append(&mut self.changes);
        // Changes of one kind share a statement, so they follow each other. They keep their order.
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
            | Change::SetPause(_)
            | Change::EndPause(_)
            | Change::RecordTime(_) => 8,
            Change::Prune { .. } => 9,
        });
        changes
    }

    /// Takes the jobs that a committed step has written; `None` for a job that it has removed.
    pub(crate) fn take_written(
        &mut self,
    ) -> impl Iterator<Item = (JobId, Option<Arc<Job>>)> + use<> {
        let jobs = std::mem::take(&mut self.jobs).into_iter();
        let written = jobs.filter(|(_, change)| change.write != JobWrite::Nothing);
        written.map(|(id, change)| (id, change.after))
    }
}

/// What is left of a step that could not be committed.
#[derive(Debug)]
pub(crate) struct StepFailure {
    pub(crate) error: StoreError,
    /// Requests to make again: another node was faster, or the database refuses a value of the step.
    pub(crate) requests: Vec<PendingRequest>,
    /// Jobs that fired in the step.
    pub(crate) fired: Vec<JobId>,
    /// Attempts whose output it saved.
    pub(crate) saved: Vec<Execution>,
}

/// Whether a run belongs to this job, and not to an earlier job of the same id.
pub(crate) fn is_run_of(job: &Job, run: &Run) -> bool {
    // A job that was added while the clock was ahead may have runs that are older than itself. They have its anchor.
    run.anchor == job.anchor || run.created_at >= job.created_at
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::PauseTerms;
    use crate::run::SkipReason;
    use crate::scheduler::fixtures::{at, due_job, job, run, shared};

    fn step() -> Step {
        Step::new(at(100), "here".into(), None)
    }

    /// The changes of a step in a few words each.
    fn written(step: &mut Step) -> Vec<String> {
        let word = |change: Change| match change {
            Change::InsertJob(job) => format!("insert {} {}", job.id, job.revision),
            Change::UpdateJob(job) => format!("update {} {}", job.id, job.revision),
            Change::AdvanceJob(job) => format!("advance {} {}", job.id, job.revision),
            Change::DeleteJob { id, revision, .. } => format!("delete {id} {revision}"),
            Change::InsertRun(run) => format!("insert run {} {}", run.id, run.state.word()),
            Change::UpdateRun { run, held_by } => format!("update run {} of {held_by}", run.id),
            Change::SetPause(pause) => format!("paused {}", pause.is_some()),
            other => format!("{other:?}"),
        };
        step.take_changes(|_| None).into_iter().map(word).collect()
    }

    /// A pause from and until these seconds.
    fn paused(since: i64, until: Option<i64>) -> Arc<Pause> {
        let terms = PauseTerms { until: until.map(at), ..PauseTerms::default() };
        Arc::new(Pause::new(at(since), terms))
    }

    /// A job as the store has it.
    fn stored(id: &str) -> Arc<Job> {
        Arc::new(Job { revision: 7, ..job(id, json!({})) })
    }

    #[test]
    fn a_job_that_changes_several_times_is_written_once_and_counts_one_revision() {
        let mut step = step();
        let before = stored("a");
        step.add_loaded(&before);
        assert!(!step.writes(&before.id));
        step.advance(due_job("a", 110));
        let after = step.put(Job { name: "new".to_owned(), ..due_job("a", 120) });
        assert_eq!(after.revision, 8);
        assert!(Arc::ptr_eq(step.job(&before.id).unwrap(), &after));
        step.advance(Job { run_count: 3, ..Job::clone(&after) });
        assert_eq!(step.job(&before.id).unwrap().revision, 8);
        assert_eq!(written(&mut step), ["update a 8"], "all of it, since it was defined meanwhile");
    }

    #[test]
    fn a_job_that_only_advances_is_written_in_part_and_one_that_was_only_read_is_not() {
        let mut step = step();
        for id in ["a", "b"] {
            step.add_loaded(&stored(id));
        }
        step.advance(due_job("b", 110));
        assert_eq!(step.jobs().count(), 2);
        assert_eq!(written(&mut step), ["advance b 8"]);
        let taken: Vec<JobId> = step.take_written().map(|(id, _)| id).collect();
        assert_eq!(taken, [JobId::parse("b").unwrap()]);
    }

    #[test]
    fn a_job_that_comes_and_goes_in_one_step_is_never_written() {
        let mut step = step();
        let id = step.put(due_job("a", 110)).id.clone();
        step.delete(&id);
        assert!(step.job(&id).is_none());
        assert!(written(&mut step).is_empty());
    }

    #[test]
    fn a_job_that_is_removed_and_added_again_is_the_same_row() {
        let mut step = step();
        let before = stored("a");
        step.add_loaded(&before);
        step.delete(&before.id);
        let again = step.put(Job { created_at: at(100), ..due_job("a", 110) });
        assert_eq!((again.revision, again.created_at), (8, before.created_at));
        assert_eq!(written(&mut step), ["update a 8"]);
        // What is loaded later does not undo what the step has decided.
        step.add_loaded(&before);
        assert_eq!(step.job(&before.id).unwrap().revision, 8);
    }

    #[test]
    fn a_job_is_deleted_at_the_revision_that_the_store_has() {
        let mut step = step();
        step.add_loaded(&stored("a"));
        let id = step.put(due_job("a", 110)).id.clone();
        step.delete(&id);
        assert_eq!(written(&mut step), ["delete a 7"]);
        assert!(step.take_written().all(|(_, job)| job.is_none()));
    }

    #[test]
    fn the_owner_of_a_job_is_decided_when_it_is_written() {
        let mut step = step();
        let id = step.put(due_job("a", 110)).id.clone();
        let changes = step.take_changes(|job| Some(format!("owner of {}", job.id).into()));
        let [Change::InsertJob(job)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!(job.owner.as_deref(), Some("owner of a"));
        assert_eq!(step.job(&id).unwrap().owner, job.owner, "memory has it as the store does");
    }

    #[test]
    fn a_row_that_a_step_adds_is_written_once_as_it_is_at_the_end() {
        let mut step = step();
        let job = due_job("a", 110);
        let (fresh, known) = (run("fresh", &job, 100), run("known", &job, 90));
        step.insert_run(Arc::new(fresh.clone()));
        for run in [fresh, known] {
            let state = RunState::Running { started_at: at(100) };
            step.update_run(Arc::new(Run { state, ..run }));
        }
        assert_eq!(written(&mut step), ["insert run fresh running", "update run known of here"]);
    }

    #[test]
    fn a_row_of_skipped_occurrences_grows_and_says_how_far_it_went_before() {
        let mut step = step();
        let reason = SkipReason::Overlap;
        let state = RunState::Skipped { reason, last_scheduled_at: at(20), count: 2 };
        let row = Run { state, ..run("row", &due_job("a", 110), 10) };
        let more = Span { first: at(30), last: at(50), count: 3 };
        let grown = step.extend_skipped(&row, more).unwrap();
        let expected = RunState::Skipped { reason, last_scheduled_at: at(50), count: 5 };
        assert_eq!(grown.state, expected);
        assert_eq!(
            step.skipped,
            [("overlap", 3)].into(),
            "what was skipped before is not counted again"
        );
        let [Change::ExtendSkipped { former_last, .. }] = &step.take_changes(|_| None)[..] else {
            panic!("nothing is extended")
        };
        assert_eq!(*former_last, at(20));
        assert!(step.extend_skipped(&run("run", &due_job("a", 110), 10), more).is_none());
    }

    #[test]
    fn a_pause_is_written_when_it_changes_something() {
        let mut step = step();
        step.set_pause(Some(paused(100, None)));
        step.set_pause(Some(paused(100, None)));
        assert_eq!(step.pause().unwrap().since, at(100));
        step.set_pause(None);
        step.set_pause(None);
        assert_eq!(written(&mut step), ["paused true", "paused false"]);
        let mut step = Step::new(at(100), "here".into(), Some(paused(50, None)));
        step.set_pause(Some(paused(50, None)));
        assert_eq!((step.pause().unwrap().since, written(&mut step).len()), (at(50), 0));
    }

    #[test]
    fn a_pause_of_the_scheduler_ends_at_its_end_and_says_which_one_it_was() {
        for (until, expected) in [(None, 0), (Some(101), 0), (Some(100), 1), (Some(60), 1)] {
            let pause = Some(paused(50, until));
            let mut step = Step::new(at(100), "here".into(), pause.clone());
            step.end_pause();
            let changes = step.take_changes(|_| None);
            assert_eq!((changes.len(), step.notes.len()), (expected, expected), "{until:?}");
            assert_eq!(step.pause().is_none(), expected == 1);
            for change in changes {
                assert!(
                    matches!(change, Change::EndPause(ended) if Some(&ended) == pause.as_ref())
                );
            }
        }
    }

    #[test]
    fn instants_before_a_step_are_given_out_once() {
        let mut step = step();
        let given = [step.date_back(), step.date_back()];
        assert!(given[1] < given[0] && given[0] < at(100), "{given:?}");
        let micros = |at: Timestamp| at.timestamp_micros();
        assert_eq!(micros(at(100)) - micros(given[1]), 2);
        // Another step of the same instant goes on where this one ended; one a second later begins again.
        let mut same = Step { dated_back: step.dated_back, ..self::step() };
        assert!(same.date_back() < given[1]);
        let mut later = Step::new(at(101), "here".into(), None);
        later.dated_back = step.dated_back;
        assert_eq!(micros(at(101)) - micros(later.date_back()), 1);
    }

    #[test]
    fn changes_of_one_kind_follow_each_other_in_the_order_in_which_they_were_made() {
        let mut step = step();
        let job = shared(&due_job("a", 110));
        step.set_pause(Some(paused(100, None)));
        step.update_run(Arc::new(run("1", &job, 90)));
        step.insert_run(Arc::new(run("2", &job, 100)));
        step.update_run(Arc::new(run("0", &job, 90)));
        step.insert_run(Arc::new(run("1b", &job, 100)));
        step.add_loaded(&stored("b"));
        step.advance(due_job("b", 110));
        step.put(due_job("c", 110));
        let expected = [
            "insert c 1",
            "advance b 8",
            "insert run 2 pending",
            "insert run 1b pending",
            "update run 1 of here",
            "update run 0 of here",
            "paused true",
        ];
        assert_eq!(written(&mut step), expected);
    }
}
