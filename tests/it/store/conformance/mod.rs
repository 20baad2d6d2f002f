//! One conformance suite, on every store.

mod lists;
mod retention;

use std::sync::Arc;

use lists::{
    jobs_are_listed_by_id_and_by_next_run_time, jobs_are_selected_by_every_condition,
    runs_are_found_by_a_part_of_their_id, runs_are_listed_in_both_orders,
    runs_are_selected_by_every_condition, runs_in_flight_are_counted_by_pool_and_node,
};
use punctual::clock::Timestamp;
use punctual::filter::{JobFilter, JobPosition, PAGE_BYTES, RunFilter};
use punctual::job::{Due, Former, Job, JobId, JobState, Origin, Pause, PauseTerms};
use punctual::output::{Line, Output, Stream};
use punctual::run::{Attempt, Cause, Cost, HookEvent, Outcome, Run, RunId, RunState, SkipReason};
use punctual::store::sql::SqlStore;
use punctual::store::{Archive, CLAIM_BYTES, Change, Claim, Holder, ReviewedJob, Store};
use retention::{
    a_run_counts_with_all_that_belongs_to_it,
    a_run_goes_with_all_that_belongs_to_it_once_it_has_ended,
    each_kind_of_rows_is_counted_by_itself,
    finished_jobs_are_found_in_the_order_in_which_they_finished,
    jobs_are_paged_with_their_last_occurrence,
    runs_made_while_ids_are_ahead_of_the_clock_are_found_by_age,
    runs_that_ended_long_ago_are_found_page_by_page,
    the_last_success_and_the_last_failure_of_a_job_are_always_kept,
    the_newest_runs_of_a_job_are_no_surplus,
};
use serde_json::json;
use support::jobs::{at, job, run};
use support::servers::mariadb::MariaDbServer;
use support::servers::postgres::PostgresServer;
use support::servers::{Kind, Server};
use support::store::MemoryStore;
use tempfile::TempDir;

use super::{database, is_conflict, pools};

fn insert_job(job: &Job) -> Change {
    Change::InsertJob(Arc::new(Job { revision: 1, ..job.clone() }))
}

/// The next write to a job that was read at this revision.
fn next(job: &Job) -> Arc<Job> {
    Arc::new(Job { revision: job.revision + 1, ..job.clone() })
}

fn update_job(job: &Job) -> Change {
    Change::UpdateJob(next(job))
}

fn delete_job(id: &JobId, revision: i64) -> Change {
    Change::DeleteJob { id: id.clone(), revision, created_at: at(0) }
}

fn insert_run(run: &Run) -> Change {
    Change::InsertRun(Arc::new(run.clone()))
}

fn update_run(run: &Run) -> Change {
    Change::UpdateRun { run: Arc::new(run.clone()), held_by: "here".into() }
}

/// What of the named pools is due, to the only node.
async fn due<S: Store>(store: &S, until: Timestamp, limit: usize) -> Vec<Job> {
    let executors = pools();
    let claim = Claim { node: "here", until, executors: &executors, limit, live: &[] };
    store.claim_jobs(claim).await.unwrap()
}

async fn in_flight<S: Store>(store: &S) -> Vec<Run> {
    store.runs_in_flight(Holder::Node("here")).await.unwrap()
}

/// A store in a database of its own.
async fn on_server<K: Kind>(server: Option<&Server<K>>, name: &str) -> Option<SqlStore> {
    Some(SqlStore::open(&database(server, name)?).await.unwrap())
}

/// Runs a test on each server.
macro_rules! on_every_server {
    ($($name:ident)*) => {
        mod postgres {
            $(#[tokio::test] async fn $name() {
                let server = super::PostgresServer::shared();
                if let Some(store) = super::on_server(server, stringify!($name)).await {
                    super::$name(store).await;
                }
            })*
        }
        mod mariadb {
            $(#[tokio::test] async fn $name() {
                let server = super::MariaDbServer::shared();
                if let Some(store) = super::on_server(server, stringify!($name)).await {
                    super::$name(store).await;
                }
            })*
        }
    };
}

/// Runs a test on each store.
macro_rules! on_every_store {
    ($($name:ident)*) => {
        mod memory {
            $(#[tokio::test] async fn $name() { super::$name(super::MemoryStore::default()).await; })*
        }
        mod sqlite {
            $(#[tokio::test] async fn $name() {
                let folder = super::TempDir::new().unwrap();
                super::$name(super::SqlStore::open_file(&folder.path().join("p.db")).await.unwrap()).await;
            })*
        }
        on_every_server! { $($name)* }
    };
}

on_every_store! {
    many_changes_are_written_all_or_none
    of_two_writes_to_a_run_in_one_commit_the_later_counts
    a_pause_is_kept_until_it_ends
    a_pause_is_ended_only_if_it_is_the_one_that_is_stored
    a_paused_job_is_claimed_when_its_pause_ends
    a_job_survives_in_every_state
    a_run_survives_in_every_state
    a_write_on_an_old_revision_changes_nothing_at_all
    a_conflict_in_writes_of_one_kind_changes_nothing_at_all
    an_id_and_an_occurrence_are_taken_once
    due_jobs_are_claimed_in_order_and_only_from_the_named_pools
    a_review_finds_jobs_that_are_declared_broken_or_without_a_pool
    runs_in_flight_are_found_the_oldest_first
    jobs_are_selected_by_every_condition
    jobs_are_listed_by_id_and_by_next_run_time
    runs_are_selected_by_every_condition
    runs_are_listed_in_both_orders
    runs_are_found_by_a_part_of_their_id
    runs_in_flight_are_counted_by_pool_and_node
    large_rows_end_a_page_and_a_claim_before_their_limit
    an_output_is_replaced
    an_output_is_saved_only_for_the_node_that_runs_its_attempt
    a_run_counts_with_all_that_belongs_to_it
    finished_jobs_are_found_in_the_order_in_which_they_finished
    attempts_of_a_run_are_kept_in_their_order
    the_state_of_a_job_and_whether_it_fails_move_with_its_schedule
    a_job_that_is_added_again_is_another_one
    runs_of_a_node_that_is_not_known_are_found
    runs_that_ended_long_ago_are_found_page_by_page
    a_run_goes_with_all_that_belongs_to_it_once_it_has_ended
    the_newest_runs_of_a_job_are_no_surplus
    a_row_of_skipped_occurrences_grows_only_from_where_it_was
    each_kind_of_rows_is_counted_by_itself
    runs_made_while_ids_are_ahead_of_the_clock_are_found_by_age
    jobs_are_paged_with_their_last_occurrence
    the_last_success_and_the_last_failure_of_a_job_are_always_kept
}

async fn a_row_of_skipped_occurrences_grows_only_from_where_it_was<S: Store + Archive>(store: S) {
    let span = |row: &Run, last: i64, count: u64| {
        let (reason, last_scheduled_at) = (SkipReason::Overlap, at(last));
        Run { state: RunState::Skipped { reason, last_scheduled_at, count }, ..row.clone() }
    };
    let extend = |row: Run, former_last| Change::ExtendSkipped {
        run: Arc::new(row),
        former_last: at(former_last),
    };
    let (a, b) = (span(&run("a", Some(at(10))), 10, 1), span(&run("b", Some(at(10))), 20, 2));
    let running = Run { state: RunState::Running { started_at: at(5) }, ..run("a", Some(at(5))) };
    let earlier = span(&run("c", Some(at(1))), 1, 1);
    let later = Run { state: RunState::Pending, ..run("c", Some(at(2))) };
    let rows = [&a, &b, &running, &earlier, &later];
    store.commit(rows.map(insert_run).to_vec()).await.unwrap();
    let both = vec![extend(span(&a, 30, 3), 10), extend(span(&b, 30, 3), 20)];
    store.commit(both.clone()).await.unwrap();
    assert_eq!(store.run(&a.id.0).await.unwrap(), Some(span(&a, 30, 3)));
    assert_eq!(store.run(&b.id.0).await.unwrap(), Some(span(&b, 30, 3)));
    assert!(is_conflict(&store.commit(both).await), "they have grown already");
    assert!(is_conflict(&store.commit(vec![extend(span(&running, 30, 3), 5)]).await));
    assert_eq!(store.run(&a.id.0).await.unwrap(), Some(span(&a, 30, 3)));
    // The latest row of each job is found, if it is an overlap under the job's anchor.
    let jobs = ["a", "b", "c", "unknown"].map(|id| Arc::new(job(&json!({"id": id}))));
    let other_anchor = Arc::new(Job { anchor: at(1), ..(*jobs[0]).clone() });
    let mut latest = store.latest_skips(&jobs, SkipReason::Overlap).await.unwrap();
    latest.sort_by(|one, other| one.id.cmp(&other.id));
    assert_eq!(latest, [span(&a, 30, 3), span(&b, 30, 3)]);
    assert_eq!(store.latest_skips(&jobs, SkipReason::Missed).await.unwrap(), []);
    assert_eq!(store.latest_skips(&[other_anchor], SkipReason::Overlap).await.unwrap(), []);
    let many: Vec<Arc<Job>> = jobs.iter().cycle().take(120).cloned().collect();
    assert_eq!(store.latest_skips(&many, SkipReason::Overlap).await.unwrap().len(), 60);
}

async fn a_job_survives_in_every_state<S: Store + Archive>(store: S) {
    let next = Due { scheduled_at: at(100), due_at: at(105) };
    let states = [
        JobState::Active { next },
        JobState::Paused { next: Due { due_at: at(100), ..next } },
        JobState::Finished,
        JobState::Broken {
            reason: "no pool".to_owned(),
            since: Some(at(7)),
            former: Former::Active,
        },
        JobState::Broken {
            reason: "jobs.toml:1:1: jobs[0].colour: unknown".to_owned(),
            since: Some(at(7)),
            former: Former::Paused,
        },
        JobState::Broken { reason: "no".to_owned(), since: None, former: Former::Finished },
    ];
    for (number, state) in states.into_iter().enumerate() {
        let full = json!({"id": format!("j{number}"), "name": "A name", "tags": ["a", "b\"c"], "description": "é\n",
            "misfire_grace_time": 1.5, "coalesce": "all", "max_instances": 3, "on_crash": "lose", "max_runs": 7,
            "timeout": 90, "retry": {"max_attempts": 3}, "priority": -7, "heartbeat": {"env": "URL"},
            "on_failure": {"type": "builtin", "name": "noop", "args": {"é": 1}}});
        let job = Job { state, run_count: 2, ..job(&full) };
        store.commit(vec![insert_job(&job)]).await.unwrap();
        let read = store.load_jobs(std::slice::from_ref(&job.id)).await.unwrap().remove(0);
        assert_eq!(read.to_value(), Job { revision: 1, ..job.clone() }.to_value());
        assert_eq!((&read.state, read.anchor, read.run_count), (&job.state, job.anchor, 2));
        assert_eq!(
            Archive::job(&store, job.id.as_str()).await.unwrap().unwrap().to_value(),
            read.to_value()
        );
    }
    let counts = store.job_counts().await.unwrap();
    assert_eq!(
        counts,
        [("active", 1), ("broken", 3), ("finished", 1), ("paused", 1)]
            .map(|(state, count)| (state.to_owned(), count))
    );
}

async fn a_run_survives_in_every_state<S: Store + Archive>(store: S) {
    let ended = |outcome| {
        let cost = Cost { cpu_micros: Some(1234), peak_memory: Some(5_000_000_000) };
        RunState::Ended { started_at: at(11), finished_at: at(12), outcome, cost }
    };
    let reasons = [
        SkipReason::Missed,
        SkipReason::Coalesced,
        SkipReason::Overlap,
        SkipReason::Paused,
        SkipReason::Broken,
        SkipReason::Removed,
    ];
    let mut states = vec![
        RunState::Pending,
        RunState::Running { started_at: at(11) },
        ended(Outcome::Succeeded { result: Some(json!({"a": [1, null]})), exit_code: None }),
        ended(Outcome::Succeeded { result: None, exit_code: Some(0) }),
        ended(Outcome::Failed {
            error: "exit code 3".to_owned(),
            exit_code: Some(3),
            signal: None,
            permanent: false,
        }),
        ended(Outcome::Failed {
            error: "never".to_owned(),
            exit_code: None,
            signal: Some(9),
            permanent: true,
        }),
        ended(Outcome::TimedOut { error: "too slow".to_owned() }),
        ended(Outcome::Cancelled { reason: "by hand".to_owned() }),
        ended(Outcome::Lost { error: "gone".to_owned() }),
    ];
    states.extend(reasons.map(|reason| RunState::Skipped {
        reason,
        last_scheduled_at: at(99),
        count: 4,
    }));
    for (number, state) in (0_u32..).zip(states) {
        let mut run = run("j", Some(at(i64::from(number))));
        store.commit(vec![insert_run(&run)]).await.unwrap();
        run = Run { state, attempt: 2, due_at: at(1000), ..run };
        store.commit(vec![update_run(&run)]).await.unwrap();
        assert_eq!(Archive::run(&store, &run.id.0).await.unwrap().unwrap(), run);
        assert_eq!(store.load_runs(std::slice::from_ref(&run.id)).await.unwrap(), [run]);
    }
    let subject = run("j", None).id;
    for event in HookEvent::ALL {
        let cause = Cause::Event { event, subject: subject.clone() };
        let hook_run = Run { cause, ..run("j", None) };
        store.commit(vec![insert_run(&hook_run)]).await.unwrap();
        assert_eq!(Archive::run(&store, &hook_run.id.0).await.unwrap().unwrap(), hook_run);
    }
}

async fn the_state_of_a_job_and_whether_it_fails_move_with_its_schedule<S: Store + Archive>(
    store: S,
) {
    let new = job(&json!({"id": "a", "on_failure_once": true}));
    store.commit(vec![insert_job(&new)]).await.unwrap();
    let stored = async || store.load_jobs(std::slice::from_ref(&new.id)).await.unwrap().remove(0);
    assert!(!stored().await.is_failing);
    let state = JobState::Broken { reason: "no".to_owned(), since: None, former: Former::Paused };
    let broken = Job { state, is_failing: true, revision: 2, ..new.clone() };
    store.commit(vec![Change::AdvanceJob(Arc::new(broken.clone()))]).await.unwrap();
    let known = stored().await;
    assert_eq!((known.state, known.is_failing), (broken.state.clone(), true));
    let mended = Job { state: new.state.clone(), is_failing: false, ..broken };
    store.commit(vec![update_job(&mended)]).await.unwrap();
    let known = stored().await;
    assert_eq!((known.state, known.is_failing), (mended.state, false));
}

async fn attempts_of_a_run_are_kept_in_their_order<S: Store + Archive>(store: S) {
    let id = run("a", None).id;
    let attempt = |number: u32| Attempt {
        run_id: id.clone(),
        number,
        node: "there".into(),
        started_at: at(1),
        finished_at: at(2),
        outcome: Outcome::Failed {
            error: format!("for the {number}th time"),
            exit_code: Some(7),
            signal: None,
            permanent: false,
        },
        cost: Cost { cpu_micros: Some(1), peak_memory: None },
    };
    let change = |number| Change::InsertAttempt(Arc::new(attempt(number)));
    store.commit(vec![change(2), change(10), change(1)]).await.unwrap();
    assert_eq!(store.attempts(&id.0).await.unwrap(), [attempt(1), attempt(2), attempt(10)]);
    assert!(is_conflict(&store.commit(vec![change(2)]).await), "an attempt is one row");
    assert_eq!(store.attempts("nothing").await.unwrap(), []);
}

async fn a_write_on_an_old_revision_changes_nothing_at_all<S: Store + Archive>(store: S) {
    let first = job(&json!({"id": "a"}));
    store.commit(vec![insert_job(&first)]).await.unwrap();
    let read = store.load_jobs(std::slice::from_ref(&first.id)).await.unwrap().remove(0);
    let renamed = Job { name: "renamed".to_owned(), ..read.clone() };
    store.commit(vec![update_job(&renamed)]).await.unwrap();
    let stale = Job { name: "stale".to_owned(), ..read };
    let other = job(&json!({"id": "b"}));
    assert!(is_conflict(&store.commit(vec![insert_job(&other), update_job(&stale)]).await));
    let now = store.load_jobs(&[first.id, other.id]).await.unwrap();
    assert_eq!(now.len(), 1, "the other write of the transaction was undone");
    assert_eq!((now[0].name.as_str(), now[0].revision), ("renamed", 2));
}

async fn an_id_and_an_occurrence_are_taken_once<S: Store + Archive>(store: S) {
    let job = job(&json!({"id": "a"}));
    store.commit(vec![insert_job(&job)]).await.unwrap();
    assert!(is_conflict(&store.commit(vec![insert_job(&job)]).await));
    store.commit(vec![insert_run(&run("a", Some(at(5))))]).await.unwrap();
    assert!(
        is_conflict(&store.commit(vec![insert_run(&run("a", Some(at(5))))]).await),
        "the occurrence has its row"
    );
    store
        .commit(vec![insert_run(&run("a", Some(at(6)))), insert_run(&run("b", Some(at(5))))])
        .await
        .unwrap();
    let next = Run { anchor: at(1), ..run("a", Some(at(5))) };
    store.commit(vec![insert_run(&next)]).await.unwrap();
    for _ in 0..2 {
        let manual = Run { cause: Cause::Manual, ..run("a", None) };
        store.commit(vec![insert_run(&manual)]).await.unwrap();
    }
    assert!(is_conflict(&store.commit(vec![delete_job(&job.id, 2)]).await), "it is of revision 1");
    store.commit(vec![delete_job(&job.id, 1)]).await.unwrap();
    assert!(is_conflict(&store.commit(vec![delete_job(&job.id, 1)]).await), "it is gone");
}

async fn due_jobs_are_claimed_in_order_and_only_from_the_named_pools<S: Store + Archive>(store: S) {
    let due_job = |id: &str, seconds: i64, executor: &str| {
        let next = Due { scheduled_at: at(seconds), due_at: at(seconds) };
        Job {
            state: JobState::Active { next },
            executor: executor.to_owned(),
            ..job(&json!({"id": id}))
        }
    };
    let paused = Due { scheduled_at: at(1), due_at: at(1) };
    let changes = [
        insert_job(&due_job("late", 30, "default")),
        insert_job(&due_job("early", 10, "default")),
        insert_job(&due_job("elsewhere", 5, "other")),
        insert_job(&due_job("now", 40, "default")),
        insert_job(&due_job("future", 41, "default")),
        insert_job(&Job {
            state: JobState::Paused { next: paused },
            ..job(&json!({"id": "paused"}))
        }),
        insert_job(&Job { state: JobState::Finished, ..job(&json!({"id": "finished"})) }),
    ];
    store.commit(changes.to_vec()).await.unwrap();
    let ids = |jobs: Vec<Job>| jobs.iter().map(|job| job.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(due(&store, at(40), 10).await), ["early", "late", "now"]);
    assert_eq!(ids(due(&store, at(40), 2).await), ["early", "late"]);
    assert!(due(&store, at(9), 10).await.is_empty());
}

async fn a_review_finds_jobs_that_are_declared_broken_or_without_a_pool<S: Store + Archive>(
    store: S,
) {
    let broken = JobState::Broken { reason: "x".to_owned(), since: None, former: Former::Active };
    let declared = |id: &str, source: Option<&str>| Job {
        origin: Origin::File,
        source: source.map(Into::into),
        ..job(&json!({"id": id}))
    };
    let changes = [
        insert_job(&job(&json!({"id": "fine"}))),
        insert_job(&declared("declared", Some("/etc/punctual/Jobs é.toml"))),
        insert_job(&declared("elsewhere", None)),
        insert_job(&Job { state: broken, ..job(&json!({"id": "broken"})) }),
        insert_job(&Job { executor: "gone".to_owned(), ..job(&json!({"id": "homeless"})) }),
    ];
    store.commit(changes.to_vec()).await.unwrap();
    let seen = |page: &[ReviewedJob]| {
        let seen = page.iter().map(|job| {
            (job.id.to_string(), job.is_declared, job.source.clone().unwrap_or_default())
        });
        seen.collect::<Vec<_>>()
    };
    let row = |id: &str, is_declared, source: &str| (id.to_owned(), is_declared, source.to_owned());
    let page = store.jobs_to_review(&pools(), "", 1).await.unwrap();
    assert_eq!(seen(&page), [row("broken", false, "")]);
    let page = store.jobs_to_review(&pools(), "broken", 10).await.unwrap();
    let rest = [
        row("declared", true, "/etc/punctual/Jobs é.toml"),
        row("elsewhere", true, ""),
        row("homeless", false, ""),
    ];
    assert_eq!(seen(&page), rest);
    let kept = store.job("declared").await.unwrap().unwrap();
    assert_eq!(kept.source.as_deref(), Some("/etc/punctual/Jobs é.toml"));
    // A job of the file that was never in order says itself what is wrong, not that it cannot be read.
    let id = JobId::parse("jobs[3]").unwrap();
    let new = Job { revision: 1, ..Job::undefined(id, "no id".to_owned(), at(0)) };
    store.commit(vec![Change::InsertJob(Arc::new(new.clone()))]).await.unwrap();
    let found = store.job("jobs[3]").await.unwrap().unwrap();
    assert_eq!((&found.state, found.unreadable), (&new.state, None));
}

async fn runs_in_flight_are_found_the_oldest_first<S: Store + Archive>(store: S) {
    let first = run("a", Some(at(1)));
    let mut second = run("a", Some(at(2)));
    second.start(at(3));
    let mut third = run("a", Some(at(3)));
    third.skip(at(20), SkipReason::Missed);
    store.commit(vec![insert_run(&second), insert_run(&third), insert_run(&first)]).await.unwrap();
    assert_eq!(in_flight(&store).await, [first, second]);
}

async fn large_rows_end_a_page_and_a_claim_before_their_limit<S: Store + Archive>(store: S) {
    let large = "x".repeat(250_000);
    let count = CLAIM_BYTES / large.len() + 3;
    for number in 0..count {
        let task = json!({"type": "builtin", "name": "noop", "args": {"text": large}});
        let job = job(&json!({"id": format!("job-{number:03}"), "task": task}));
        store.commit(vec![insert_job(&job)]).await.unwrap();
    }
    let bytes = |jobs: &[Job]| jobs.iter().map(|job| job.bytes).sum::<usize>();
    let due = due(&store, at(10), 1000).await;
    assert!((CLAIM_BYTES..CLAIM_BYTES + 300_000).contains(&bytes(&due)) && due.len() < count);
    // From page to page, every job comes once.
    let mut found = Vec::new();
    let mut filter = JobFilter { limit: 1000, ..JobFilter::default() };
    loop {
        let page = store.jobs(&filter).await.unwrap();
        assert!(bytes(&page.rows) < PAGE_BYTES + 300_000);
        found.extend(page.rows.iter().map(|job| job.id.to_string()));
        filter.after = found.last().map(|id| JobPosition { due_at: None, id: id.clone() });
        if !page.is_cut {
            break;
        }
    }
    let all: Vec<String> = (0..count).map(|number| format!("job-{number:03}")).collect();
    assert_eq!(found, all);

    let result = Some(json!("x".repeat(PAGE_BYTES / 4)));
    for second in 0..6 {
        let mut run = run("job-000", Some(at(second)));
        let outcome = Outcome::Succeeded { result: result.clone(), exit_code: None };
        run.end(at(second), at(second), outcome, Cost::default());
        store.commit(vec![insert_run(&run)]).await.unwrap();
    }
    let page = store.runs(&RunFilter { limit: 10, ..RunFilter::default() }).await.unwrap();
    assert_eq!((page.rows.len(), page.is_cut), (4, true));
    let after = page.rows.last().map(|run| run.id.to_string());
    let rest = store.runs(&RunFilter { after, limit: 10, ..RunFilter::default() }).await.unwrap();
    assert_eq!((rest.rows.len(), rest.is_cut), (2, false));
}

fn output(text: &str) -> Output {
    let line = Line { at: at(1), stream: Stream::Stderr, text: text.to_owned(), is_open: false };
    Output { head: [line].into_iter().collect(), cut: 3, bytes: 70_000, ..Output::default() }
}

fn put_output(run_id: &RunId, attempt: u32, text: &str) -> Change {
    let output = Arc::new(output(text));
    Change::PutOutput { run_id: run_id.clone(), attempt, output }
}

async fn an_output_is_replaced<S: Store + Archive>(store: S) {
    let id = run("a", None).id;
    for (attempt, text) in [(1, "first"), (2, "another attempt"), (1, "second")] {
        store.commit(vec![put_output(&id, attempt, text)]).await.unwrap();
    }
    assert_eq!(store.output(&id.0, 1).await.unwrap(), Some(output("second")));
    assert_eq!(store.output(&id.0, 2).await.unwrap(), Some(output("another attempt")));
    assert_eq!(store.output("nothing", 1).await.unwrap(), None);
}

async fn an_output_is_saved_only_for_the_node_that_runs_its_attempt<S: Store + Archive>(store: S) {
    let mut run = run("a", None);
    let id = run.id.clone();
    let save = async |attempt: u32, node: &str, text: &str| {
        let (run_id, held_by) = (id.clone(), node.into());
        let output = Arc::new(output(text));
        let change = Change::SavePartialOutput { run_id, attempt, output, held_by };
        store.commit(vec![change]).await.unwrap();
        store.output(&id.0, attempt).await.unwrap()
    };
    store.commit(vec![insert_run(&run)]).await.unwrap();
    assert_eq!(save(1, "here", "not started").await, None);
    run.start(at(1));
    store.commit(vec![update_run(&run)]).await.unwrap();
    assert_eq!(save(1, "here", "first").await, Some(output("first")));
    assert_eq!(save(1, "here", "more").await, Some(output("more")));
    assert_eq!(save(1, "elsewhere", "of another node").await, Some(output("more")));
    assert_eq!(save(2, "here", "of another attempt").await, None);
    run.end(at(1), at(2), Outcome::Lost { error: "gone".to_owned() }, Cost::default());
    store.commit(vec![update_run(&run)]).await.unwrap();
    assert_eq!(save(1, "here", "too late").await, Some(output("more")));
}

async fn a_pause_is_kept_until_it_ends<S: Store + Archive>(store: S) {
    assert_eq!(store.pause().await.unwrap(), None);
    let plain = Pause::new(at(5), PauseTerms::default());
    for pause in [Some(plain), Some(pause(7, 60)), Some(pause(7, 90)), None, None] {
        store.commit(vec![Change::SetPause(pause.clone().map(Arc::new))]).await.unwrap();
        assert_eq!(store.pause().await.unwrap(), pause);
    }
}

/// A pause with an end and all that can be said of it.
fn pause(since: i64, until: i64) -> Pause {
    let (by, reason) = (Some("ada (uid 7)".to_owned()), Some("\"é\", and so on".to_owned()));
    Pause::new(at(since), PauseTerms { until: Some(at(until)), by, reason })
}

async fn a_pause_is_ended_only_if_it_is_the_one_that_is_stored<S: Store + Archive>(store: S) {
    let end = |pause: &Pause| vec![Change::EndPause(Arc::new(pause.clone()))];
    let (first, longer) = (pause(5, 60), pause(5, 90));
    assert!(is_conflict(&store.commit(end(&first)).await), "there is none");
    store.commit(vec![Change::SetPause(Some(Arc::new(longer.clone())))]).await.unwrap();
    let other = insert_job(&job(&json!({"id": "a"})));
    let stale = [end(&first), vec![other]].concat();
    assert!(is_conflict(&store.commit(stale).await), "it was prolonged");
    assert_eq!(store.pause().await.unwrap().as_ref(), Some(&longer));
    assert!(store.job("a").await.unwrap().is_none());
    store.commit(end(&longer)).await.unwrap();
    assert_eq!(store.pause().await.unwrap(), None);
}

async fn a_paused_job_is_claimed_when_its_pause_ends<S: Store + Archive>(store: S) {
    let next = Due { scheduled_at: at(10), due_at: at(10) };
    let paused = |id: &str, pause: Option<Pause>| Job {
        state: JobState::Paused { next },
        pause: pause.map(Arc::new),
        ..job(&json!({"id": id}))
    };
    let endless = Pause::new(at(1), PauseTerms::default());
    let jobs = [
        paused("unsaid", None),
        paused("endless", Some(endless)),
        paused("timed", Some(pause(1, 60))),
    ];
    store.commit(jobs.iter().map(insert_job).collect()).await.unwrap();
    for known in &jobs {
        let read = store.load_jobs(std::slice::from_ref(&known.id)).await.unwrap().remove(0);
        assert_eq!((&read.state, &read.pause), (&known.state, &known.pause));
    }
    assert!(due(&store, at(59), 10).await.is_empty());
    let claimed = due(&store, at(60), 10).await;
    assert_eq!(claimed.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), ["timed"]);
    // A pause outlives a fault of its job, but a broken job is not looked at.
    let state = jobs[2].state.broken("no".to_owned());
    let broken = Job { state, revision: 1, ..jobs[2].clone() };
    store.commit(vec![update_job(&broken)]).await.unwrap();
    assert!(due(&store, at(60), 10).await.is_empty());
    let read = store.load_jobs(std::slice::from_ref(&broken.id)).await.unwrap().remove(0);
    assert_eq!((&read.state, &read.pause), (&broken.state, &broken.pause));
}

async fn many_changes_are_written_all_or_none<S: Store + Archive>(store: S) {
    let jobs: Vec<Job> =
        (0..150).map(|number| job(&json!({"id": format!("j{number:03}")}))).collect();
    let mut changes: Vec<Change> = jobs.iter().map(insert_job).collect();
    let runs: Vec<Run> = jobs.iter().map(|job| run(job.id.as_str(), Some(at(10)))).collect();
    changes.extend(runs.iter().map(insert_run));
    changes.extend(runs.iter().map(|run| put_output(&run.id, 1, &run.id.0)));
    store.commit(changes.clone()).await.unwrap();
    let renamed = |job: &Job, revision| Job { name: "new".to_owned(), revision, ..job.clone() };
    let mut updates: Vec<Change> = jobs.iter().map(|job| update_job(&renamed(job, 1))).collect();
    updates[70] = update_job(&renamed(&jobs[70], 5));
    assert!(is_conflict(&store.commit(updates.clone()).await));
    assert_eq!(store.job("j000").await.unwrap().unwrap().name, "j000", "not even the first");
    updates[70] = update_job(&renamed(&jobs[70], 1));
    updates.extend(runs.iter().map(|run| {
        let mut run = run.clone();
        run.start(at(11));
        update_run(&run)
    }));
    store.commit(updates.clone()).await.unwrap();
    let ids: Vec<_> = jobs.iter().map(|job| job.id.clone()).collect();
    let loaded = store.load_jobs(&ids).await.unwrap();
    assert!(loaded.iter().all(|job| job.name == "new" && job.revision == 2) && loaded.len() == 150);
    let running = in_flight(&store).await;
    assert!(running.iter().all(|run| run.state == RunState::Running { started_at: at(11) }));
    assert_eq!(running.len(), 150);
    for run in &runs {
        assert_eq!(store.output(&run.id.0, 1).await.unwrap(), Some(output(&run.id.0)));
    }
}

async fn of_two_writes_to_a_run_in_one_commit_the_later_counts<S: Store + Archive>(store: S) {
    let mut twice = run("a", Some(at(10)));
    store.commit(vec![insert_job(&job(&json!({"id": "a"}))), insert_run(&twice)]).await.unwrap();
    twice.start(at(11));
    let first = update_run(&twice);
    twice.retry_after_crash(at(12));
    store.commit(vec![first, update_run(&twice)]).await.unwrap();
    assert_eq!(in_flight(&store).await, [twice]);
}

async fn a_conflict_in_writes_of_one_kind_changes_nothing_at_all<S: Store + Archive>(store: S) {
    let jobs: Vec<Job> = (0..4).map(|number| job(&json!({"id": format!("j{number}")}))).collect();
    store.commit(vec![insert_job(&jobs[2])]).await.unwrap();
    let inserts: Vec<Change> = jobs.iter().map(insert_job).collect();
    assert!(is_conflict(&store.commit(inserts.clone()).await));
    assert!(store.job("j0").await.unwrap().is_none());
    store.commit(vec![insert_job(&jobs[0])]).await.unwrap();
    let renamed = |job: &Job, revision| Job { name: "new".to_owned(), revision, ..job.clone() };
    let updates = [renamed(&jobs[0], 1), renamed(&jobs[2], 9)].map(|job| update_job(&job));
    assert!(is_conflict(&store.commit(updates.to_vec()).await));
    assert_eq!(store.job("j0").await.unwrap().unwrap().name, "j0");
    let runs = [Some(at(10)), Some(at(20)), Some(at(10)), None].map(|at| run("j0", at));
    assert!(is_conflict(&store.commit(runs.iter().map(insert_run).collect()).await));
    assert_eq!(in_flight(&store).await, []);
}

async fn a_job_that_is_added_again_is_another_one<S: Store + Archive>(store: S) {
    let old = job(&json!({"id": "a", "name": "old"}));
    let new = Job { created_at: at(5), name: "new".to_owned(), ..old.clone() };
    store.commit(vec![insert_job(&old)]).await.unwrap();
    store.commit(vec![delete_job(&old.id, 1), insert_job(&new)]).await.unwrap();
    let old = Job { revision: 1, ..old };
    let stale =
        [update_job(&old), Change::AdvanceJob(next(&old)), delete_job(&old.id, old.revision)];
    for change in stale {
        assert!(is_conflict(&store.commit(vec![change]).await));
    }
    assert_eq!(store.job("a").await.unwrap().unwrap().name, "new");
    store.commit(vec![update_job(&Job { revision: 1, ..new })]).await.unwrap();
}

async fn runs_of_a_node_that_is_not_known_are_found<S: Store + Archive>(store: S) {
    let mut held = run("a", Some(at(10)));
    held.node = "there".into();
    store.commit(vec![insert_job(&job(&json!({"id": "a"}))), insert_run(&held)]).await.unwrap();
    let gone = async |but| store.runs_in_flight(Holder::Gone { but }).await.unwrap();
    assert_eq!(gone("here").await, std::slice::from_ref(&held), "it is not known");
    assert_eq!(gone("there").await, [], "who asks is not gone");
    let meeting = store.renew_lease("there", at(0), at(1)).await.unwrap();
    // On a store of one node, a name that a crash has left there is no other node.
    let found = gone("here").await;
    assert_eq!(found.is_empty(), store.is_shared(), "now it is known");
    store.remove_nodes(&meeting.nodes).await.unwrap();
    assert_eq!(gone("here").await, [held]);
}
