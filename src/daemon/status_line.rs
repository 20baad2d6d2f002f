//! The status of the daemon in one line, which `systemctl status` shows.
//!
//! The line is updated after steps of the scheduler and when a condition changes. While nothing happens, nothing wakes up
//! for it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::service_manager;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::control::condition::{
    Condition, ConditionKind, ConditionSources, ReportedConditions, conditions,
};
use crate::history::History;
use crate::job::admission::Rules;
use crate::printable::shortened;
use crate::scheduler::handle::{Handle, Status};
use crate::scheduler::request::Conflict;
use crate::zone::Zone;

/// Minimum time between two updates.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause between two counts of the jobs, as a multiple of the time that a count takes.
const COUNT_PAUSE_FACTOR: u32 = 20;
/// Maximum age of a count if other daemons change the same jobs.
const COUNT_AGE: Duration = Duration::from_mins(1);
/// Maximum length of the line in characters. A message to systemd has at most 4 KiB.
const LINE_CHARS: usize = 1000;

/// Makes and sends the status line.
#[derive(Debug, Clone)]
pub(super) struct StatusLine {
    handle: Handle,
    history: History,
    noted: ReportedConditions,
    rules: watch::Receiver<Arc<Rules>>,
    /// Where the daemon listens.
    socket: PathBuf,
    /// The last line that was sent.
    sent: Arc<Mutex<String>>,
}

/// When the jobs were last counted.
#[derive(Debug, Clone, Copy)]
struct Counted {
    /// The number of changes of jobs that this daemon had written by then.
    changes: u64,
    at: Instant,
    /// When the jobs may be counted again.
    again_at: Instant,
}

impl StatusLine {
    pub(super) fn new(
        handle: Handle,
        history: History,
        noted: ReportedConditions,
        rules: watch::Receiver<Arc<Rules>>,
        socket: PathBuf,
    ) -> Self {
        Self { handle, history, noted, rules, socket, sent: Arc::default() }
    }

    /// Notifies the service manager that the daemon is ready, with the status line.
    pub(super) fn ready(&self) {
        let line = self.line(&self.handle.status());
        service_manager::ready(&line);
        self.is_new(line);
    }

    /// Notes the jobs of the file that another file declares.
    pub(super) fn declared(&self, conflicts: &[Conflict]) {
        let Some(first) = conflicts.first() else {
            return self.noted.clear(ConditionKind::Conflict);
        };
        let message = match conflicts.len() - 1 {
            0 => first.to_string(),
            others => format!("{first} (and {others} more)"),
        };
        self.noted.set(Condition::new(ConditionKind::Conflict, &message, None));
    }

    /// Notes the result of a reload, and notifies the service manager that the daemon is ready again.
    pub(super) fn reloaded(&self, error: Option<&String>) {
        match error {
            None => self.noted.clear(ConditionKind::Reload),
            Some(error) => {
                let message = format!("the last reload failed: {error}");
                self.noted.set(Condition::new(
                    ConditionKind::Reload,
                    &message,
                    Some(SystemClock.now()),
                ));
            }
        }
        self.ready();
    }

    /// Sends the line whenever it changes, until the scheduler has ended.
    pub(super) async fn follow(self) {
        let (mut steps, mut notes) = (self.handle.steps(), self.noted.changes());
        let mut counted = None;
        loop {
            let status = steps.borrow_and_update().clone();
            notes.mark_unchanged();
            let again_at = self.count(&status, &mut counted).await;
            let line = self.line(&status);
            if self.is_new(line.clone()) {
                service_manager::status(&line);
            }
            tokio::time::sleep(PAUSE).await;
            let count_again = async {
                match again_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = steps.changed() => if changed.is_err() { return },
                // The sender is a field of `self`, so this cannot fail.
                _ = notes.changed() => {}
                () = count_again => {}
            }
        }
    }

    /// True if the line differs from the last one that was sent. It counts as sent from now on.
    fn is_new(&self, line: String) -> bool {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *sent != line;
        *sent = line;
        is_new
    }

    /// Counts the jobs if their numbers may have changed. If it is too early for that, returns when to count them.
    async fn count(&self, status: &Status, counted: &mut Option<Counted>) -> Option<Instant> {
        let now = Instant::now();
        let changes = status.written.jobs;
        if let Some(last) = *counted {
            let is_old = status.nodes.len() > 1 && now.duration_since(last.at) > COUNT_AGE;
            if last.changes == changes && !is_old {
                return None;
            }
            if now < last.again_at {
                return Some(last.again_at);
            }
        }
        // The step that finds the store available again will cause a count.
        if status.store_error.is_some() {
            return None;
        }
        // The history keeps the result.
        drop(self.history.job_counts().await);
        let pause = (now.elapsed() * COUNT_PAUSE_FACTOR).max(PAUSE);
        *counted = Some(Counted { changes, at: now, again_at: Instant::now() + pause });
        None
    }

    fn line(&self, status: &Status) -> String {
        let now = SystemClock.now();
        let delay = self.handle.delay(now, Instant::now());
        let jobs = self.history.latest_job_counts();
        let found = conditions(
            &ConditionSources { status, delay, jobs: jobs.as_deref() },
            &self.noted,
            now,
        );
        let rules = self.rules.borrow();
        let zone = &rules.zone.zone;
        let mut line = sentence(status, jobs.as_deref(), &found, zone);
        let is_reached = found.iter().all(|condition| condition.kind != ConditionKind::Socket);
        if !status.draining && is_reached {
            line.push_str("; listening at ");
            line.push_str(&self.socket.to_string_lossy());
        }
        line
    }
}

/// The conditions, and what the scheduler does.
fn sentence(
    status: &Status,
    jobs: Option<&[(String, u64)]>,
    found: &[Condition],
    zone: &Zone,
) -> String {
    let local = |at: Timestamp| zone.to_fixed(at).format("%Y-%m-%d %H:%M:%S %:z");
    // The last part of the line tells of a stop.
    let shown = found.iter().filter(|condition| condition.kind != ConditionKind::Stopping);
    let mut parts: Vec<String> = shown
        .map(|Condition { message, since, .. }| match since {
            Some(since) => format!("{message} (since {})", local(*since)),
            None => message.clone(),
        })
        .collect();
    let running = status.running;
    if status.draining {
        parts.push(match running {
            0 => "stopping".to_owned(),
            1 => "waiting for 1 run to end".to_owned(),
            _ => format!("waiting for {running} runs to end"),
        });
    } else {
        let jobs = jobs.map(|jobs| jobs.iter().map(|(_, count)| count).sum::<u64>());
        let jobs =
            jobs.map(|count| format!("{count} {}, ", if count == 1 { "job" } else { "jobs" }));
        let next = status.next_due.filter(|_| status.pause.is_none());
        let next = next.map(|at| format!(", next due {}", local(at)));
        let [jobs, next] = [jobs, next].map(Option::unwrap_or_default);
        parts.push(format!("{jobs}{running} running{next}"));
    }
    shortened(&parts.join("; "), LINE_CHARS).into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::job::{Pause, PauseTerms};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn line(status: &Status, found: &[Condition]) -> String {
        let jobs = [("active".to_owned(), 11), ("broken".to_owned(), 1)];
        sentence(status, Some(&jobs), found, &Zone::parse("+01:00").unwrap())
    }

    #[test]
    fn the_line_shows_conditions_and_progress_in_local_time() {
        let mut status = Status { running: 3, next_due: Some(at(60)), ..Status::default() };
        assert_eq!(line(&status, &[]), "12 jobs, 3 running, next due 2027-01-15 09:01:00 +01:00");
        let one = [("active".to_owned(), 1)];
        assert_eq!(sentence(&Status::default(), Some(&one), &[], &Zone::utc()), "1 job, 0 running");
        assert_eq!(sentence(&Status::default(), None, &[], &Zone::utc()), "0 running");
        status.pause = Some(Arc::new(Pause::new(at(0), PauseTerms::default())));
        let found = [
            Condition::new(ConditionKind::Store, "the store is unavailable: gone", None),
            Condition::new(
                ConditionKind::Paused,
                "the scheduler was paused by uid 7: no job fires",
                Some(at(0)),
            ),
        ];
        assert_eq!(
            line(&status, &found),
            "the store is unavailable: gone; the scheduler was paused by uid 7: no job fires \
             (since 2027-01-15 09:00:00 +01:00); 12 jobs, 3 running"
        );
    }

    #[test]
    fn the_line_of_a_stop_says_what_the_daemon_waits_for() {
        let stopping = Condition::new(ConditionKind::Stopping, "the daemon is stopping", None);
        let away = Condition::new(ConditionKind::Store, "gone", None);
        let line = |running, found: &[Condition]| {
            line(&Status { draining: true, running, ..Status::default() }, found)
        };
        assert_eq!(line(2, std::slice::from_ref(&stopping)), "waiting for 2 runs to end");
        assert_eq!(line(1, &[stopping, away]), "gone; waiting for 1 run to end");
        assert_eq!(line(0, &[]), "stopping");
    }

    #[test]
    fn the_line_is_bounded() {
        let long = Condition::new(ConditionKind::Store, &"ä".repeat(2 * LINE_CHARS), None);
        let line = line(&Status::default(), &vec![long; 9]);
        assert_eq!(line.chars().count(), LINE_CHARS + 1);
        assert!(line.ends_with('…'));
    }
}
