//! Why a job ran or did not run: what the trigger, the ledger and the job's state say about one occurrence, in words. Pure:
//! the caller brings all facts.

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::clock::{Timestamp, duration_words as duration, rfc3339};
use crate::job::{Job, JobState, Pause};
use crate::run::{Outcome, Run, RunState, SkipReason};

/// A start that is later than this was waiting for something else than the machine.
const PROMPT: TimeDelta = TimeDelta::milliseconds(100);
/// How long before the instant in question a clock change is worth mentioning.
const RECENT: TimeDelta = TimeDelta::days(1);
/// The most clock changes that are looked for in that time.
const CHANGES_MAX: usize = 10;

/// The facts about a job at an instant.
#[derive(Debug)]
pub struct ExplainInputs<'a> {
    pub job: &'a Job,
    /// The instant in question.
    pub asked: Timestamp,
    /// The occurrence at that instant, or the last one before it.
    pub occurrence: Option<Timestamp>,
    /// The occurrence's row in the ledger.
    pub row: Option<Run>,
    /// The job's newest run, if it was started by a request after that occurrence.
    pub manual_run: Option<Run>,
    /// The pause of the scheduler, if it is paused.
    pub scheduler_pause: Option<&'a Pause>,
    pub now: Timestamp,
}

/// What became of an occurrence, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Sentences.
    pub lines: Vec<String>,
    /// The occurrence that they are about.
    pub occurrence: Option<Timestamp>,
    /// Its row in the ledger.
    pub row: Option<Run>,
}

impl Explanation {
    pub fn to_value(&self, job: &Job) -> Value {
        json!({
            "job_id": job.id,
            "timezone": job.trigger.zone().name(),
            "scheduled_at": self.occurrence.map(rfc3339),
            "next_run_time": job.next().map(|next| rfc3339(next.due_at)),
            "run": self.row.as_ref().map(Run::to_value),
            "explanation": self.lines,
        })
    }
}

pub fn explain(facts: ExplainInputs<'_>) -> Explanation {
    let mut lines: Vec<String> = facts.not_due().into_iter().collect();
    lines.push(facts.outcome());
    lines.extend(facts.manual_run.as_ref().map(|run| facts.of_manual_run(run)));
    lines.push(facts.what_comes_next());
    Explanation { lines, occurrence: facts.occurrence, row: facts.row }
}

impl ExplainInputs<'_> {
    /// An instant in the job's time zone.
    fn show(&self, at: Timestamp) -> String {
        let local = self.job.trigger.zone().to_fixed(at);
        let fraction = if at.timestamp_subsec_micros() == 0 { "" } else { "%.6f" };
        local.format(&format!("%Y-%m-%d %H:%M:%S{fraction} %:z")).to_string()
    }

    /// Says that nothing was due at the instant in question, if so, and mentions a clock change that may be the reason.
    fn not_due(&self) -> Option<String> {
        if self.occurrence == Some(self.asked) {
            return None;
        }
        let trigger = &self.job.trigger;
        let next = trigger.next_after(self.asked).map(|next| self.show(next));
        let next = next.map(|next| format!("; it is next due at {next}")).unwrap_or_default();
        let since = self.asked.checked_sub_signed(RECENT).unwrap_or(self.asked);
        let missing = trigger.dst_gaps(since, self.asked, CHANGES_MAX).pop();
        let clock = missing.map(|missing| {
            let (first, until) = (missing.first, missing.until.format("%H:%M:%S"));
            format!(" (the clock has no {first}: it goes on at {until})")
        });
        let asked = self.show(self.asked);
        Some(format!("It was not due at {asked}{next}{}.", clock.unwrap_or_default()))
    }

    fn outcome(&self) -> String {
        let Some(at) = self.occurrence else {
            return "It had no occurrence up to then.".to_owned();
        };
        let due = self.show(at);
        // A row of a future occurrence under an earlier schedule dates from a time when the clock was ahead.
        let is_current = |row: &&Run| at <= self.now || row.anchor == self.job.anchor;
        match self.row.as_ref().filter(is_current) {
            Some(row) => self.of_row(row, &due),
            None if at > self.now => format!("It is still to come at {due}."),
            None if at < self.job.anchor && !self.is_next(at) => format!(
                "It did not run at {due}: the job, or its trigger as it is now, was defined after that, at {}.",
                self.show(self.job.anchor)
            ),
            None if self.is_past(at) => {
                format!("What became of it at {due} is no longer kept in the ledger.")
            }
            None => format!("At {due} it has not run: {}.", self.held_back()),
        }
    }

    /// Whether the schedule continues with this occurrence. A redefinition may leave it unchanged.
    fn is_next(&self, at: Timestamp) -> bool {
        self.job.next().is_some_and(|next| next.scheduled_at == at)
    }

    /// Whether the schedule has passed an occurrence, so that the ledger had a row for it.
    fn is_past(&self, at: Timestamp) -> bool {
        match &self.job.state {
            JobState::Active { next } | JobState::Paused { next } => at < next.scheduled_at,
            JobState::Broken { since, .. } => since.is_some_and(|since| at < since),
            // How far the schedule had come before its end is not known any more.
            JobState::Finished => false,
        }
    }

    /// Why an occurrence that is due is not in the ledger yet.
    fn held_back(&self) -> String {
        match &self.job.state {
            JobState::Paused { .. } => "the job is paused".to_owned(),
            JobState::Broken { reason, .. } => format!("the job is broken: {reason}"),
            JobState::Finished => "the job was finished, or its row is no longer kept".to_owned(),
            JobState::Active { .. } => match self.scheduler_pause {
                Some(pause) => format!("the scheduler is paused{}", self.of_pause(pause)),
                None => "it is due, and waits for its executor or for the store".to_owned(),
            },
        }
    }

    /// Since when something is paused, who paused it, until when and why.
    fn of_pause(&self, pause: &Pause) -> String {
        let since = format!(" since {}", self.show(pause.since));
        let by = pause.by.as_ref().map(|by| format!(" by {by}"));
        let until = pause.until.map(|until| format!(" until {}", self.show(until)));
        let reason = pause.reason.as_ref().map(|reason| format!(" ({reason})"));
        std::iter::once(since).chain([by, until, reason].into_iter().flatten()).collect()
    }

    fn of_row(&self, row: &Run, due: &str) -> String {
        match &row.state {
            RunState::Skipped { reason, count, .. } => {
                let together = if *count > 1 {
                    format!(" (one of {count} that were skipped together)")
                } else {
                    String::new()
                };
                format!("It did not run at {due}: {}{together}.", self.why_skipped(*reason))
            }
            RunState::Pending => {
                format!("It was due at {due} and waits: {}{}.", self.waits_for(row), attempt(row))
            }
            RunState::Running { started_at } => {
                format!(
                    "It was due at {due} and runs{}{}.",
                    lateness(row, *started_at),
                    attempt(row)
                )
            }
            // A run that was cancelled while it waited has its start and its end at the same instant.
            RunState::Ended {
                started_at,
                finished_at,
                outcome: Outcome::Cancelled { reason },
                ..
            } if started_at == finished_at => {
                format!("It was due at {due} and was cancelled: {reason}{}.", attempt(row))
            }
            RunState::Ended { started_at, finished_at, outcome, .. } => {
                let ended = ended(outcome);
                let took = duration(finished_at.signed_duration_since(*started_at));
                let late = lateness(row, *started_at);
                format!(
                    "It was due at {due}, ran{late}{} and {ended} (after {took}).",
                    attempt(row)
                )
            }
        }
    }

    fn of_manual_run(&self, run: &Run) -> String {
        let asked = self.show(run.created_at);
        match &run.state {
            RunState::Pending => {
                format!("It was run by hand at {asked} and waits: {}.", self.waits_for(run))
            }
            RunState::Running { .. } => format!("It was run by hand at {asked} and runs."),
            RunState::Ended { started_at, finished_at, outcome, .. } => {
                let took = duration(finished_at.signed_duration_since(*started_at));
                format!("It was run by hand at {asked} and {} (after {took}).", ended(outcome))
            }
            RunState::Skipped { reason, .. } => {
                format!(
                    "It was run by hand at {asked} and did not run: {}.",
                    self.why_skipped(*reason)
                )
            }
        }
    }

    fn waits_for(&self, row: &Run) -> String {
        if row.attempt > 1 && row.due_at > self.now {
            return format!("it is to be tried again at {}", self.show(row.due_at));
        }
        let executor = &row.executor;
        format!("for a free worker of \"{executor}\", or for an earlier run of the job to end")
    }

    fn why_skipped(&self, reason: SkipReason) -> String {
        let policy = &self.job.policy;
        match reason {
            SkipReason::Missed => {
                let grace = policy.misfire_grace_time.map(duration).unwrap_or_default();
                format!("it could not start within its misfire_grace_time (now {grace})")
            }
            SkipReason::Coalesced => {
                format!(
                    "another occurrence, due at the same time, ran in its place (coalesce = \"{}\")",
                    policy.coalesce.word()
                )
            }
            SkipReason::Overlap => format!(
                "earlier runs of the job had not ended (max_instances = {}, overlap = \"{}\")",
                policy.max_instances,
                policy.overlap.word()
            ),
            SkipReason::Paused => "the job was paused".to_owned(),
            SkipReason::Broken => "the job was broken".to_owned(),
            SkipReason::ExecutorFull => "the queue of its executor was full".to_owned(),
            SkipReason::ClockSet => {
                "it was planned while the clock was ahead; when the clock was set right, the schedule continued from that time"
                    .to_owned()
            }
            SkipReason::Redefined => {
                "the job got another trigger, or another next_run_time, before it ran".to_owned()
            }
            SkipReason::Removed => "the job was removed while it waited".to_owned(),
        }
    }

    fn what_comes_next(&self) -> String {
        match (&self.job.state, self.scheduler_pause) {
            (JobState::Active { next }, None) => {
                format!("It runs next at {}.", self.show(next.due_at))
            }
            (JobState::Active { .. }, Some(pause)) => format!(
                "It does not run before the scheduler is resumed, which is paused{}.",
                self.of_pause(pause)
            ),
            (JobState::Paused { .. }, _) => match &self.job.pause {
                Some(pause) => format!(
                    "It does not run before it is resumed: it is paused{}.",
                    self.of_pause(pause)
                ),
                None => "It does not run before it is resumed.".to_owned(),
            },
            (JobState::Finished, _) => "It does not run again: it is finished.".to_owned(),
            (JobState::Broken { reason, .. }, _) => {
                format!("It does not run before it is repaired: {reason}.")
            }
        }
    }
}

fn ended(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Succeeded { .. } => "succeeded".to_owned(),
        Outcome::Failed { error, .. } => format!("failed: {error}"),
        Outcome::Cancelled { reason } => format!("was cancelled: {reason}"),
        Outcome::TimedOut { error } => format!("timed out: {error}"),
        Outcome::Lost { error } => format!("was lost: {error}"),
    }
}

/// How late a run started, and why.
fn lateness(row: &Run, started_at: Timestamp) -> String {
    let late = started_at.signed_duration_since(row.due_at);
    if row.attempt > 1 {
        // A retry is due after its delay, which has nothing to do with the schedule.
        return if late <= PROMPT {
            String::new()
        } else {
            format!(", {} after its delay,", duration(late))
        };
    }
    let jitter = row.scheduled_at.map(|at| row.due_at.signed_duration_since(at));
    let jitter = jitter
        .filter(|jitter| !jitter.is_zero())
        .map_or_else(String::new, |jitter| format!(" after {} of jitter", duration(jitter)));
    if late <= PROMPT {
        return format!(" on time{jitter}");
    }
    // The row was made when the scheduler planned the occurrence; from then on the run waited for its turn.
    let noticed = row.created_at.signed_duration_since(row.due_at);
    let why = if noticed > PROMPT {
        "the scheduler was away, paused or busy"
    } else {
        "it waited for a worker, or for an earlier run to end"
    };
    format!(" {} late{jitter} ({why})", duration(late))
}

/// Mentions which attempt it is, if it is not the first one.
fn attempt(row: &Run) -> String {
    if row.attempt > 1 {
        format!(" (attempt {}, after one that failed or was interrupted)", row.attempt)
    } else {
        String::new()
    }
}
