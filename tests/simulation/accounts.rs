//! What the ledger must have of every job: a row for each of its occurrences, and what was acknowledged.

use std::sync::Arc;

use punctual::clock::Timestamp;
use punctual::job::{Job, JobId, JobState};
use punctual::run::Run;
use punctual::scheduler::request::{Modified, Request, Response};
use support::occurrences::covers;

use crate::ledger::{Ledger, Version, is_skipped, last_of};
use crate::properties::Property;

/// The first occurrence of a job that has no row.
fn held(job: &Job) -> Option<Timestamp> {
    match &job.state {
        JobState::Active { next } | JobState::Paused { next } => Some(next.scheduled_at),
        JobState::Broken { since, .. } => *since,
        JobState::Finished => None,
    }
}

fn is_broken(job: &Job) -> bool {
    matches!(job.state, JobState::Broken { .. })
}

impl Ledger {
    /// A job becomes this, and these rows of its schedule are written with it.
    pub(crate) fn account(
        &mut self,
        id: &JobId,
        after: Option<&Arc<Job>>,
        rows: &[Arc<Run>],
        now: Timestamp,
    ) {
        let before = self.jobs.get(id).cloned();
        if let Some(before) = &before {
            let rows_of_all = rows;
            let rows: Vec<&Run> =
                rows.iter().map(AsRef::as_ref).filter(|row| row.anchor == before.anchor).collect();
            let same = after.filter(|after| after.anchor == before.anchor);
            let owed = account_rows(before, same.map(AsRef::as_ref), &rows);
            // What has come when a schedule ends has a row, or is where the new one goes on.
            let next = after.and_then(|after| held(after));
            // The row may be under the anchor of a definition that the same step has replaced again.
            let has_row = |owed| rows_of_all.iter().any(|row| covers(row, owed));
            let is_owed = owed.is_some_and(|owed| owed <= now && !has_row(owed)) && same.is_none();
            Property::Accounted.holds(!is_owed || owed == next, || {
                format!("{id}: {owed:?} is forgotten: {before:?} {after:?} {rows:?}")
            });
        }
        let version = Version { since: self.writes, job: after.cloned() };
        self.versions.entry(id.clone()).or_default().push(version);
        match after {
            Some(after) => self.jobs.insert(id.clone(), Arc::clone(after)),
            None => self.jobs.remove(id),
        };
    }

    /// Something that was asked after this many writes was answered with this.
    pub(crate) fn answered(&self, asked: u64, request: &Request, answer: &Response) {
        let versions = |id: &JobId| self.versions.get(id).map(Vec::as_slice).unwrap_or_default();
        let holds = match (request, answer) {
            (Request::Remove(id), _) => {
                let gone = versions(id).iter().rev().take_while(|version| version.since > asked);
                !self.jobs.contains_key(id) || gone.into_iter().any(|version| version.job.is_none())
            }
            (_, Response::Job(job) | Response::Modified(Modified { after: job, .. })) => {
                let written = versions(&job.id).iter().rev().filter_map(|v| v.job.as_ref());
                let is_this = |known: &&Arc<Job>| {
                    known.revision == job.revision
                        && known.anchor == job.anchor
                        && known.state == job.state
                        && known.same_definition(job)
                };
                written.into_iter().any(|known| is_this(&known))
            }
            (_, Response::Run(run)) => self.runs.contains_key(&run.id),
            (_, Response::Paused(pause)) => {
                self.was_paused(pause.as_ref().map(|pause| pause.since), asked)
            }
            (
                _,
                Response::Removed(_)
                | Response::WouldModify(_)
                | Response::Difference(_)
                | Response::Added(_)
                | Response::Bulk(_)
                | Response::Done,
            ) => true,
        };
        Property::Acknowledged.holds(holds, || format!("{request:?} was answered {answer:?}"));
    }
}

/// The rows follow each other from the job's next occurrence on, up to its next one afterwards. Gives back the first
/// occurrence that has no row, as far as it is known.
fn account_rows(before: &Job, after: Option<&Job>, rows: &[&Run]) -> Option<Timestamp> {
    let id = &before.id;
    let mut expected = held(before);
    if is_broken(before) && expected.is_none() {
        // Since when it was broken is not known, so neither is what it owes.
        return None;
    }
    let ends_by_count = after.is_some_and(|after| {
        after.policy.max_runs.is_some_and(|most| after.run_count >= most)
            && after.state == JobState::Finished
    });
    for row in rows {
        let first = row.scheduled_at.unwrap();
        let follows = Some(first) == expected || ends_by_count;
        Property::Accounted.holds(follows, || format!("{id}: {expected:?}, but {row:?}"));
        expected = before.trigger.next_after(last_of(row));
    }
    let Some(after) = after else { return expected };
    let made = rows.iter().filter(|row| !is_skipped(row)).count();
    let counts = after.run_count == before.run_count + u64::try_from(made).unwrap();
    Property::Accounted
        .holds(counts, || format!("{id}: {made} were made: {before:?} {after:?} {rows:?}"));
    let is_within = made == 0 || after.policy.max_runs.is_none_or(|most| after.run_count <= most);
    Property::MaxRuns.holds(is_within, || format!("{after:?}"));
    let next = held(after);
    let is_kept = next == expected || (next.is_none() && ends_by_count);
    let what = || format!("{id}: {expected:?} is owed, {next:?} is next: {before:?} {after:?}");
    Property::Accounted.holds(is_kept, what);
    expected
}
