//! Everything that can be wrong with a daemon, in one list for `punctual status`, its exit code, `/readyz` and the status
//! line of the service manager.
//!
//! Most of it follows from the scheduler's status. What only another part of the daemon knows is reported here by that part.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::clock::{Timestamp, rfc3339};
use crate::job::Pause;
use crate::printable::shortened;
use crate::scheduler::handle::{Delay, Status};
use crate::words::words;

/// How late the scheduler's loop may be with a step or with waking up, before the daemon is degraded and not ready.
pub(super) const LATENESS_MAX: Duration = Duration::from_secs(5);
/// How long a run may wait for a worker before its pool counts as too small.
const WAITING_MAX: chrono::TimeDelta = chrono::TimeDelta::minutes(5);
/// Length limit of a message in characters.
const MESSAGE_CHARS: usize = 300;

words! {
    /// What can be wrong, the most serious first.
    #[derive(PartialOrd, Ord)]
    pub enum ConditionKind {
        Stopping = "stopping",
        /// The scheduler's loop makes no progress.
        Stuck = "stuck",
        /// The store cannot be used.
        Store = "store",
        /// The start is not over: jobs do not fire yet, and the control socket refuses requests about them.
        Starting = "starting",
        /// The store cannot be read.
        StoreRead = "store_read",
        /// The scheduler as a whole is paused.
        Paused = "paused",
        /// The control socket is not at its path.
        Socket = "socket",
        /// The last reload failed.
        Reload = "reload",
        /// Jobs of this daemon's file are not as it declares them, because another file declares them too.
        Conflict = "conflict",
        /// Jobs are broken, so they do not fire.
        Broken = "broken_jobs",
        /// Runs have been waiting for a worker for too long.
        Overdue = "overdue",
        /// The clock was set back, and the schedule is being corrected.
        Clock = "clock",
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub kind: ConditionKind,
    /// One line.
    pub message: String,
    pub since: Option<Timestamp>,
}

impl Condition {
    /// The message is the first line of `message`, shortened if it is very long.
    pub fn new(kind: ConditionKind, message: &str, since: Option<Timestamp>) -> Self {
        let line = message.lines().next().unwrap_or_default();
        Self { kind, message: shortened(line, MESSAGE_CHARS).into_owned(), since }
    }

    fn to_value(&self) -> Value {
        json!({"reason": self.kind, "message": self.message, "since": self.since.map(rfc3339)})
    }
}

/// Conditions that do not follow from the scheduler's status, reported by other parts of the daemon. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct ReportedConditions(watch::Sender<Reports>);

#[derive(Debug, Clone, Default)]
pub struct Reports {
    conditions: BTreeMap<ConditionKind, Condition>,
}

impl ReportedConditions {
    /// Reports a condition, which replaces an earlier one of its kind.
    pub fn set(&self, condition: Condition) {
        self.0.send_modify(|reports| {
            reports.conditions.insert(condition.kind, condition);
        });
    }

    /// Withdraws the condition of this kind.
    pub fn clear(&self, kind: ConditionKind) {
        self.0.send_if_modified(|reports| reports.conditions.remove(&kind).is_some());
    }

    /// A receiver that is notified of each change.
    pub fn changes(&self) -> watch::Receiver<Reports> {
        self.0.subscribe()
    }

    fn conditions(&self) -> Vec<Condition> {
        self.0.borrow().conditions.values().cloned().collect()
    }
}

/// What [`conditions`] looks at.
#[derive(Debug)]
pub struct ConditionSources<'a> {
    pub status: &'a Status,
    /// How far the scheduler's loop is behind; none if it has ended.
    pub delay: Option<Delay>,
    /// How many jobs are in each state; none if that is not known.
    pub jobs: Option<&'a [(String, u64)]>,
}

/// Everything that is wrong, the most serious first; empty if the daemon is healthy.
pub fn conditions(
    sources: &ConditionSources<'_>,
    reported: &ReportedConditions,
    now: Timestamp,
) -> Vec<Condition> {
    let ConditionSources { status, jobs, .. } = sources;
    let mut found = reported.conditions();
    let mut add = |kind, message: &str, since| found.push(Condition::new(kind, message, since));
    if status.draining {
        add(ConditionKind::Stopping, "the daemon is stopping", None);
    }
    match (stuck(sources.delay), &status.store_error) {
        (Some((kind, message)), _) => add(kind, &message, None),
        (None, Some(error)) => add(ConditionKind::Store, error, None),
        (None, None) => {}
    }
    if let Some(pause) = &status.pause {
        add(ConditionKind::Paused, &pause_message(pause), Some(pause.since));
    }
    let broken = jobs.and_then(|jobs| jobs.iter().find(|(state, _)| state == "broken"));
    match broken {
        Some((_, 1)) => add(ConditionKind::Broken, "1 job is broken", None),
        Some((_, count)) if *count > 1 => {
            add(ConditionKind::Broken, &format!("{count} jobs are broken"), None);
        }
        _ => {}
    }
    for pool in &status.pools {
        let is_long = |since: &Timestamp| now.signed_duration_since(*since) > WAITING_MAX;
        if let Some(since) = pool.waiting_since.filter(is_long) {
            let message = format!("runs wait for a worker of the executor {}", pool.name);
            add(ConditionKind::Overdue, &message, Some(since));
        }
    }
    if let Some(clock) = status.clock.filter(|clock| !clock.is_done) {
        let message = "the clock was set back, and jobs are being set to continue from now";
        add(ConditionKind::Clock, message, Some(clock.found_at));
    }
    found.sort_by_key(|condition| condition.kind);
    found
}

fn pause_message(pause: &Pause) -> String {
    let by = pause.by.as_ref().map(|by| format!(" by {by}"));
    let until = pause.until.map(|until| format!(" until {}", rfc3339(until)));
    let reason = pause.reason.as_ref().map(|reason| format!(" ({reason})"));
    let [by, until, reason] = [by, until, reason].map(Option::unwrap_or_default);
    format!("the scheduler was paused{by}{until}{reason}: no job fires")
}

/// Why the loop makes no progress, if it is late by more than [`LATENESS_MAX`].
pub(super) fn stuck(delay: Option<Delay>) -> Option<(ConditionKind, String)> {
    let Some(delay) = delay else {
        return Some((ConditionKind::Stuck, "the scheduler has ended".to_owned()));
    };
    if delay.late <= LATENESS_MAX {
        return None;
    }
    let late = format!("the scheduler has not made a step for {} s", delay.late.as_secs());
    Some(match delay.store {
        Some(_) => (ConditionKind::Store, format!("{late}: it waits for the store")),
        None => (ConditionKind::Stuck, late),
    })
}

/// The `health` object of `/v1/status`.
pub(super) fn health(conditions: &[Condition]) -> Value {
    let state = if conditions.is_empty() { "well" } else { "degraded" };
    let reasons: Vec<Value> = conditions.iter().map(Condition::to_value).collect();
    json!({"state": state, "reasons": reasons})
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::job::PauseTerms;
    use crate::scheduler::handle::{ClockCorrection, PoolStatus};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn found(
        status: &Status,
        delay: Option<Delay>,
        broken: u64,
        reported: &ReportedConditions,
    ) -> Vec<String> {
        let jobs = [("active".to_owned(), 3), ("broken".to_owned(), broken)];
        let sources = ConditionSources { status, delay, jobs: Some(&jobs) };
        let found = conditions(&sources, reported, at(0));
        let word = |kind| json!(kind).as_str().unwrap().to_owned();
        found.iter().map(|one| format!("{}: {}", word(one.kind), one.message)).collect()
    }

    fn delayed(late: u64, store: Option<u64>) -> Delay {
        let stalled = Duration::from_secs(if store.is_some() { 0 } else { late });
        let store = store.map(Duration::from_secs);
        Delay { late: Duration::from_secs(late), store, stalled }
    }

    fn pool(waiting_since: Option<Timestamp>) -> PoolStatus {
        let name = "default".to_owned();
        let (busy, max_workers) = (2, 2);
        PoolStatus {
            name,
            busy,
            max_workers,
            waiting: 1,
            retrying: 0,
            waiting_since,
            queue_limit: 9,
        }
    }

    #[test]
    fn a_healthy_daemon_has_no_conditions() {
        let on_time = Some(delayed(5, Some(1)));
        assert_eq!(found(&Status::default(), on_time, 0, &ReportedConditions::default()), [""; 0]);
        let correction =
            ClockCorrection { recorded: at(9), found_at: at(0), jobs: 3, is_done: true };
        let status = Status {
            clock: Some(correction),
            pools: vec![pool(Some(at(-300))), pool(None)],
            ..Status::default()
        };
        assert_eq!(found(&status, on_time, 0, &ReportedConditions::default()), [""; 0]);
    }

    #[test]
    fn conditions_are_listed_with_the_most_serious_first() {
        let reported = ReportedConditions::default();
        reported.set(Condition::new(
            ConditionKind::Reload,
            "jobs.toml:3: no\nsecond line",
            Some(at(-9)),
        ));
        let by = Some("uid 7".to_owned());
        let terms = PauseTerms { by, ..PauseTerms::default() };
        let correction =
            ClockCorrection { recorded: at(9), found_at: at(0), jobs: 3, is_done: false };
        let status = Status {
            store_error: Some("the store is unavailable: gone".to_owned()),
            pause: Some(Arc::new(Pause::new(at(-60), terms))),
            clock: Some(correction),
            pools: vec![pool(Some(at(-301)))],
            ..Status::default()
        };
        assert_eq!(
            found(&status, Some(delayed(0, None)), 2, &reported),
            [
                "store: the store is unavailable: gone",
                "paused: the scheduler was paused by uid 7: no job fires",
                "reload: jobs.toml:3: no",
                "broken_jobs: 2 jobs are broken",
                "overdue: runs wait for a worker of the executor default",
                "clock: the clock was set back, and jobs are being set to continue from now",
            ]
        );
        reported.clear(ConditionKind::Reload);
        let of = |status: &Status, delay| found(status, delay, 1, &reported);
        reported.set(Condition::new(ConditionKind::Starting, "jobs are being declared", None));
        let first = &of(&Status::default(), Some(delayed(0, None)))[0];
        assert_eq!(first, "starting: jobs are being declared");
        reported.clear(ConditionKind::Starting);
        let draining = Status { draining: true, ..Status::default() };
        assert_eq!(
            of(&draining, None),
            [
                "stopping: the daemon is stopping",
                "stuck: the scheduler has ended",
                "broken_jobs: 1 job is broken",
            ]
        );
        let step = "the scheduler has not made a step for 6 s";
        assert_eq!(of(&Status::default(), Some(delayed(6, None)))[0], format!("stuck: {step}"));
        let waits = format!("store: {step}: it waits for the store");
        assert_eq!(of(&Status::default(), Some(delayed(6, Some(2))))[0], waits);
    }

    #[test]
    fn a_pause_says_who_asked_for_it_until_when_and_why() {
        let pause = Pause {
            since: at(-60),
            until: Some(at(0)),
            by: Some("ada (uid 7)".to_owned()),
            reason: Some("new disk".to_owned()),
        };
        let message = "the scheduler was paused by ada (uid 7) until 2027-01-15T08:00:00.000000Z (new disk): \
             no job fires";
        assert_eq!(pause_message(&pause), message);
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        let long = Condition::new(ConditionKind::Reload, &"ä".repeat(1000), None);
        assert_eq!(long.message, format!("{}…", "ä".repeat(MESSAGE_CHARS)));
        assert_eq!(Condition::new(ConditionKind::Reload, "", None).message, "");
    }
}
