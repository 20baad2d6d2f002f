//! What the store must hold by now, as learnt from every write that it accepted, and the promises
//! about writes: each write is judged by what was there before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;
use punctual::clock::Timestamp;
use punctual::executor::Assignment;
use punctual::job::{Job, JobId, JobState, OnCrash};
use punctual::run::{Cause, Outcome, Run, RunId, RunState, SkipReason};
use punctual::store::Change;

use crate::properties::Property;
use support::jobs::MAX_CRASHES;

/// How old what a node knows of the others may be when it acts on it.
const BEAT: TimeDelta = TimeDelta::seconds(1);
/// Rows of one job in one step: a plan's runs, and a few spans of what was skipped.
const ROWS_PER_JOB: usize = 1000 + 6;

/// What a node can know.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// Its clock in this step.
    now: Timestamp,
    /// How many writes there had been when it last met the others.
    pub(crate) knows: u64,
    /// How many when the step began.
    began: u64,
    met_at: Option<Timestamp>,
    /// The latest that its clock has shown.
    latest: Option<Timestamp>,
    /// Whether its clock was ever set back: then what waited for its time may have stopped doing so.
    went_back: bool,
}

/// A job as it was from a write on; none where it was removed.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) since: u64,
    pub(crate) job: Option<Arc<Job>>,
}

/// What was written so far.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) is_shared: bool,
    pub(crate) workers: usize,
    /// Counts the writes.
    pub(crate) writes: u64,
    pub(crate) jobs: BTreeMap<JobId, Arc<Job>>,
    pub(crate) runs: BTreeMap<RunId, Arc<Run>>,
    pub(crate) versions: BTreeMap<JobId, Vec<Version>>,
    in_flight: BTreeSet<RunId>,
    /// The occurrences that have a row, from the first to the last of each.
    spans: BTreeMap<(JobId, Timestamp), BTreeMap<Timestamp, Timestamp>>,
    /// Who marked an attempt as running.
    marked: BTreeMap<(RunId, u32), Arc<str>>,
    started: BTreeSet<(RunId, u32)>,
    /// How attempts ended that were not the last of their run.
    attempts: BTreeMap<(RunId, u32), (Outcome, Arc<str>)>,
    /// The ends that were reported.
    pub(crate) told: BTreeSet<(RunId, &'static str)>,
    /// Whether the last run of a job has failed; none if it cannot be known. A job that is not here does not fail.
    pub(crate) failing: BTreeMap<JobId, Option<bool>>,
    /// The write that has added a run.
    pub(crate) added: BTreeMap<RunId, u64>,
    /// The pauses of the scheduler, and since which write each.
    pauses: Vec<(u64, Option<Timestamp>)>,
    views: BTreeMap<Arc<str>, View>,
    /// Nodes that came up without pools.
    pub(crate) without_pools: BTreeSet<Arc<str>>,
    given_up: BTreeSet<String>,
}

impl Ledger {
    pub(crate) fn new(is_shared: bool, workers: usize) -> Self {
        Self { is_shared, workers, ..Self::default() }
    }

    /// A node begins a step.
    pub(crate) fn begins(&mut self, node: &Arc<str>, now: Timestamp) {
        let view = self.views.entry(Arc::clone(node)).or_default();
        (view.now, view.began) = (now, self.writes);
        view.went_back |= view.latest.is_some_and(|latest| now < latest);
        view.latest = view.latest.max(Some(now));
        if !self.is_shared {
            view.knows = self.writes;
        }
    }

    /// A node has seen how things stood after this many writes.
    pub(crate) fn met(&mut self, node: &Arc<str>, knows: u64, now: Timestamp) {
        let view = self.views.entry(Arc::clone(node)).or_default();
        (view.knows, view.met_at) = (knows, Some(now));
    }

    pub(crate) fn buried(&mut self, node: &str) {
        self.given_up.insert(node.to_owned());
    }

    /// A node holds these jobs from now on.
    pub(crate) fn claimed(&mut self, node: &Arc<str>, jobs: &[Job]) {
        for job in jobs.iter().filter(|_| self.is_shared) {
            if let Some(known) = self.jobs.get_mut(&job.id) {
                Arc::make_mut(known).owner = Some(Arc::clone(node));
            }
        }
    }

    /// A node gives these jobs to any node that wants them.
    pub(crate) fn released(&mut self, node: &str, executor: &str, until: Timestamp) {
        for job in self.jobs.values_mut().filter(|job| job.executor == executor) {
            let is_due = job.wakes_at().is_some_and(|at| at <= until);
            if is_due && job.owner.as_deref() == Some(node) {
                Arc::make_mut(job).owner = None;
            }
        }
    }

    /// Runs that have not ended.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.in_flight.iter().filter_map(|id| self.runs.get(id))
    }

    pub(crate) fn view(&self, node: &Arc<str>) -> View {
        self.views.get(node).cloned().unwrap_or_default()
    }

    /// The versions of a job that were current at a write or after it.
    pub(crate) fn versions_since(&self, id: &JobId, write: u64) -> Vec<&Arc<Job>> {
        let versions = self.versions.get(id).map(Vec::as_slice).unwrap_or_default();
        let known = versions.partition_point(|version| version.since <= write).saturating_sub(1);
        versions.iter().skip(known).filter_map(|version| version.job.as_ref()).collect()
    }

    /// Whether the scheduler was paused since then, or not, at that write or at a later one.
    pub(crate) fn was_paused(&self, since: Option<Timestamp>, write: u64) -> bool {
        let before = self.pauses.partition_point(|(then, _)| *then <= write);
        let current = before.checked_sub(1).and_then(|last| self.pauses[last].1);
        current == since || self.pauses[before..].iter().any(|(_, later)| *later == since)
    }

    /// A write was taken.
    pub(crate) fn committed(&mut self, node: &Arc<str>, changes: &[Change]) {
        self.writes += 1;
        let mut rows: BTreeMap<JobId, Vec<Arc<Run>>> = BTreeMap::new();
        for change in changes {
            if let Change::InsertRun(run) = change {
                rows.entry(run.job_id.clone()).or_default().push(Arc::clone(run));
            }
            if let Change::ExtendSkipped { run, former_last } = change {
                let added = self.extension(run, *former_last);
                rows.entry(run.job_id.clone()).or_default().push(Arc::new(added));
            }
        }
        for (id, of_job) in &mut rows {
            of_job.retain(|run| run.cause == Cause::Schedule);
            of_job.sort_by_key(|run| run.scheduled_at);
            let count = of_job.len();
            Property::Bounded.holds(count <= ROWS_PER_JOB, || format!("{id}: {count} rows"));
        }
        let resumes =
            |change: &Change| matches!(change, Change::SetPause(None) | Change::EndPause(_));
        let resumes = changes.iter().any(resumes);
        let fired = rows.values().flatten().filter(|run| !is_skipped(run));
        for run in fired {
            self.may_fire(node, run, resumes);
        }
        // Attempts come after their runs in a commit, and are looked at with them.
        let is_attempt = |change: &&Change| matches!(change, Change::InsertAttempt(_));
        for change in changes.iter().filter(is_attempt) {
            self.take(node, change, &rows);
        }
        for change in changes.iter().filter(|change| !is_attempt(change)) {
            self.take(node, change, &rows);
        }
        self.are_told(node, changes);
        self.end_outages(changes);
        for change in changes {
            if let Change::InsertRun(run) | Change::UpdateRun { run, .. } = change
                && matches!(run.state, RunState::Running { .. })
            {
                self.may_run(node, run);
            }
        }
    }

    fn take(&mut self, node: &Arc<str>, change: &Change, rows: &BTreeMap<JobId, Vec<Arc<Run>>>) {
        let rows = |id: &JobId| rows.get(id).map(Vec::as_slice).unwrap_or_default();
        let now = self.view(node).now;
        match change {
            Change::InsertJob(job) | Change::UpdateJob(job) => {
                self.account(&job.id, Some(job), rows(&job.id), now);
            }
            Change::AdvanceJob(job) => {
                let same = self.jobs.get(&job.id).is_some_and(|known| {
                    known.definition() == job.definition() && known.anchor == job.anchor
                });
                Property::Definition.holds(same, || job.id.to_string());
                self.account(&job.id, Some(job), rows(&job.id), now);
            }
            Change::DeleteJob { id, .. } => self.account(id, None, rows(id), now),
            Change::InsertRun(run) => self.insert(node, run),
            Change::UpdateRun { run, held_by } => self.update(node, run, held_by),
            Change::ExtendSkipped { run, former_last } => {
                let due = last_of(run);
                let now = self.view(node).now;
                Property::NotEarly.holds(due <= now, || format!("at {now}: {run:?}"));
                let added = self.extension(run, *former_last).scheduled_at.unwrap();
                self.take_span(run, added);
                self.put(node, run);
            }
            Change::InsertAttempt(attempt) => {
                let key = (attempt.run_id.clone(), attempt.number);
                let ended = (attempt.outcome.clone(), Arc::clone(&attempt.node));
                let is_new = self.attempts.insert(key, ended).is_none();
                Property::OneRow.holds(is_new, || format!("{attempt:?}"));
            }
            Change::PutOutput { .. }
            | Change::SavePartialOutput { .. }
            | Change::CancelJobRuns { .. }
            | Change::CancelRun { .. }
            | Change::RecordTime(_)
            | Change::Prune { .. } => {}
            Change::SetPause(pause) => {
                self.pauses.push((self.writes, pause.as_ref().map(|pause| pause.since)));
            }
            Change::EndPause(pause) => {
                Property::Paused.holds(pause.is_over(now), || format!("at {now}: {pause:?}"));
                self.pauses.push((self.writes, None));
            }
        }
    }

    /// A run of the schedule was made: the job was active, the scheduler not paused as far as the node could know.
    fn may_fire(&self, node: &Arc<str>, run: &Run, resumes: bool) {
        let view = self.view(node);
        let is_active = self.jobs.get(&run.job_id).is_some_and(|job| job.next().is_some());
        Property::Paused.holds(is_active, || format!("{run:?}"));
        let paused = self.pauses.last().filter(|(_, since)| since.is_some() && !resumes);
        let knew = paused.is_some_and(|(write, _)| *write <= view.knows);
        Property::Paused.holds(!knew, || format!("the scheduler: {run:?}"));
        let is_fresh =
            view.met_at.is_some_and(|met_at| met_at <= view.now && view.now - met_at < BEAT);
        let is_fresh = !self.is_shared || is_fresh;
        Property::Paused.holds(is_fresh, || format!("knows nothing newer than {view:?}: {run:?}"));
    }

    fn insert(&mut self, node: &Arc<str>, run: &Arc<Run>) {
        let now = self.view(node).now;
        if let Some(first) = run.scheduled_at {
            let last = last_of(run);
            let due = if is_skipped(run) { last } else { run.due_at };
            // What a clock that was ahead has planned is given up before it is due.
            let is_given_up =
                matches!(run.state, RunState::Skipped { reason: SkipReason::ClockSet, .. });
            Property::NotEarly.holds(due <= now || is_given_up, || format!("at {now}: {run:?}"));
            self.take_span(run, first);
        }
        Property::LegalSteps.holds(run.attempt == 1 && *run.node == **node, || format!("{run:?}"));
        if let Cause::Event { event, subject } = &run.cause {
            let is_new = self.told.insert((subject.clone(), event.word()));
            Property::ToldOnce.holds(is_new, || format!("{run:?}"));
        }
        self.added.insert(run.id.clone(), self.writes);
        self.put(node, run);
    }

    /// The occurrences from `first` on have this row, and had none before.
    fn take_span(&mut self, run: &Run, first: Timestamp) {
        let last = last_of(run);
        let spans = self.spans.entry((run.job_id.clone(), run.anchor)).or_default();
        let before = spans.range(..=last).next_back();
        let is_free = before.is_none_or(|(_, before)| *before < first);
        Property::OneRow.holds(is_free, || format!("{run:?} beside {before:?}"));
        spans.insert(first, last);
    }

    /// What a row of skipped occurrences takes in, as a row of its own.
    fn extension(&self, run: &Run, former_last: Timestamp) -> Run {
        let known = &self.runs[&run.id];
        let counts = |run: &Run| match run.state {
            RunState::Skipped { reason: SkipReason::Overlap, count, .. } => Some(count),
            RunState::Skipped { .. }
            | RunState::Pending
            | RunState::Running { .. }
            | RunState::Ended { .. } => None,
        };
        let (before, after) = (counts(known), counts(run));
        let grows = before.is_some() && before < after && last_of(known) == former_last;
        Property::LegalSteps.holds(grows, || format!("{known:?} becomes {run:?}"));
        let job = &self.jobs[&run.job_id];
        Run { scheduled_at: job.trigger.next_after(former_last), ..run.clone() }
    }

    fn update(&mut self, node: &Arc<str>, run: &Arc<Run>, held_by: &Arc<str>) {
        let known = Arc::clone(self.runs.get(&run.id).unwrap());
        let is_taken = held_by != node;
        if is_taken {
            let is_dead = !self.is_shared || self.given_up.contains(&**held_by);
            Property::TakesFromTheDead.holds(is_dead, || format!("{node} took {known:?}"));
        }
        let stays = run.node == known.node && run.attempt == known.attempt;
        let is_legal = match (&known.state, &run.state) {
            (RunState::Pending, RunState::Running { .. }) => stays && !is_taken,
            (RunState::Pending, RunState::Pending) => is_taken && run.attempt == known.attempt,
            (RunState::Pending, RunState::Skipped { .. }) => stays && run.attempt == 1,
            (RunState::Pending, RunState::Ended { outcome, .. }) => {
                stays && !is_taken && matches!(outcome, Outcome::Cancelled { .. })
            }
            (RunState::Running { .. }, RunState::Ended { outcome, .. }) => {
                stays && (!is_taken || matches!(outcome, Outcome::Lost { .. }))
            }
            (RunState::Running { .. }, RunState::Pending) => run.attempt == known.attempt + 1,
            _ => false,
        };
        Property::LegalSteps.holds(is_legal, || format!("{known:?} becomes {run:?}"));
        self.counts_deaths(&known, run, is_taken);
        let ended = self.attempts.get(&known.execution()).map(|(outcome, _)| outcome);
        let ended = ended.filter(|_| run.attempt > known.attempt);
        let may_pass = match ended {
            Some(Outcome::Failed { permanent, .. }) => !permanent,
            Some(Outcome::TimedOut { .. }) => true,
            _ => false,
        };
        if may_pass {
            let versions = self.versions_since(&run.job_id, self.definitions_since(node));
            let allows = |job: &&Arc<Job>| {
                job.policy.retry.is_some_and(|retry| known.attempt < retry.max_attempts)
            };
            let is_later = run.due_at > self.view(node).now && !is_event(run);
            let holds = is_later && versions.into_iter().any(|job| allows(&job));
            Property::Retries.holds(holds, || format!("{run:?}"));
        } else if run.attempt > known.attempt {
            let is_lost = matches!(ended, Some(Outcome::Lost { .. }));
            Property::Retries.holds(is_lost, || format!("{ended:?}, and yet {run:?}"));
            let versions = self.versions_since(&run.job_id, self.view(node).began);
            let rerun = versions.iter().any(|job| job.policy.on_crash == OnCrash::Rerun);
            Property::AtMostOnce.holds(rerun, || format!("{run:?}"));
        }
        self.put(node, run);
    }

    /// A death of the daemon during a run counts once, and nothing else does; after too many the run is lost.
    fn counts_deaths(&self, known: &Run, run: &Run, is_taken: bool) {
        let was_running = matches!(known.state, RunState::Running { .. });
        // Nodes of a shared store have no machine in their names here: none is known to have died.
        let died = was_running && is_taken && !self.is_shared;
        let counted = run.crashes == known.crashes + u32::from(died);
        Property::Crashes.holds(counted, || format!("{known:?} becomes {run:?}"));
        let goes_on = run.state.is_final() || run.crashes < MAX_CRASHES;
        Property::Crashes.holds(goes_on, || format!("{run:?}"));
    }

    /// By which definitions a node may judge a run that it has started: on a shared store also by one that was there
    /// when it did.
    fn definitions_since(&self, node: &Arc<str>) -> u64 {
        if self.is_shared { 0 } else { self.view(node).knows }
    }

    fn put(&mut self, node: &Arc<str>, run: &Arc<Run>) {
        if run.state.is_final() {
            self.in_flight.remove(&run.id);
        } else {
            self.in_flight.insert(run.id.clone());
        }
        if matches!(run.state, RunState::Running { .. }) {
            self.marked.insert((run.id.clone(), run.attempt), Arc::clone(node));
        }
        self.runs.insert(run.id.clone(), Arc::clone(run));
    }

    /// A run was marked as running: its job is there, and allows this many.
    fn may_run(&self, node: &Arc<str>, run: &Run) {
        let view = self.view(node);
        // No delay is longer than this: who would have to wait for longer was put off before the clock was set back.
        let left = run.due_at - view.now;
        let is_long = |job: &&Arc<Job>| job.policy.retry.is_none_or(|retry| left > retry.longest());
        // Another process had another clock, and so another idea of when that is.
        let before = self.attempts.get(&(run.id.clone(), run.attempt - 1));
        let is_same = before.is_some_and(|(_, by)| by == node);
        let is_early =
            is_same && !view.went_back && view.latest.is_none_or(|latest| run.due_at > latest);
        let is_early = is_early && !self.versions_since(&run.job_id, 0).iter().any(is_long);
        Property::Retries.holds(!is_early, || format!("at {}: {run:?}", view.now));
        if is_event(run) {
            return;
        }
        let versions = self.versions_since(&run.job_id, view.knows);
        let in_time = |job: &&Arc<Job>| {
            // What had begun before is not missed.
            let judged = run.scheduled_at.is_some() && run.attempt == 1;
            let grace = job.policy.misfire_grace_time.filter(|_| judged);
            grace.is_none_or(|grace| view.now - run.due_at <= grace)
        };
        let is_in_time = versions.is_empty() || versions.iter().any(in_time);
        Property::NotTooLate.holds(is_in_time, || format!("at {}: {run:?}", view.now));
        Property::Removed.holds(!versions.is_empty(), || format!("{run:?}"));
        let most = versions.iter().map(|job| job.policy.max_instances).max().unwrap_or(0);
        let of_job = self.in_flight().filter(|other| other.job_id == run.job_id);
        let running: Vec<_> = of_job
            .filter(|other| matches!(other.state, RunState::Running { .. }) && !is_event(other))
            .collect();
        let is_within = running.len() <= usize::try_from(most).unwrap();
        Property::MaxInstances.holds(is_within, || format!("{most} at most: {running:#?}"));
    }

    /// A run was handed to an executor that is busy with others.
    pub(crate) fn started(&mut self, node: &Arc<str>, pool: &str, what: &Assignment, busy: usize) {
        let start = (what.run_id.clone(), what.attempt);
        let row = self.runs.get(&what.run_id);
        let marked = self.marked.get(&start).is_some_and(|by| by == node);
        Property::RowBeforeStart.holds(marked, || format!("{start:?} {row:?}"));
        let is_here = row.is_some_and(|row| row.node == *node && row.attempt == what.attempt);
        let is_lost = self.given_up.contains(&**node);
        Property::RowBeforeStart.holds(is_here || is_lost, || format!("{start:?} {row:?}"));
        Property::Workers.holds(busy < self.workers, || format!("{node}, {pool}: {busy} are busy"));
        let is_suspect =
            |run: &Run| *run.node == **node && run.crashes > 0 && run.crashes + 1 >= MAX_CRASHES;
        let runs = |run: &&Arc<Run>| matches!(run.state, RunState::Running { .. });
        let suspects = self.in_flight().filter(runs).filter(|run| is_suspect(run)).count();
        Property::Crashes.holds(suspects <= 1, || format!("{suspects} at the same time"));
        Property::OneStart.holds(self.started.insert(start.clone()), || format!("{start:?}"));
    }
}

/// Whether a run is a hook run.
pub(crate) fn is_event(run: &Run) -> bool {
    matches!(run.cause, Cause::Event { .. })
}

pub(crate) fn is_skipped(run: &Run) -> bool {
    matches!(run.state, RunState::Skipped { .. })
}

/// The last occurrence that a row stands for.
pub(crate) fn last_of(run: &Run) -> Timestamp {
    match &run.state {
        RunState::Skipped { last_scheduled_at, .. } => *last_scheduled_at,
        RunState::Pending | RunState::Running { .. } | RunState::Ended { .. } => {
            run.scheduled_at.unwrap_or(run.due_at)
        }
    }
}

/// A change in a few words.
pub(crate) fn words(change: &Change) -> String {
    let job = |verb: &str, job: &Job| {
        let held = match &job.state {
            JobState::Active { next } | JobState::Paused { next } => Some(next.scheduled_at),
            JobState::Broken { since, .. } => *since,
            JobState::Finished => None,
        };
        let held = held.map(|at| at.format("%H:%M:%S%.6f").to_string()).unwrap_or_default();
        let (id, revision) = (&job.id, job.revision);
        let owner = job.owner.as_deref().unwrap_or("nobody");
        format!("{verb} {id} r{revision} {} {held} of {owner}", job.state.word())
    };
    let run = |verb: &str, run: &Run| {
        let at = run.scheduled_at.map(|at| at.format("%H:%M:%S%.6f").to_string());
        let (at, attempt) = (at.unwrap_or_default(), run.attempt);
        let (id, state) = (run.id.0.get(19..).unwrap_or_default(), run.state.word());
        format!("{verb} run {id} of {} {at} {state} {attempt} on {}", run.job_id, run.node)
    };
    match change {
        Change::InsertJob(new) => job("new", new),
        Change::UpdateJob(new) => job("update", new),
        Change::AdvanceJob(new) => job("advance", new),
        Change::DeleteJob { id, revision, .. } => format!("delete {id} r{revision}"),
        Change::InsertRun(new) => run("new", new),
        Change::ExtendSkipped { run: new, .. } => run("extend", new),
        Change::UpdateRun { run: new, held_by } => format!("{} from {held_by}", run("update", new)),
        Change::PutOutput { run_id, .. } | Change::SavePartialOutput { run_id, .. } => {
            format!("output {run_id}")
        }
        Change::InsertAttempt(attempt) => {
            format!("attempt {} of {}", attempt.number, attempt.run_id)
        }
        Change::CancelRun { run_id, .. } => format!("end run {run_id}"),
        Change::Prune { run_id, part } => format!("prune {part:?} of {run_id}"),
        Change::CancelJobRuns { job_id, .. } => format!("end {job_id}"),
        Change::RecordTime(at) => format!("it is {at}"),
        Change::SetPause(pause) => format!("pause {pause:?}"),
        Change::EndPause(pause) => format!("end of {pause:?}"),
    }
}
