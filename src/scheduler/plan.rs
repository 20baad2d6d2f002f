//! Plans a job that is due: which of its occurrences are run, which are skipped and why, and when it is due next.
//!
//! Pure, and bounded whatever time has passed: after an outage of a year, a job that fires every second costs no more than
//! after an outage of a minute.

use chrono::TimeDelta;

use crate::clock::Timestamp;
use crate::job::{Coalesce, Due, Job, Overlap};
use crate::run::SkipReason;
use crate::trigger::Span;

/// Occurrences of one job that one plan runs under `coalesce = "all"`. The others are recorded as coalesced, so that one job
/// cannot fill the queue of its pool.
const RUNS_PER_PLAN: usize = 1000;

/// Occurrences that were skipped together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Skipped {
    pub(crate) reason: SkipReason,
    pub(crate) span: Span,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Occurrences to run, in order.
    pub(crate) runs: Vec<Due>,
    /// Occurrences that are not run, in order.
    pub(crate) skipped: Vec<Skipped>,
    /// The next occurrence; `None` if there is no further one.
    pub(crate) next: Option<Due>,
}

/// Whether another run of a job may be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstanceLimit {
    Open,
    /// `max_instances` runs are in flight, and no more may wait.
    Reached,
}

/// Plans a job whose next occurrence is due.
pub(crate) fn plan(job: &Job, now: Timestamp, limit: InstanceLimit) -> Plan {
    let Some(next) = job.next().filter(|next| next.due_at <= now) else {
        return Plan { next: job.next(), ..Plan::default() };
    };
    let due = due_span(job, next, now);
    let mut plan = match job.policy.coalesce {
        // A time set by `next_run_time` is no occurrence of the trigger. The occurrences since then are for the next plan.
        _ if !job.trigger.matches(next.scheduled_at) => keep_named(job, next, now),
        Coalesce::Latest => keep_latest(job, due, now),
        Coalesce::Earliest => keep_earliest(job, due, now),
        Coalesce::All => keep_all(job, due, now),
    };
    // A time set by `next_run_time` has no jitter, even if it is an occurrence.
    plan.runs
        .iter_mut()
        .filter(|run| run.scheduled_at == next.scheduled_at)
        .for_each(|run| *run = next);
    let last = plan.last_seen().unwrap_or(due.last);
    plan.next = job.trigger.next_after(last).map(|at| Due::new(&job.id, &job.trigger, at));
    // A one-shot is never skipped because another run of the job is in flight: it waits.
    if limit == InstanceLimit::Reached && !job.trigger.is_one_shot() {
        plan.skip_all_for_overlap();
    }
    if job.policy.overlap == Overlap::Replace {
        // Each run would replace an earlier one of this plan, so that only the newest are left.
        let allowed = usize::try_from(job.policy.max_instances).unwrap_or(usize::MAX);
        plan.skip_runs(plan.runs.len().saturating_sub(allowed), SkipReason::Overlap);
    }
    if let Some(max_runs) = job.policy.max_runs {
        let left = usize::try_from(max_runs.saturating_sub(job.run_count)).unwrap_or(usize::MAX);
        plan.runs.truncate(left);
        if plan.runs.len() == left {
            plan.next = None;
        }
    }
    plan
}

/// The occurrences from the job's next one on that are due at `now`.
fn due_span(job: &Job, next: Due, now: Timestamp) -> Span {
    let only_next = Span::one(next.scheduled_at);
    let Some(span) = job.trigger.occurrences(next.scheduled_at, now) else { return only_next };
    // Jitter ends before the next occurrence, so only the last one may still be in the future.
    if span.count > 1 && Due::new(&job.id, &job.trigger, span.last).due_at > now {
        return job.trigger.occurrences(next.scheduled_at, before(span.last)).unwrap_or(only_next);
    }
    span
}

fn keep_named(job: &Job, next: Due, now: Timestamp) -> Plan {
    if is_missed(job, next.due_at, now) {
        return Plan::skip(SkipReason::Missed, Span::one(next.scheduled_at));
    }
    Plan { runs: vec![next], ..Plan::default() }
}

fn keep_latest(job: &Job, due: Span, now: Timestamp) -> Plan {
    let latest = Due::new(&job.id, &job.trigger, due.last);
    if is_missed(job, latest.due_at, now) {
        return Plan::skip(SkipReason::Missed, due);
    }
    let earlier =
        (due.count > 1).then(|| job.trigger.occurrences(due.first, before(due.last))).flatten();
    Plan {
        runs: vec![latest],
        skipped: earlier
            .map(|span| Skipped { reason: SkipReason::Coalesced, span })
            .into_iter()
            .collect(),
        next: None,
    }
}

fn keep_earliest(job: &Job, due: Span, now: Timestamp) -> Plan {
    let (missed, rest) = split_missed(job, due, now);
    let mut skipped: Vec<Skipped> = missed.into_iter().collect();
    let Some(rest) = rest else { return Plan { skipped, ..Plan::default() } };
    let later = job.trigger.occurrences(after(rest.first), rest.last).filter(|_| rest.count > 1);
    skipped.extend(later.map(|span| Skipped { reason: SkipReason::Coalesced, span }));
    Plan { runs: vec![Due::new(&job.id, &job.trigger, rest.first)], skipped, next: None }
}

fn keep_all(job: &Job, due: Span, now: Timestamp) -> Plan {
    let (missed, rest) = split_missed(job, due, now);
    let mut plan = Plan { skipped: missed.into_iter().collect(), ..Plan::default() };
    let Some(rest) = rest else { return plan };
    let mut at = Some(rest.first);
    while let Some(scheduled_at) =
        at.filter(|at| *at <= rest.last && plan.runs.len() < RUNS_PER_PLAN)
    {
        plan.runs.push(Due::new(&job.id, &job.trigger, scheduled_at));
        at = job.trigger.next_after(scheduled_at);
    }
    let beyond =
        at.filter(|at| *at <= rest.last).and_then(|at| job.trigger.occurrences(at, rest.last));
    plan.skipped.extend(beyond.map(|span| Skipped { reason: SkipReason::Coalesced, span }));
    plan
}

/// Splits occurrences into those that are too late to run and the rest. The late ones come first.
fn split_missed(job: &Job, span: Span, now: Timestamp) -> (Option<Skipped>, Option<Span>) {
    let Some(grace) = job.policy.misfire_grace_time else { return (None, Some(span)) };
    let Some(oldest) = now.checked_sub_signed(grace) else { return (None, Some(span)) };
    let occurrences = |from, to| job.trigger.occurrences(from, to);
    let mut missed = occurrences(span.first, before(oldest).min(span.last));
    let mut rest_from = span.first.max(oldest);
    // With its jitter, the last of them may be in time. Jitter ends before the next occurrence, so no other can.
    if let Some(last) = missed.map(|missed| missed.last)
        && Due::new(&job.id, &job.trigger, last).due_at >= oldest
    {
        missed = occurrences(span.first, before(last));
        rest_from = last;
    }
    let missed = missed.map(|span| Skipped { reason: SkipReason::Missed, span });
    (missed, occurrences(rest_from, span.last))
}

/// Whether an occurrence that was due at `due_at` is too late to start at `now`.
pub(crate) fn is_missed(job: &Job, due_at: Timestamp, now: Timestamp) -> bool {
    job.policy.misfire_grace_time.is_some_and(|grace| now.signed_duration_since(due_at) > grace)
}

/// The last instant before this one.
pub(crate) fn before(at: Timestamp) -> Timestamp {
    at.checked_sub_signed(TimeDelta::microseconds(1)).unwrap_or(at)
}

/// The first instant after this one.
pub(crate) fn after(at: Timestamp) -> Timestamp {
    at.checked_add_signed(TimeDelta::microseconds(1)).unwrap_or(at)
}

impl Plan {
    fn skip(reason: SkipReason, span: Span) -> Self {
        Self { skipped: vec![Skipped { reason, span }], ..Self::default() }
    }

    /// The last occurrence that this plan accounts for.
    fn last_seen(&self) -> Option<Timestamp> {
        let run = self.runs.last().map(|run| run.scheduled_at);
        run.max(self.skipped.last().map(|skipped| skipped.span.last))
    }

    /// Skips all runs, because `max_instances` runs are in flight. Occurrences that were to be coalesced into one of them are
    /// skipped for the same reason, in one span, since they follow each other.
    fn skip_all_for_overlap(&mut self) {
        self.skip_runs(self.runs.len(), SkipReason::Overlap);
        let is_missed = |skipped: &Skipped| skipped.reason == SkipReason::Missed;
        let (missed, others): (Vec<Skipped>, Vec<Skipped>) =
            std::mem::take(&mut self.skipped).into_iter().partition(is_missed);
        let joined = others.into_iter().map(|skipped| skipped.span).reduce(|one, other| Span {
            first: one.first.min(other.first),
            last: one.last.max(other.last),
            count: one.count.saturating_add(other.count),
        });
        self.skipped = missed;
        self.skipped.extend(joined.map(|span| Skipped { reason: SkipReason::Overlap, span }));
    }

    /// Skips the first `count` runs.
    fn skip_runs(&mut self, count: usize, reason: SkipReason) {
        let rest = self.runs.split_off(count.min(self.runs.len()));
        let skipped = std::mem::replace(&mut self.runs, rest);
        let Some((first, last)) = skipped.first().zip(skipped.last()) else { return };
        let span = Span {
            first: first.scheduled_at,
            last: last.scheduled_at,
            count: u64::try_from(skipped.len()).unwrap_or(u64::MAX),
        };
        self.skipped.push(Skipped { reason, span });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobId;
    use crate::trigger::Trigger;
    use crate::zone::Zone;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn trigger(spec: &Value) -> Trigger {
        Trigger::parse(spec, &Zone::utc(), at(0)).unwrap()
    }

    fn id(text: &str) -> JobId {
        JobId::parse(text).unwrap()
    }

    #[test]
    fn jitter_delays_an_occurrence_within_its_bounds_and_the_same_way_every_time() {
        let spread = json!({"type": "interval", "seconds": 10, "jitter": 4});
        let (trigger, mut delays) = (trigger(&spread), std::collections::BTreeSet::new());
        for number in 1..200 {
            let occurrence = at(10 * number);
            let planned = Due::new(&id("a"), &trigger, occurrence);
            let delay = planned.due_at - occurrence;
            assert_eq!(
                (planned.scheduled_at, Due::new(&id("a"), &trigger, occurrence)),
                (occurrence, planned)
            );
            assert!((TimeDelta::zero()..=TimeDelta::seconds(4)).contains(&delay), "{delay}");
            delays.insert(delay);
        }
        assert!(delays.len() > 190, "the delays differ");
        assert_ne!(
            Due::new(&id("a"), &trigger, at(10)).due_at,
            Due::new(&id("b"), &trigger, at(10)).due_at,
            "and so do the jobs'"
        );
    }

    #[test]
    fn jitter_ends_before_the_next_occurrence_and_never_passes_the_end() {
        let wide = trigger(
            &json!({"type": "interval", "seconds": 2, "jitter": 3600, "end_date": "2027-01-15 08:00:41"}),
        );
        for number in 1..=20 {
            let planned = Due::new(&id("a"), &wide, at(2 * number));
            assert!(planned.due_at < at(2 * number + 2), "{planned:?}");
            assert!(planned.due_at <= wide.end().unwrap(), "{planned:?}");
        }
    }
}
