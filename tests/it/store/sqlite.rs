//! What only a store in a file has: rows that someone edited by hand, a lock, and a second opening.

use std::path::Path;
use std::sync::Arc;

use punctual::clock::Timestamp;
use punctual::filter::{JobFilter, Prunable, RunFilter};
use punctual::job::{Due, Job, JobId, JobState, Overlap, PauseTerms};
use punctual::output::Output;
use punctual::run::{Attempt, Cause, Cost, Outcome, Run, RunId, RunState, SkipReason};
use punctual::scheduler::request::{PendingRequest, Request};
use punctual::scheduler::{NodeIdentity, Scheduler};
use punctual::store::sql::SqlStore;
use punctual::store::{Archive, Change, Claim, Store};
use serde_json::json;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use support::executor::{FakeExecutor, Unused};
use support::jobs::{self, at};
use tokio::sync::oneshot;

fn job(id: &str) -> Job {
    jobs::job(&json!({
        "id": id,
        "trigger": {"type": "interval", "minutes": 1, "jitter": 50},
        "task": {"type": "command", "argv": ["true"]},
    }))
}

fn insert(job: Job) -> Change {
    Change::InsertJob(Arc::new(Job { revision: 1, ..job }))
}

/// A statement by someone else, while the daemon has the file open.
async fn by_hand(file: &Path, sql: &str) {
    let options = SqliteConnectOptions::new().filename(file);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let done = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
    connection.close().await.unwrap();
}

/// A job whose row was edited is broken for a reason, and keeps what it was given.
async fn check_edited(sql: &'static str, reason: &str, key: &str, kept: serde_json::Value) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let store = SqlStore::open_file(&file).await.unwrap();
    store.commit(["a", "b"].map(|id| insert(job(id))).to_vec()).await.unwrap();
    by_hand(&file, sql).await;
    let executors = ["default".to_owned()];
    assert!(store.jobs_to_review(&executors, "", 9).await.unwrap().is_empty());
    let broken = store.job("a").await.unwrap().unwrap();
    let JobState::Broken { reason: said, .. } = &broken.state else { unreachable!("{broken:?}") };
    assert!(said.contains(reason), "{said}");
    assert_eq!(broken.to_value().get(key), Some(&kept));
    // Written back and read again it is still the same.
    let next = Job { revision: broken.revision + 1, ..broken.clone() };
    store.commit(vec![Change::UpdateJob(Arc::new(next))]).await.unwrap();
    let again = store.job("a").await.unwrap().unwrap();
    assert_eq!((again.definition(), &again.state), (broken.definition(), &broken.state));
    let until = broken.anchor + chrono::TimeDelta::days(1);
    let claim = Claim { node: "here", until, executors: &executors, limit: 9, live: &[] };
    let due = store.claim_jobs(claim).await.unwrap();
    assert_eq!(due.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(store.jobs_to_review(&executors, "", 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_row_that_cannot_be_understood_is_broken_and_kept() {
    let check = check_edited;
    let sql = "update jobs set trigger_spec = 'no {json' where id = 'a'";
    check(sql, "trigger", "trigger", json!("no {json")).await;
    let sql = r#"update jobs set trigger_spec = '{"type": "moon"}' where id = 'a'"#;
    check(sql, "moon", "trigger", json!({"type": "moon"})).await;
    let sql = r#"update jobs set task = '{"type": "dance"}' where id = 'a'"#;
    check(sql, "dance", "task", json!({"type": "dance"})).await;
    let sql = "update jobs set scheduled_at = null where id = 'a'";
    check(sql, "active", "id", json!("a")).await;
}

/// A scheduler that looks at the jobs and runs nothing.
fn scheduler(store: &SqlStore) -> Scheduler<SqlStore, FakeExecutor<Unused>> {
    let lease = chrono::TimeDelta::seconds(10);
    let identity = NodeIdentity { node: "node".into(), started_at: at(0), seed: 1, lease };
    Scheduler::new(store.clone(), FakeExecutor(Unused), jobs::rules(1), identity)
}

async fn ask(
    scheduler: &mut Scheduler<SqlStore, FakeExecutor<Unused>>,
    now: Timestamp,
    request: Request,
) {
    let (reply, mut answer) = oneshot::channel();
    scheduler.tick(now, vec![PendingRequest::new(request, reply)], Vec::new()).await.unwrap();
    answer.try_recv().unwrap().unwrap();
}

/// A value by hand in a column of a job breaks the job. In a column of its definition it stays there until the job is
/// defined again; its place in the schedule is found again by the next start or reload.
async fn check_damaged(column: &str, value: &str, shown: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let store = SqlStore::open_file(&file).await.unwrap();
    store.commit(vec![insert(job("a"))]).await.unwrap();
    by_hand(&file, &format!("update jobs set {column} = {value} where id = 'a'")).await;
    let reason = format!("the store's column {column} is not understood: {shown}");
    let is_broken = async |when: &str| {
        let found = store.job("a").await.unwrap().unwrap();
        let JobState::Broken { reason: said, .. } = &found.state else { unreachable!("{found:?}") };
        assert!(said.replace('"', "").starts_with(&reason), "{value} {when}: {said}");
    };
    is_broken("as it is read").await;
    let all = store.jobs(&JobFilter { limit: 9, ..JobFilter::default() }).await.unwrap().rows;
    assert_eq!(all.len(), 1);
    let mut scheduler = scheduler(&store);
    let due = at(0) + chrono::TimeDelta::minutes(3);
    scheduler.tick(due, Vec::new(), Vec::new()).await.unwrap();
    is_broken("after it was due").await;
    let reviewed = Request::Review(vec![JobId::parse("a").unwrap()]);
    ask(&mut scheduler, due, reviewed).await;
    // A job that is due was written when it was found broken, with all columns of its schedule.
    let schedule = ["former_state", "scheduled_at", "run_count", "failing", "updated_at"];
    if schedule.contains(&column) {
        assert_eq!(store.job("a").await.unwrap().unwrap().state.word(), "active", "{column}");
        return;
    }
    is_broken("after a reload").await;
    by_hand(&file, &format!("update jobs set {column} = {column} where {column} = {value}")).await;
    ask(&mut scheduler, due, Request::Remove(JobId::parse("a").unwrap())).await;
    assert!(store.job("a").await.unwrap().is_none());
}

#[tokio::test]
async fn a_job_with_an_unknown_word_or_number_is_broken_and_not_given_a_default() {
    for (column, value) in [
        ("requester", "-1"),
        ("requester", "'root'"),
        ("run_count", "-7"),
        ("failing", "7"),
        ("failing", "'perhaps'"),
        ("former_state", "'asleep'"),
        ("next_run_time", "'soon'"),
        ("tags", "'no {json'"),
        ("origin", "'elsewhere'"),
        ("anchor", "9223372036854775807"),
        ("scheduled_at", "'soon'"),
        ("updated_at", "'lately'"),
    ] {
        check_damaged(column, value, value.trim_matches('\'')).await;
    }
    for (value, shown) in [
        ("'sometimes'", "sometimes is not a JSON object"),
        ("'[]'", "[] is not a JSON object"),
        (r#"'{"coalesce":"sometimes"}'"#, "coalesce: invalid value: string sometimes"),
        (r#"'{"overlap":"dance"}'"#, "overlap: unknown variant `dance`"),
        (r#"'{"on_crash":"cry"}'"#, "on_crash: unknown variant `cry`"),
        (r#"'{"max_instances":0}'"#, "max_instances: must be at least 1"),
        (r#"'{"max_instances":4294967296}'"#, "max_instances: invalid value: integer `4294967296`"),
        (r#"'{"misfire_grace_time":-1}'"#, "misfire_grace_time: must be above 0"),
        (r#"'{"max_runs":"many"}'"#, "max_runs: invalid type: string many"),
        (r#"'{"tiemout":1}'"#, "tiemout: unknown"),
        ("x'ff'", "\u{fffd}"),
    ] {
        check_damaged("policy", value, shown).await;
    }
}

#[tokio::test]
async fn a_job_that_no_change_can_name_is_shown_and_stops_nothing() {
    for damage in ["created_at = 'once'", "revision = 'first'", "id = x'ff'"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jobs.db");
        let store = SqlStore::open_file(&file).await.unwrap();
        store.commit(["a", "b"].map(|id| insert(job(id))).to_vec()).await.unwrap();
        by_hand(&file, &format!("update jobs set {damage} where id = 'a'")).await;
        let all = store.jobs(&JobFilter { limit: 9, ..JobFilter::default() }).await.unwrap().rows;
        let words: Vec<&str> = all.iter().map(|job| job.state.word()).collect();
        assert!(words.contains(&"active") && words.contains(&"broken"), "{damage}: {words:?}");
        let (until, executors) = (at(0) + chrono::TimeDelta::days(1), ["default".to_owned()]);
        let claim = Claim { node: "here", until, executors: &executors, limit: 9, live: &[] };
        let due = store.claim_jobs(claim).await.unwrap();
        assert_eq!(due.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), ["b"]);
        store.jobs_to_review(&executors, "", 9).await.unwrap();
    }
}

#[tokio::test]
async fn a_correction_of_the_clock_leaves_a_damaged_job_as_it_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let store = SqlStore::open_file(&file).await.unwrap();
    let ahead = at(0) + chrono::TimeDelta::days(4000);
    let next = ahead + chrono::TimeDelta::minutes(1);
    let carried = |id: &str| {
        let state = JobState::Active { next: Due { scheduled_at: next, due_at: next } };
        insert(Job { state, updated_at: ahead, ..job(id) })
    };
    store.commit(vec![carried("a"), carried("b"), Change::RecordTime(ahead)]).await.unwrap();
    by_hand(&file, "update jobs set policy = 'dance' where id = 'a'").await;
    let mut scheduler = scheduler(&store);
    scheduler.recover(at(0), "crashed").await.unwrap();
    for _ in 0..3 {
        scheduler.tick(at(0), Vec::new(), Vec::new()).await.unwrap();
    }
    let moved = store.job("b").await.unwrap().unwrap();
    assert!(moved.next().unwrap().scheduled_at < ahead, "{moved:?}");
    by_hand(&file, "update jobs set policy = null where id = 'a' and policy = 'dance'").await;
}

/// A ledger of one job with this many runs, of which every fourth has failed.
async fn fill_ledger(file: &Path, runs: u32) {
    let options = SqliteConnectOptions::new().filename(file);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let sql = format!(
        "with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < {runs}) \
         insert into runs (id, job_id, anchor, cause, state, scheduled_at, occurrences, due_at, attempt, executor, \
         node, created_at, started_at, finished_at) \
         select printf('run-%08d', n), 'a', 0, 'schedule', iif(n % 4 = 0, 'failed', 'succeeded'), n, 1, n, 1, \
         'default', 'node', n, n, n from numbers"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn old_failures_of_a_job_with_many_runs_are_found_soon() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let store = SqlStore::open_file(&file).await.unwrap();
    store.commit(vec![insert(job("a"))]).await.unwrap();
    fill_ledger(&file, 100_000).await;
    // Half of the runs are older than these failures, and are kept.
    let (kind, before) = (punctual::filter::RetentionClass::Errors, at(0));
    let after = "run-00050000";
    let which = Prunable::Ended { ids_tell_time: false, kind, before, after };
    let found = store.prunable(which, 1000);
    let found = tokio::time::timeout(std::time::Duration::from_secs(10), found).await;
    let found = found.expect("a page is found within seconds").unwrap();
    assert_eq!((found.len(), &*found[0].0), (1000, "run-00050004"));
    let which = Prunable::Ended { ids_tell_time: false, kind, before, after: "run-00099990" };
    let found = store.prunable(which, 1000).await.unwrap();
    let found: Vec<&str> = found.iter().map(|run| &*run.0).collect();
    assert_eq!(found, ["run-00099992", "run-00099996"], "the last failure is kept");
}

fn run(number: u32, state: RunState) -> Change {
    Change::InsertRun(Arc::new(Run {
        id: RunId(format!("run-{number}").into()),
        job_id: JobId::parse("a").unwrap(),
        anchor: at(0),
        cause: Cause::Manual,
        scheduled_at: None,
        due_at: at(0),
        attempt: 1,
        crashes: 0,
        executor: "default".to_owned(),
        node: "gone".into(),
        created_at: at(0),
        state,
    }))
}

#[tokio::test]
async fn a_run_whose_row_is_damaged_is_lost_and_stops_neither_lists_nor_the_start() {
    let ended = RunState::Ended {
        started_at: at(0),
        finished_at: at(0),
        outcome: Outcome::Succeeded { result: None, exit_code: Some(0) },
        cost: Cost::default(),
    };
    let running = RunState::Running { started_at: at(0) };
    for (column, value, only_ends) in [
        ("due_at", "'soon'", false),
        ("attempt", "-1", false),
        ("anchor", "'once'", false),
        ("event", "'party'", false),
        ("created_at", "9223372036854775807", false),
        ("crashes", "-1", false),
        ("scheduled_at", "'once'", true),
        ("started_at", "'early'", false),
        ("occurrences", "'some'", true),
        ("last_scheduled_at", "'before'", true),
        ("by_signal", "-99999999999", true),
        ("peak_memory", "-1", true),
        ("exit_code", "99999999999", true),
        ("finished_at", "'late'", true),
        ("cpu_micros", "-1", true),
        ("reason", "'because'", true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jobs.db");
        let store = SqlStore::open_file(&file).await.unwrap();
        let states = [ended.clone(), ended.clone(), RunState::Pending, running.clone()];
        let runs = (1..).zip(states).map(|(number, state)| run(number, state));
        store.commit([insert(job("a"))].into_iter().chain(runs).collect()).await.unwrap();
        let damaged = if only_ends { vec![2] } else { vec![2, 3, 4] };
        for number in &damaged {
            let sql = format!("update runs set {column} = {value} where id = 'run-{number}'");
            by_hand(&file, &sql).await;
        }
        scheduler(&store).recover(at(0), "the daemon died").await.unwrap();
        let filter = RunFilter { limit: 9, ..RunFilter::default() };
        let mut found = store.runs(&filter).await.unwrap().rows;
        found.sort_by_key(|run| run.id.clone());
        let words: Vec<&str> = found.iter().map(|run| run.state.word()).collect();
        let rest = if only_ends { ["pending", "pending"] } else { ["lost", "lost"] };
        assert_eq!(words, [&["succeeded", "lost"][..], &rest].concat(), "{column}");
        let fault =
            format!("the store's column {column} is not understood: {}", value.trim_matches('\''));
        for run in found.iter().filter(|run| run.state.word() == "lost") {
            let error = run.to_value()["error"].as_str().unwrap().replace('"', "");
            assert_eq!(error, fault);
        }
    }
}

#[tokio::test]
async fn an_interrupted_run_is_not_repeated_when_its_job_cannot_be_read() {
    for (policy, word) in [("'dance'", "lost"), ("null", "pending")] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jobs.db");
        let store = SqlStore::open_file(&file).await.unwrap();
        let job = Job { anchor: at(0), ..job("a") };
        let running = run(1, RunState::Running { started_at: at(0) });
        store.commit(vec![insert(job), running]).await.unwrap();
        by_hand(&file, &format!("update jobs set policy = {policy}")).await;
        scheduler(&store).recover(at(0), "the daemon died").await.unwrap();
        assert_eq!(store.run("run-1").await.unwrap().unwrap().state.word(), word, "{policy}");
    }
}

#[tokio::test]
async fn an_attempt_or_an_output_whose_row_is_damaged_names_its_column_or_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let store = SqlStore::open_file(&file).await.unwrap();
    let run_id = RunId("run-1".into());
    let attempt = |number| {
        Change::InsertAttempt(Arc::new(Attempt {
            run_id: run_id.clone(),
            number,
            node: "here".into(),
            started_at: at(0),
            finished_at: at(0),
            outcome: Outcome::TimedOut { error: "it took too long".to_owned() },
            cost: Cost::default(),
        }))
    };
    let put = |attempt| {
        let output = Arc::new(Output::default());
        Change::PutOutput { run_id: run_id.clone(), attempt, output }
    };
    store.commit(vec![attempt(1), attempt(2), put(1), put(2)]).await.unwrap();
    for (column, value) in [
        ("started_at", "'early'"),
        ("finished_at", "9223372036854775807"),
        ("reason", "'because'"),
        ("exit_code", "99999999999"),
        ("by_signal", "'hard'"),
        ("cpu_micros", "-1"),
        ("peak_memory", "'much'"),
    ] {
        let set = |value: &str| {
            format!("update attempts set {column} = {value} where run_id = 'run-1' and attempt = 1")
        };
        by_hand(&file, &set(value)).await;
        let outcomes = store.attempts("run-1").await.unwrap();
        let [first, second] = [&outcomes[0].outcome, &outcomes[1].outcome];
        let Outcome::Lost { error } = first else { unreachable!("{first:?}") };
        assert!(error.contains(&format!("column {column} is not understood")), "{error}");
        assert_eq!(second.word(), "timed_out");
        let whole = if column.ends_with("_at") { "1800000000000000" } else { "null" };
        by_hand(&file, &set(whole)).await;
    }
    for damage in ["bytes = -1", "bytes = 'many'", "kept = 'no {json'"] {
        let sql = format!("update attempt_outputs set {damage} where attempt = 1");
        by_hand(&file, &sql).await;
        let error = store.output("run-1", 1).await.unwrap_err().to_string();
        assert!(error.contains("run-1"), "{damage}: {error}");
        assert!(store.output("run-1", 2).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_last_occurrence_that_cannot_be_read_stops_no_correction_of_the_clock() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let store = SqlStore::open_file(&file).await.unwrap();
    let Change::InsertRun(skipped) = run(1, RunState::Pending) else { unreachable!() };
    let state =
        RunState::Skipped { reason: SkipReason::Missed, last_scheduled_at: at(0), count: 1 };
    let anchor = job("a").anchor;
    let skipped = Run { scheduled_at: Some(at(0)), anchor, state, ..(*skipped).clone() };
    let insert_run = Change::InsertRun(Arc::new(skipped));
    store.commit(vec![insert(job("a")), insert(job("b")), insert_run]).await.unwrap();
    assert_eq!(store.scheduled_jobs(None, 9).await.unwrap().len(), 2);
    by_hand(&file, "update runs set last_scheduled_at = 'before' where id = 'run-1'").await;
    let page = store.scheduled_jobs(None, 9).await.unwrap();
    let readable = page.iter().map(|found| (found.job.id.as_str(), found.job.unreadable.is_none()));
    // The job stays in the page, since an empty page is the last one; nothing changes it.
    assert_eq!(readable.collect::<Vec<_>>(), [("a", false), ("b", true)]);
}

#[tokio::test]
async fn a_run_that_no_change_can_name_and_an_unreadable_pause_do_not_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let store = SqlStore::open_file(&file).await.unwrap();
    let running = || RunState::Running { started_at: at(0) };
    let changes = vec![insert(job("a")), run(1, running()), run(2, running())];
    store.commit(changes).await.unwrap();
    by_hand(&file, "update runs set node = x'ff' where id = 'run-1'").await;
    by_hand(&file, "insert into settings values ('paused_since', 'a while ago')").await;
    let recovered = scheduler(&store).recover(at(0), "the daemon died").await.unwrap();
    assert_eq!((recovered.rerun, recovered.lost), (1, 0));
    assert!(store.pause().await.unwrap().is_some());
    let shown = store.run("run-1").await.unwrap().unwrap();
    assert_eq!(shown.state.word(), "lost");
}

#[tokio::test]
async fn a_file_has_one_daemon_and_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("new").join("jobs.db");
    let store = SqlStore::open_file(&file).await.unwrap();
    let refused = SqlStore::open_file(&file).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
    drop(store);
    SqlStore::open_file(&file).await.unwrap();
}

#[tokio::test]
async fn a_lock_that_a_killed_daemon_has_left_to_a_child_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    SqlStore::open_file(&file).await.unwrap().close().await.unwrap();
    // `flock` locks the file and ends; the shell's other child keeps the descriptor a little longer.
    let script = "exec 9<>\"$1\"; flock 9; sleep 0.7 >/dev/null 2>&1 & exit 0";
    let mut shell = std::process::Command::new("/bin/sh");
    assert!(shell.args(["-c", script, "sh"]).arg(&file).status().unwrap().success());
    let store = SqlStore::open_file(&file).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn another_name_of_a_file_does_not_get_around_its_lock() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let linked = folder.path().join("linked");
    std::os::unix::fs::symlink(folder.path(), &linked).unwrap();
    let symlink = folder.path().join("link.db");
    std::os::unix::fs::symlink("jobs.db", &symlink).unwrap();
    // The store is opened by one name and refused by the others, in either order.
    for (held, others) in
        [(&file, [&symlink, &linked.join("jobs.db")]), (&symlink, [&file, &linked.join("link.db")])]
    {
        let store = SqlStore::open_file(held).await.unwrap();
        store
            .commit(vec![insert(job(&format!("by-{}", held.file_name().unwrap().display())))])
            .await
            .unwrap();
        for other in others {
            let refused = SqlStore::open_file(other).await.unwrap_err().to_string();
            assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        }
        store.close().await.unwrap();
    }
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 3, "a lock leaves nothing beside the database: {names:?}");
}

#[tokio::test]
async fn a_file_with_a_second_hard_link_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [file, second] = ["jobs.db", "second.db"].map(|name| folder.path().join(name));
    SqlStore::open_file(&file).await.unwrap().close().await.unwrap();
    std::fs::hard_link(&file, &second).unwrap();
    for name in [&file, &second] {
        let refused = SqlStore::open_file(name).await.unwrap_err().to_string();
        assert!(refused.contains("hard links"), "{refused}");
    }
    std::fs::remove_file(&second).unwrap();
    SqlStore::open_file(&file).await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_not_a_regular_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [pipe, inside] = ["pipe", "folder"].map(|name| folder.path().join(name));
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
    std::fs::create_dir(&inside).unwrap();
    for path in [&pipe, &inside, Path::new("/dev/null")] {
        let refused = SqlStore::open_file(path).await.unwrap_err().to_string();
        assert!(refused.contains(&path.display().to_string()), "{refused}");
    }
}

/// Moves files of an open store away, and back: nothing is acknowledged meanwhile, and all is there afterwards.
async fn check_moved(names: &[&str], others: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let store = SqlStore::open_file(&path("jobs.db")).await.unwrap();
    store.commit(vec![insert(job("before"))]).await.unwrap();
    assert!(store.job("before").await.unwrap().is_some());
    for name in names {
        std::fs::rename(path(name), path(&format!("{name}.moved"))).unwrap();
    }
    for name in others {
        std::fs::write(path(name), "something else").unwrap();
    }
    for refused in [
        store.commit(vec![insert(job("meanwhile"))]).await.unwrap_err(),
        store.job("before").await.unwrap_err(),
        store.load_jobs(&[JobId::parse("before").unwrap()]).await.unwrap_err(),
    ] {
        let refused = refused.to_string();
        assert!(refused.contains("while the daemon has it open"), "{names:?}: {refused}");
        assert!(refused.starts_with("the store is unavailable"), "{refused}");
    }
    for name in names {
        std::fs::rename(path(&format!("{name}.moved")), path(name)).unwrap();
    }
    store.commit(vec![insert(job("after"))]).await.unwrap();
    for id in ["before", "after"] {
        assert!(store.job(id).await.unwrap().is_some(), "{id}");
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_store_whose_files_were_moved_away_refuses_until_they_are_back() {
    check_moved(&["jobs.db"], &[]).await;
    check_moved(&["jobs.db"], &["jobs.db"]).await;
    check_moved(&["jobs.db-wal"], &["jobs.db-wal"]).await;
    check_moved(&["jobs.db-shm"], &[]).await;
    check_moved(&["jobs.db", "jobs.db-wal", "jobs.db-shm"], &[]).await;
}

#[tokio::test]
async fn a_store_whose_file_was_removed_says_so_when_it_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let store = SqlStore::open_file(&file).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    let lost = store.close().await.unwrap_err().to_string();
    assert!(lost.contains("was removed"), "{lost}");
}

#[tokio::test]
async fn everything_written_is_there_after_the_file_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    for expected in [None, Some(1)] {
        let store = SqlStore::open_file(&file).await.unwrap();
        let found = store.job("a").await.unwrap();
        assert_eq!(found.as_ref().map(|job| job.revision), expected);
        if found.is_none() {
            store.commit(vec![insert(job("a"))]).await.unwrap();
        }
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_pause_does_not_change_when_an_occurrence_is_due() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqlStore::open_file(&folder.path().join("jobs.db")).await.unwrap();
    let given = job("a");
    let next = given.next().unwrap();
    assert!(next.due_at > next.scheduled_at, "there is a jitter");
    store.commit(vec![insert(given.clone())]).await.unwrap();
    let mut scheduler = scheduler(&store);
    // The resume comes before the occurrence, and after it but before its delay has passed.
    for now in [at(0), next.scheduled_at] {
        for request in [
            Request::Pause(given.id.clone(), PauseTerms::default()),
            Request::Resume(given.id.clone()),
        ] {
            ask(&mut scheduler, now, request).await;
        }
        assert_eq!(store.job("a").await.unwrap().unwrap().next(), Some(next), "{now}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    std::fs::write(&file, "this is a letter, and a rather long one at that\n".repeat(100)).unwrap();
    let refused = SqlStore::open_file(&file).await.unwrap_err().to_string();
    assert!(refused.contains("jobs.db") && refused.contains("not a database"), "{refused}");
}

/// A file as the first version of the schema left it.
async fn file_of_the_first_version(file: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let sql = sqlx::SqlStr::from_static(include_str!("../../../migrations/sqlite/0001_init.sql"));
    let first = Migration::new(1, "init".into(), MigrationType::Simple, sql, false);
    Migrator::with_migrations(vec![first]).run(&mut connection).await.unwrap();
    connection
}

#[tokio::test]
async fn a_file_of_the_first_version_is_migrated_and_keeps_its_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let mut old = file_of_the_first_version(&file).await;
    let insert = "insert into jobs values ('a', 'a', 'active', null, '{\"type\":\"interval\",\"seconds\":5,\"timezone\":\"UTC\"}', \
        '{\"type\":\"command\",\"argv\":[\"true\"]}', 'default', null, 'latest', 2, 'rerun', null, 0, '[]', '', 'socket', \
        1800000000000000, 1800000005000000, 1800000005000000, 7, 1800000000000000, 1800000000000000)";
    sqlx::query(insert).execute(&mut old).await.unwrap();
    old.close().await.unwrap();
    let store = SqlStore::open_file(&file).await.unwrap();
    let job = store.job("a").await.unwrap().unwrap();
    assert_eq!((job.revision, job.policy.max_instances, job.policy.overlap), (7, 2, Overlap::Skip));
    assert_eq!(job.next().unwrap().due_at, at(0) + chrono::TimeDelta::seconds(5));
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    SqlStore::open_file(&file).await.unwrap().close().await.unwrap();
    by_hand(
        &file,
        "insert into _sqlx_migrations values (99, 'later', current_timestamp, 1, x'00', 0)",
    )
    .await;
    let refused = SqlStore::open_file(&file).await.unwrap_err().to_string();
    assert!(
        refused.contains("jobs.db") && refused.contains("a newer version of punctual (schema 99"),
        "{refused}"
    );
}
