//! The statements behind the lists of jobs and of runs. Each page is read along an index, in the order of the list.

use super::SqlStore;
use super::archive::words;
use super::query::Query;
use super::tables::jobs::{self, JOBS};
use super::tables::runs::RUNS;
use crate::clock::Timestamp;
use crate::filter::{JobConditions, JobFilter, JobOrder, JobPosition, RunFilter, RunOrder};
use crate::job::Job;
use crate::run::RunId;
use crate::store::{Rows, StoreError};

/// The states of the jobs in the index `jobs_held`: those that few jobs are in.
const HELD_JOBS: [&str; 2] = ["paused", "broken"];
/// The states of the runs in the index `runs_in_flight`.
const IN_FLIGHT: [&str; 2] = ["pending", "running"];
/// The states of the runs in the index `runs_failed`: ends of which most ledgers have few.
const FAILED_RUNS: [&str; 4] = ["failed", "timed_out", "cancelled", "lost"];

/// A part of a list by next run time.
#[derive(Debug, Clone, Copy)]
enum DuePart<'a> {
    All,
    /// The jobs that are due at the same instant as the last job of the page before, and follow it by id.
    SameInstant(Timestamp, &'a str),
    /// The jobs that are due later than this.
    Later(Timestamp),
}

/// Adds the condition on states. Where an index holds only rows of certain states, its own condition is repeated: a
/// database uses it for nothing else.
fn push_states(query: &mut Query, states: &[&str], indexed: &[&[&str]]) {
    if states.is_empty() {
        return;
    }
    let covers = |index: &&&[&str]| states.iter().all(|state| index.contains(state));
    if let Some(index) = indexed.iter().find(covers) {
        query.push(&format!(" and state in {}", words(index)));
    }
    query.push(" and state in ").list(states.iter().copied());
}

/// Adds the condition that an id begins with this.
fn push_prefix(query: &mut Query, prefix: Option<&str>) {
    let Some(prefix) = prefix else { return };
    query.push(" and id >= ").bind(prefix);
    if let Some(end) = after_prefix(prefix) {
        query.push(" and id < ").bind(end.as_str());
    }
}

/// Adds the condition that a job has a tag. Tags are a JSON list, which holds the tag as a JSON string.
fn push_tag(query: &mut Query, store: &SqlStore, tag: Option<&str>) {
    let Some(tag) = tag else { return };
    let quoted = serde_json::Value::from(tag).to_string();
    query.push(" and ").push(&store.texts.dialect.position_in("tags"));
    query.bind(quoted.as_str()).push(") > 0");
}

fn push_text(query: &mut Query, column: &str, text: Option<&str>) {
    if let Some(text) = text {
        query.push(&format!(" and {column} = ")).bind(text);
    }
}

impl SqlStore {
    fn push_job_conditions(&self, query: &mut Query, conditions: &JobConditions) {
        let JobConditions { states, tag, prefix, executor, trigger_type } = conditions;
        push_states(query, states, &[&HELD_JOBS]);
        push_tag(query, self, tag.as_deref());
        push_prefix(query, prefix.as_deref());
        push_text(query, "executor", executor.as_deref());
        push_text(query, "trigger_type", trigger_type.as_deref());
    }

    /// The ids of the jobs that meet the conditions and follow `after`, in their order.
    pub(super) fn job_ids_query(
        &self,
        conditions: &JobConditions,
        after: &str,
        limit: usize,
    ) -> Query {
        let mut query = self.select("id", JOBS.name);
        self.push_job_conditions(&mut query, conditions);
        query.push(" and id > ").bind(after).push(" order by id").limit(limit);
        query
    }

    /// A page of jobs.
    pub(super) async fn list_jobs(&self, filter: &JobFilter) -> Result<Rows<Job>, StoreError> {
        match (filter.order, &filter.after) {
            (JobOrder::Id, after) => {
                let mut query = self.filtered_jobs(filter);
                if let Some(JobPosition { id, .. }) = after {
                    query.push(" and id > ").bind(id.as_str());
                }
                query.push(" order by id").limit(filter.limit);
                self.read_page(query, jobs::job).await
            }
            (JobOrder::NextRunTime, Some(JobPosition { due_at: Some(due_at), id })) => {
                let same = DuePart::SameInstant(*due_at, id);
                let mut page = self.due_jobs(filter, same, filter.limit).await?;
                let left = filter.limit.saturating_sub(page.rows.len());
                if left > 0 && !page.is_cut {
                    let later = self.due_jobs(filter, DuePart::Later(*due_at), left).await?;
                    page.rows.extend(later.rows);
                    page.is_cut = later.is_cut;
                }
                Ok(page)
            }
            (JobOrder::NextRunTime, _) => self.due_jobs(filter, DuePart::All, filter.limit).await,
        }
    }

    fn filtered_jobs(&self, filter: &JobFilter) -> Query {
        let mut query = self.select_all(&JOBS);
        self.push_job_conditions(&mut query, &filter.conditions);
        if let Some(since) = filter.since {
            query.push(" and next_run_time >= ").bind(since);
        }
        if let Some(until) = filter.until {
            query.push(" and next_run_time < ").bind(until);
        }
        query
    }

    async fn due_jobs(
        &self,
        filter: &JobFilter,
        part: DuePart<'_>,
        limit: usize,
    ) -> Result<Rows<Job>, StoreError> {
        let mut query = self.filtered_jobs(filter);
        // A job whose pause ends by itself has that end here, and is not due.
        query.push(" and state = 'active' and next_run_time is not null");
        match part {
            DuePart::All => {}
            DuePart::SameInstant(due_at, id) => {
                query.push(" and next_run_time = ").bind(due_at).push(" and id > ").bind(id);
            }
            DuePart::Later(due_at) => {
                query.push(" and next_run_time > ").bind(due_at);
            }
        }
        query.push(" order by next_run_time, id").limit(limit);
        self.read_page(query, jobs::job).await
    }

    /// The statements that find the ids of the runs that begin with a part of an id, and of those that end with it. The second
    /// one reads all ids, from the smallest index that has them.
    pub(super) fn run_ids_queries(&self, part: &str, limit: usize) -> [Query; 2] {
        let mut begin = self.select("id", RUNS.name);
        push_prefix(&mut begin, Some(part));
        begin.push(" order by id desc").limit(limit);
        let mut end = self.select("id", RUNS.name);
        // A part of an id has none of the characters that mean something here.
        end.push(" and id like ").bind(format!("%{part}").as_str()).limit(limit);
        [begin, end]
    }

    /// The statement for a page of runs.
    pub(super) fn runs_query(&self, filter: &RunFilter) -> Query {
        let JobConditions { states, tag, prefix, executor, trigger_type } = &filter.conditions;
        let mut query = self.select_all(&RUNS);
        push_text(&mut query, "job_id", filter.job_id.as_deref());
        push_states(&mut query, states, &[&IN_FLIGHT, &FAILED_RUNS]);
        if let Some(prefix) = prefix {
            // Not as a range: the index of occurrences would be read for it, and everything it finds sorted by id.
            query.push(" and ").push(&self.texts.dialect.position_in("job_id"));
            query.bind(prefix.as_str()).push(") = 1");
        }
        push_text(&mut query, "executor", executor.as_deref());
        if tag.is_some() || trigger_type.is_some() {
            query.push(" and exists (select 1 from jobs where jobs.id = runs.job_id");
            push_tag(&mut query, self, tag.as_deref());
            push_text(&mut query, "trigger_type", trigger_type.as_deref());
            query.push(")");
        }
        if filter.without_hooks {
            query.push(" and event is null");
        }
        if let Some(at) = filter.occurrence {
            query.push(" and scheduled_at <= ").bind(at);
            query.push(" and coalesce(last_scheduled_at, scheduled_at) >= ").bind(at);
        }
        if let Some(since) = filter.since {
            // The time in an id is never before the creation of its run, so older ids are not read.
            query.push(" and id >= ").bind(&*RunId::first_at(since).0);
            query.push(" and created_at >= ").bind(since);
        }
        if let Some(until) = filter.until {
            query.push(" and created_at < ").bind(until);
        }
        let (follows, order) = match filter.order {
            RunOrder::Newest => (" and id < ", " order by id desc"),
            RunOrder::Oldest => (" and id > ", " order by id"),
        };
        if let Some(after) = &filter.after {
            query.push(follows).bind(after.as_str());
        }
        query.push(order).limit(filter.limit);
        query
    }
}

/// The first text after all texts that begin with `prefix`, in the order of ids; none if there is no such text.
pub(super) fn after_prefix(prefix: &str) -> Option<String> {
    let mut rest: Vec<char> = prefix.chars().collect();
    while let Some(last) = rest.pop() {
        if last == char::MAX {
            continue;
        }
        let next = match last {
            // The code points between these two are no characters.
            '\u{d7ff}' => Some('\u{e000}'),
            other => char::from_u32(u32::from(other) + 1),
        };
        rest.push(next?);
        return Some(rest.into_iter().collect());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_text_of_its_length() {
        let cases = [
            ("a", Some("b")),
            ("a:", Some("a;")),
            ("\u{d7ff}", Some("\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
            ("", None),
        ];
        for (prefix, end) in cases {
            assert_eq!(after_prefix(prefix).as_deref(), end, "{prefix:?}");
        }
    }
}
