//! Lists of jobs and of runs: each condition, each order, page by page.

use punctual::filter::{JobConditions, JobFilter, JobOrder, JobPosition, RunFilter, RunOrder};
use punctual::job::{Due, Former, Job, JobState};
use punctual::run::{Cause, Cost, HookEvent, Outcome, Run, RunId, RunState};
use punctual::store::{Archive, Change, PoolRuns, Store};
use serde_json::json;
use support::jobs::{at, job, run};

use super::{insert_job, insert_run};

/// The ids of a page of jobs.
async fn jobs<S: Archive>(store: &S, filter: JobFilter) -> Vec<String> {
    let page = store.jobs(&JobFilter { limit: 10, ..filter }).await.unwrap();
    page.rows.iter().map(|job| job.id.to_string()).collect()
}

/// The ids of the jobs that meet these conditions, as both kinds of lists find them.
async fn meeting<S: Archive>(store: &S, conditions: JobConditions) -> Vec<String> {
    let ids = store.job_ids(&conditions, "", 10).await.unwrap();
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    assert_eq!(jobs(store, JobFilter { conditions, ..JobFilter::default() }).await, ids);
    ids
}

pub(super) async fn jobs_are_selected_by_every_condition<S: Store + Archive>(store: S) {
    let nested = json!({"triggers": [{"type": "interval", "hours": 1}, {"type": "cron", "hour": 3}], "type": "or"});
    let definitions = [
        json!({"id": "a:1", "tags": ["x", "y z"]}),
        json!({"id": "a:2", "tags": ["x", "y z", "\"q\""], "trigger": nested}),
        json!({"id": "a_3", "tags": ["x"], "trigger": {"hour": 3, "type": "cron"}}),
        json!({"id": "b"}),
        json!({"id": "ä"}),
    ];
    for (number, definition) in definitions.iter().enumerate() {
        let job = job(definition);
        let next = Due { scheduled_at: at(100), due_at: at(100) };
        let former = Former::Active;
        let (state, executor) = match number {
            1 => (JobState::Paused { next }, "default"),
            2 => (JobState::Broken { reason: "no".to_owned(), since: None, former }, "default"),
            3 => (JobState::Finished, "other"),
            _ => (JobState::Active { next }, "default"),
        };
        let job = Job { state, executor: executor.to_owned(), ..job };
        store.commit(vec![insert_job(&job)]).await.unwrap();
    }
    let with = |change: fn(&mut JobConditions)| {
        let mut conditions = JobConditions::default();
        change(&mut conditions);
        conditions
    };
    let cases: [(JobConditions, &[&str]); 16] = [
        (with(|_| ()), &["a:1", "a:2", "a_3", "b", "ä"]),
        (with(|given| given.prefix = Some("a:".to_owned())), &["a:1", "a:2"]),
        (with(|given| given.prefix = Some("%".to_owned())), &[]),
        (with(|given| given.prefix = Some("ä".to_owned())), &["ä"]),
        (with(|given| given.tag = Some("y z".to_owned())), &["a:1", "a:2"]),
        (with(|given| given.tag = Some("y".to_owned())), &[]),
        (with(|given| given.tag = Some("\"q\"".to_owned())), &["a:2"]),
        (with(|given| given.states = vec!["paused"]), &["a:2"]),
        (with(|given| given.states = vec!["broken", "paused"]), &["a:2", "a_3"]),
        (with(|given| given.states = vec!["active", "finished"]), &["a:1", "b", "ä"]),
        (with(|given| given.executor = Some("other".to_owned())), &["b"]),
        (with(|given| given.trigger_type = Some("interval".to_owned())), &["a:1", "b", "ä"]),
        (with(|given| given.trigger_type = Some("or".to_owned())), &["a:2"]),
        (with(|given| given.trigger_type = Some("cron".to_owned())), &["a_3"]),
        (
            with(|given| {
                (given.tag, given.states) = (Some("x".to_owned()), vec!["active", "paused"]);
                given.trigger_type = Some("interval".to_owned());
            }),
            &["a:1"],
        ),
        (
            with(|given| {
                (given.prefix, given.executor) = (Some("a".to_owned()), Some("other".to_owned()));
            }),
            &[],
        ),
    ];
    for (conditions, expected) in cases {
        assert_eq!(meeting(&store, conditions.clone()).await, expected, "{conditions:?}");
    }
    let page = store.job_ids(&JobConditions::default(), "a:2", 2).await.unwrap();
    assert_eq!(page.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a_3", "b"]);
}

pub(super) async fn jobs_are_listed_by_id_and_by_next_run_time<S: Store + Archive>(store: S) {
    for (id, due) in
        [("a", Some(30)), ("b", Some(10)), ("c", Some(20)), ("d", Some(20)), ("e", None)]
    {
        let next = |due| Due { scheduled_at: at(due), due_at: at(due) };
        let state = due.map_or(JobState::Finished, |due| JobState::Active { next: next(due) });
        store.commit(vec![insert_job(&Job { state, ..job(&json!({"id": id})) })]).await.unwrap();
    }
    let position = |due_at: Option<i64>, id: &str| {
        Some(JobPosition { due_at: due_at.map(at), id: id.to_owned() })
    };
    let by_id = JobFilter::default();
    assert_eq!(jobs(&store, by_id.clone()).await, ["a", "b", "c", "d", "e"]);
    let rest = JobFilter { after: position(None, "c"), ..by_id };
    assert_eq!(jobs(&store, rest).await, ["d", "e"]);
    let by_time = JobFilter { order: JobOrder::NextRunTime, ..JobFilter::default() };
    assert_eq!(jobs(&store, by_time.clone()).await, ["b", "c", "d", "a"]);
    let range = JobFilter { since: Some(at(11)), until: Some(at(30)), ..by_time.clone() };
    assert_eq!(jobs(&store, range).await, ["c", "d"], "until is the first instant beyond");
    let rest = JobFilter { after: position(Some(20), "c"), ..by_time.clone() };
    assert_eq!(jobs(&store, rest).await, ["d", "a"]);
    // From page to page, every job comes once, whatever the size of the page.
    for limit in 1..5 {
        let (mut filter, mut found) = (JobFilter { limit, ..by_time.clone() }, Vec::new());
        loop {
            let page = store.jobs(&filter).await.unwrap().rows;
            let Some(last) = page.last() else { break };
            let due_at = last.next().map(|next| next.due_at);
            filter.after = Some(JobPosition { due_at, id: last.id.to_string() });
            found.extend(page.iter().map(|job| job.id.to_string()));
        }
        assert_eq!(found, ["b", "c", "d", "a"], "{limit}");
    }
}

/// Four runs: a waits, b is the hook run of its end, c has failed, and d has succeeded.
async fn four_runs<S: Store>(store: &S) -> [RunId; 4] {
    let ended = |run: Run, outcome| {
        let mut ended = run;
        ended.end(at(50), at(60), outcome, Cost::default());
        ended
    };
    let a = run("a:1", Some(at(1)));
    let cause = Cause::Event { event: HookEvent::Failure, subject: a.id.clone() };
    let b = Run { cause, created_at: at(20), ..run("a:1", None) };
    let failed =
        Outcome::Failed { error: "no".to_owned(), permanent: false, exit_code: None, signal: None };
    let c = Run { created_at: at(30), executor: "other".to_owned(), ..run("a:2", Some(at(2))) };
    let c = ended(c, failed);
    let succeeded = Outcome::Succeeded { result: None, exit_code: None };
    let d = Run { created_at: at(40), ..ended(run("gone", Some(at(3))), succeeded) };
    let tagged = [
        json!({"id": "a:1", "tags": ["x"]}),
        json!({"id": "a:2", "tags": ["y"], "trigger": {"type": "cron", "hour": 3}}),
    ];
    let jobs = tagged.iter().map(|definition| insert_job(&job(definition)));
    let changes: Vec<Change> = jobs.chain([&a, &b, &c, &d].map(insert_run)).collect();
    store.commit(changes).await.unwrap();
    [a, b, c, d].map(|run| run.id)
}

pub(super) async fn runs_are_selected_by_every_condition<S: Store + Archive>(store: S) {
    let [a, b, c, d] = four_runs(&store).await;
    let with = |change: fn(&mut RunFilter)| {
        let mut filter = RunFilter { limit: 10, ..RunFilter::default() };
        change(&mut filter);
        filter
    };
    let cases: [(RunFilter, Vec<&RunId>); 15] = [
        (with(|_| ()), vec![&d, &c, &b, &a]),
        (with(|given| given.job_id = Some("a:1".to_owned())), vec![&b, &a]),
        (with(|given| given.conditions.prefix = Some("a:".to_owned())), vec![&c, &b, &a]),
        (with(|given| given.conditions.prefix = Some("1".to_owned())), vec![]),
        (with(|given| given.conditions.tag = Some("x".to_owned())), vec![&b, &a]),
        (with(|given| given.conditions.trigger_type = Some("cron".to_owned())), vec![&c]),
        (with(|given| given.conditions.executor = Some("other".to_owned())), vec![&c]),
        (with(|given| given.without_hooks = true), vec![&d, &c, &a]),
        (with(|given| given.conditions.states = vec!["pending", "running"]), vec![&b, &a]),
        (with(|given| given.conditions.states = vec!["failed", "lost"]), vec![&c]),
        (with(|given| given.conditions.states = vec!["failed", "succeeded"]), vec![&d, &c]),
        (with(|given| given.conditions.states = vec!["skipped"]), vec![]),
        (with(|given| given.since = Some(at(20))), vec![&d, &c, &b]),
        (with(|given| given.until = Some(at(30))), vec![&b, &a]),
        (
            with(|given| {
                (given.since, given.until) = (Some(at(15)), Some(at(35)));
                (given.conditions.prefix, given.without_hooks) = (Some("a".to_owned()), true);
            }),
            vec![&c],
        ),
    ];
    for (filter, expected) in cases {
        let found = store.runs(&filter).await.unwrap().rows;
        assert_eq!(found.iter().map(|run| &run.id).collect::<Vec<_>>(), expected, "{filter:?}");
    }
}

pub(super) async fn runs_are_listed_in_both_orders<S: Store + Archive>(store: S) {
    let made = four_runs(&store).await;
    for order in RunOrder::ALL {
        let mut expected = made.to_vec();
        if order == RunOrder::Newest {
            expected.reverse();
        }
        for limit in 1..6 {
            let mut filter = RunFilter { order, limit, ..RunFilter::default() };
            let mut found: Vec<RunId> = Vec::new();
            loop {
                let page = store.runs(&filter).await.unwrap().rows;
                let Some(last) = page.last() else { break };
                filter.after = Some(last.id.to_string());
                found.extend(page.iter().map(|run| run.id.clone()));
            }
            assert_eq!(found, expected, "{order:?} {limit}");
        }
    }
}

pub(super) async fn runs_are_found_by_a_part_of_their_id<S: Store + Archive>(store: S) {
    let ids = [
        "01980000-0000-7000-8000-00000000abcd",
        "01980000-0000-7000-8000-0000abcdabcd",
        "abcd0000-0000-7000-8000-000000000001",
    ];
    for (second, id) in (0..).zip(ids) {
        let run = Run { id: RunId(id.into()), ..run("a", Some(at(second))) };
        store.commit(vec![insert_run(&run)]).await.unwrap();
    }
    let cases: [(&str, &[&str]); 7] = [
        ("0198", &ids[..2]),
        ("0000abcd", &ids[..1]),
        ("abcdabcd", &ids[1..2]),
        ("abcd", &ids),
        ("8000-00000000abcd", &ids[..1]),
        ("0001", &ids[2..]),
        ("7000", &[]),
    ];
    for (part, expected) in cases {
        let found = store.run_ids(part, 10).await.unwrap();
        assert_eq!(found.iter().map(|id| &*id.0).collect::<Vec<_>>(), expected, "{part}");
    }
}

pub(super) async fn runs_in_flight_are_counted_by_pool_and_node<S: Store + Archive>(store: S) {
    assert_eq!(store.in_flight().await.unwrap(), []);
    let running = RunState::Running { started_at: at(5) };
    let mut over = run("a", Some(at(9)));
    over.end(at(5), at(6), Outcome::Succeeded { result: None, exit_code: None }, Cost::default());
    let runs = [
        Run { state: running.clone(), ..run("a", Some(at(1))) },
        Run { state: running.clone(), ..run("a", Some(at(2))) },
        run("a", Some(at(3))),
        Run { node: "there".into(), state: running, ..run("a", Some(at(4))) },
        Run { executor: "other".to_owned(), ..run("a", Some(at(5))) },
        over,
    ];
    store.commit(runs.iter().map(insert_run).collect()).await.unwrap();
    let pool = |executor: &str, node: &str, running, waiting| PoolRuns {
        executor: executor.to_owned(),
        node: node.to_owned(),
        running,
        waiting,
    };
    let expected = [
        pool("default", "here", 2, 1),
        pool("default", "there", 1, 0),
        pool("other", "here", 0, 1),
    ];
    assert_eq!(store.in_flight().await.unwrap(), expected);
}
