//! Setting the schedule right after the clock was wrong.
//!
//! A clock that is ahead carries every recurring job along: its occurrences are run or skipped up to that time, and the
//! next one lies beyond it. When the clock is right again, they would wait for years. So when the clock is found more
//! than [`BEHIND_MAX`] behind the latest instant that the store knows, recurring jobs continue from now. One-shots, and
//! what a `next_run_time` has named, keep their time.

use std::sync::Arc;

use chrono::TimeDelta;

use crate::clock::Timestamp;
use crate::executor::Executor;
use crate::job::{Job, JobId, JobState};
use crate::run::SkipReason;
use crate::scheduler::cluster::peers::Peers;
use crate::scheduler::plan::{self, Skipped};
use crate::scheduler::step::Step;
use crate::scheduler::step::apply::StepContext;
use crate::scheduler::{Phase, Scheduler};
use crate::store::{Change, ScheduledJob, Store, StoreError};
use crate::trigger::{Span, Trigger};
use crate::zone::Zone;

/// How far the clock may be behind what is recorded. More than this is a correction of the clock, as for cron(8); less
/// is waited for.
const BEHIND_MAX: TimeDelta = TimeDelta::hours(3);
/// How often the store is told what time it is, together with a step that writes anyway.
const RECORD_EVERY: TimeDelta = TimeDelta::minutes(10);
/// Jobs that one step looks at: a few milliseconds of its time.
const JOBS_PER_STEP: usize = 200;
/// The beginning of 2026, in seconds. A clock that shows an earlier time is itself wrong, as that of a machine without a
/// battery is until it is set: nothing continues from there.
const PLAUSIBLE_FROM: i64 = 1_767_225_600;
/// What sets the anchor of a job apart from its former one. It is too little to be noticed in the grid of an interval.
const ANCHOR_STEP: TimeDelta = TimeDelta::microseconds(1);

/// A correction of the clock, as the status shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockCorrection {
    /// The latest instant that was known before.
    pub recorded: Timestamp,
    /// When it was found, by the clock as it is now.
    pub found_at: Timestamp,
    /// Recurring jobs that continue from then.
    pub jobs: u64,
    /// Whether all jobs were looked at.
    pub is_done: bool,
}

/// What is known of the clock.
#[derive(Debug, Default)]
pub(crate) struct ClockWatch {
    /// The latest instant that the store knows.
    recorded: Option<Timestamp>,
    /// The latest instant that this process has seen.
    seen: Option<Timestamp>,
    /// The last correction that this process has found.
    correction: Option<ClockCorrection>,
    /// The last job that it has looked at.
    looked_at: Option<JobId>,
    /// Whether it was said that another node's clock is ahead.
    has_warned: bool,
    /// The last instant to which a definition was dated back.
    dated_back: Option<Timestamp>,
}

impl ClockWatch {
    /// Takes up the latest instant that the store knows. Says whether it is an earlier one than before: then another
    /// node has corrected the schedule.
    pub(crate) fn learn(&mut self, recorded: Option<Timestamp>) -> bool {
        let former = self.recorded;
        self.recorded = recorded.or(former);
        former > self.recorded
    }

    /// The last correction that this process has found.
    pub(crate) fn correction(&self) -> Option<ClockCorrection> {
        self.correction
    }

    /// Whether jobs remain to be looked at.
    pub(crate) fn is_under_way(&self) -> bool {
        self.correction.is_some_and(|correction| !correction.is_done)
    }

    /// Takes up the time of a step, and begins a correction where one is needed.
    fn observe(&mut self, now: Timestamp, me: &str, peers: &Peers) {
        let latest = self.recorded.max(self.seen);
        self.seen = self.seen.max(Some(now));
        let Some(recorded) = latest.filter(|latest| is_behind(now, *latest)) else { return };
        if self.is_under_way() || now.timestamp() < PLAUSIBLE_FROM {
            return;
        }
        // Which clock is right cannot be told while a node lives whose clock is ahead: it goes on firing by that.
        let mut others = peers.nodes().iter().filter(|node| node.name != me);
        if let Some(node) = others.find(|node| is_behind(now, node.seen_at)) {
            if !std::mem::replace(&mut self.has_warned, true) {
                tracing::warn!(node = %node.name, its_clock = %node.seen_at,
                    "the clock of another node is hours ahead of this one; recurring jobs stay as they are planned until it is set, or the node ends");
            }
            return;
        }
        (self.has_warned, self.looked_at) = (false, None);
        self.correction =
            Some(ClockCorrection { recorded, found_at: now, jobs: 0, is_done: false });
    }

    /// Adds to what a step writes what time it is, where the store does not know it well enough. Says whether it did.
    pub(crate) fn record(&self, now: Timestamp, changes: &mut Vec<Change>) -> bool {
        let is_known = |recorded: Timestamp| now.signed_duration_since(recorded) < RECORD_EVERY;
        if changes.is_empty() || self.recorded.is_some_and(is_known) {
            return false;
        }
        changes.push(Change::RecordTime(now));
        true
    }

    /// The last instant to which a definition was dated back.
    pub(crate) fn dated_back(&self) -> Option<Timestamp> {
        self.dated_back
    }

    /// A step is in the store, with what it looked at, if it did, and with its time, if it has one.
    pub(crate) fn committed(&mut self, step: &mut Step, has_time: bool) {
        let (now, looked) = (step.now, step.looked.take());
        self.dated_back = step.dated_back;
        let is_last = looked.as_ref().is_some_and(|looked| looked.is_last);
        if has_time || is_last {
            self.recorded = Some(now);
        }
        let (Some(looked), Some(correction)) = (looked, &mut self.correction) else { return };
        correction.jobs += looked.moved;
        self.looked_at = looked.last;
        if is_last {
            correction.is_done = true;
            self.seen = Some(now);
            let ClockCorrection { recorded, jobs, .. } = *correction;
            tracing::warn!(it_was = %recorded, jobs,
                "the clock was set back by hours: recurring jobs continue from now");
        }
    }
}

/// Whether a clock is so far behind an instant that it was corrected.
fn is_behind(now: Timestamp, latest: Timestamp) -> bool {
    latest.signed_duration_since(now) > BEHIND_MAX
}

/// A page of jobs that a step has looked at.
#[derive(Debug, Default)]
pub(crate) struct CorrectedPage {
    /// How many of them continue from now.
    moved: u64,
    last: Option<JobId>,
    is_last: bool,
}

impl<S: Store, X: Executor> Scheduler<S, X> {
    /// Takes up what the store has recorded: what time it was, and its newest run.
    pub(crate) async fn learn_recorded(&mut self) -> Result<(), StoreError> {
        let newest = self.follow_newest_run().await?;
        let recorded = self.store.recorded_time().await?;
        // An older version has told nothing else.
        self.clock.learn(recorded.or(newest));
        Ok(())
    }

    /// Has the ids of new runs follow that of the newest run of the store, and says when that was made.
    async fn follow_newest_run(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let Some(run) = self.store.newest_run().await? else { return Ok(None) };
        self.ids.follow(&run.id);
        Ok(Some(run.created_at))
    }

    /// Has this node's runs follow those of others, if another node has corrected the schedule.
    pub(crate) async fn learn_time(
        &mut self,
        recorded: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        if self.clock.learn(recorded) {
            self.follow_newest_run().await?;
        }
        Ok(())
    }

    /// Looks whether the clock was corrected. If so, gives the next jobs to look at.
    pub(crate) async fn watch_clock(
        &mut self,
        now: Timestamp,
    ) -> Result<Option<Vec<ScheduledJob>>, StoreError> {
        self.clock.observe(now, &self.identity.node, &self.peers);
        if !self.clock.is_under_way() || self.phase == Phase::Draining {
            return Ok(None);
        }
        self.store.scheduled_jobs(self.clock.looked_at.as_ref(), JOBS_PER_STEP).await.map(Some)
    }
}

impl StepContext<'_> {
    /// A new definition as it is by the clock of this step: it may have been admitted just before the clock was set.
    pub(crate) fn by_this_clock(&mut self, job: Job) -> Job {
        let now = self.step.now;
        if !is_behind(now, job.anchor) {
            return job;
        }
        continued(&job, None, now, || self.step.date_back()).unwrap_or(job)
    }

    /// Has the recurring jobs of a page continue from now.
    pub(crate) fn correct(&mut self, page: Vec<ScheduledJob>) {
        let now = self.step.now;
        let mut looked = CorrectedPage {
            // A page may lack jobs that cannot be read.
            is_last: page.is_empty(),
            last: page.last().map(|scheduled| scheduled.job.id.clone()),
            moved: 0,
        };
        for ScheduledJob { job, last } in page {
            let date_back = || self.step.date_back();
            let Some(continued) = continued(&job, last, now, date_back) else { continue };
            let (known, next) = (Arc::new(job), held(&continued));
            self.step.learn(&known);
            if let Some(dropped) = held(&known).filter(|held| Some(*held) != next) {
                let span = Span::one(dropped);
                let row = self.skipped_run(&known, Skipped { reason: SkipReason::ClockSet, span });
                self.step.insert_run(Arc::new(row));
            }
            looked.moved += u64::from(next.is_some());
            self.put(continued);
        }
        if looked.is_last {
            self.step.note(Change::RecordTime(now));
        }
        self.step.looked = Some(looked);
    }
}

/// The next occurrence of a job, whether it fires or is held back.
fn held(job: &Job) -> Option<Timestamp> {
    match &job.state {
        JobState::Active { next } | JobState::Paused { next } => Some(next.scheduled_at),
        JobState::Broken { since, .. } => *since,
        JobState::Finished => None,
    }
}

/// A job as it continues from now, if a clock that was ahead has carried it along. `last` is the last occurrence that has
/// a row. It begins a ledger of its own, since its occurrences of the time in between may have rows already.
/// `date_back` gives the instant at which a trigger counts as defined that was defined while the clock was ahead.
fn continued(
    job: &Job,
    last: Option<Timestamp>,
    now: Timestamp,
    date_back: impl FnOnce() -> Timestamp,
) -> Option<Job> {
    // What was not understood stays in the store as it is: writing the job would replace it.
    if job.unreadable.is_some() {
        return None;
    }
    if job.trigger.is_one_shot() {
        // It keeps its time; but when it ended tells for how long it is kept.
        let is_ahead = job.state == JobState::Finished && job.updated_at > now;
        return is_ahead.then(|| Job { updated_at: now, ..job.clone() });
    }
    let later = job.anchor.checked_add_signed(ANCHOR_STEP).filter(|later| *later <= now);
    let anchor = later.unwrap_or_else(date_back);
    let trigger = Trigger::compile_stored(job.trigger.spec(), &Zone::utc(), anchor).ok()?;
    let next = plan::due(&job.id, &trigger, trigger.next_after(now)?);
    let is_wrong = |held: Timestamp| {
        held.signed_duration_since(next.scheduled_at) > ANCHOR_STEP
            && was_planned_ahead(job, held, last, now)
    };
    let state = match &job.state {
        JobState::Active { next: held } if is_wrong(held.scheduled_at) => JobState::Active { next },
        JobState::Paused { next: held } if is_wrong(held.scheduled_at) => JobState::Paused { next },
        JobState::Broken { reason, since: Some(held), former } if is_wrong(*held) => {
            let (reason, former) = (reason.clone(), *former);
            JobState::Broken { reason, since: Some(next.scheduled_at), former }
        }
        // It has ended only because its end was passed while the clock was ahead.
        JobState::Finished if job.policy.max_runs.is_none_or(|most| job.run_count < most) => {
            JobState::Active { next }
        }
        JobState::Active { .. }
        | JobState::Paused { .. }
        | JobState::Broken { .. }
        | JobState::Finished => return None,
    };
    Some(Job { state, anchor, trigger: Arc::new(trigger), updated_at: now, ..job.clone() })
}

/// Whether an occurrence was found by looking for the next one from an instant that has not come yet: from the last one
/// that has a row, from when the trigger was defined, or from when the job was resumed. What a `next_run_time` has named
/// was not.
fn was_planned_ahead(job: &Job, held: Timestamp, last: Option<Timestamp>, now: Timestamp) -> bool {
    let after = |at: Timestamp| at > now && job.trigger.next_after(at) == Some(held);
    // An occurrence of an earlier definition that waited when this one was given goes on under it, and is before its first.
    let is_first = job.anchor > now
        && job.trigger.matches(held)
        && job.trigger.next_from(job.anchor).is_none_or(|first| held <= first);
    is_first || last.is_some_and(after) || after(job.updated_at)
}
