//! Which rows of the ledger are removed and which are kept, and that jobs fire on time meanwhile.

use std::path::Path;
use std::time::Duration;

use chrono::TimeDelta;
use punctual::client::Client;
use punctual::clock::{Clock, SystemClock, Timestamp};
use punctual::store::sql::SqlStore;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, Row, SqliteConnection};
use support::{Home, PATIENCE, ledger, run_to_end, text};

/// Rows that are far too old.
const OLD_ROWS: i64 = 200_000;
/// How late half of the runs may start, on a machine that has much else to do.
const LATENESS_MAX: TimeDelta = TimeDelta::milliseconds(250);
/// How often the file is looked at.
const PAUSE: Duration = Duration::from_millis(100);

/// Rows of two jobs, a second apart from that instant on, every tenth of which failed, each with an output.
const MAKE_ROWS: &str = "
    with recursive number(n) as (select 0 union all select n + 1 from number where n + 1 < ?),
    made(n, millis) as (select n, ? + n * 1000 from number)
    insert into runs (id, job_id, anchor, cause, state, scheduled_at, occurrences, due_at, attempt, executor, node,
        created_at, started_at, finished_at)
    select printf('%s-%s-7000-8000-%012x', substr(printf('%012x', millis), 1, 8), substr(printf('%012x', millis), 9), n),
        ?, 0, 'schedule', iif(n % 10 = 0, 'failed', 'succeeded'), millis * 1000, 1, millis * 1000, 1, 'default', 'gone',
        millis * 1000, millis * 1000, millis * 1000
    from made";
const MAKE_OUTPUTS: &str = "insert into attempt_outputs (run_id, attempt, kept, bytes)
    select id, 1, '{\"head\":[[1,\"stdout\",\"said\"]],\"cut\":0,\"tail\":[]}', 5 from runs";

/// The store's file, opened while the daemon has it open.
async fn open(home: &Home) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(home.path().join("punctual.db"));
    let options = options.busy_timeout(PATIENCE);
    SqliteConnection::connect_with(&options).await.unwrap()
}

/// Makes rows of a job in a file that no daemon has open.
async fn make_rows(home: &Home, job: &str, count: i64, first: Timestamp) {
    let file: &Path = &home.path().join("punctual.db");
    SqlStore::open_file(file).await.unwrap().close().await.unwrap();
    let mut connection = open(home).await;
    let made = sqlx::query(MAKE_ROWS).bind(count).bind(first.timestamp_millis()).bind(job);
    made.execute(&mut connection).await.unwrap();
    sqlx::query("delete from attempt_outputs").execute(&mut connection).await.unwrap();
    sqlx::query(MAKE_OUTPUTS).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn number(connection: &mut SqliteConnection, query: &'static str) -> i64 {
    sqlx::query(query).fetch_one(connection).await.unwrap().get(0)
}

/// Waits until a number in the store is this.
async fn becomes(home: &Home, query: &'static str, wanted: i64) {
    let (mut connection, begin) = (open(home).await, tokio::time::Instant::now());
    loop {
        let found = number(&mut connection, query).await;
        if found == wanted {
            return;
        }
        assert!(begin.elapsed() < 5 * PATIENCE, "{query}: {found}, not {wanted}");
        tokio::time::sleep(PAUSE).await;
    }
}

fn noop(id: &str, trigger: &Value) -> Value {
    json!({"id": id, "trigger": trigger, "task": {"type": "builtin", "name": "noop"}})
}

fn instant(value: &Value, key: &str) -> Timestamp {
    text(value, key).parse().unwrap()
}

async fn output(client: &Client, run: &Value) -> String {
    text(&client.output(text(run, "id")).await.unwrap(), "output").to_owned()
}

#[tokio::test]
async fn jobs_fire_on_time_while_very_many_old_rows_go() {
    let home = Home::new("[retention]\ninterval_seconds = 1\n");
    make_rows(&home, "old", OLD_ROWS, SystemClock.now() - TimeDelta::days(400)).await;
    let _daemon = home.start();
    let client = home.client();
    client.add(&noop("tick", &json!({"type": "interval", "seconds": 1}))).await.unwrap();
    becomes(&home, "select count(*) from runs where job_id = 'old'", 0).await;
    becomes(&home, "select count(*) from attempt_outputs", 0).await;
    let ticks = ledger(&client, "tick").await;
    assert!(ticks.len() > 2, "{} ticks", ticks.len());
    let started = ticks.iter().filter(|tick| !tick["started_at"].is_null());
    let lateness = started.map(|tick| instant(tick, "started_at") - instant(tick, "due_at"));
    let mut lateness: Vec<TimeDelta> = lateness.collect();
    lateness.sort_unstable();
    // A machine that stands still for a moment delays a few; a removal that holds up the scheduler delays most.
    let median = lateness[lateness.len() / 2];
    assert!(median < LATENESS_MAX, "{lateness:?}");
}

#[tokio::test]
async fn the_newest_stay_errors_for_longer_and_what_has_not_ended_for_ever() {
    let config = "[retention]\ninterval_seconds = 1\nruns_per_job = 5\nerrors_days = 50\n";
    let home = Home::new(config);
    make_rows(&home, "old", 100, SystemClock.now() - TimeDelta::days(40)).await;
    make_rows(&home, "crowded", 100, SystemClock.now() - TimeDelta::days(1)).await;
    let _daemon = home.start();
    let client = home.client();
    becomes(&home, "select count(*) from runs where state = 'succeeded'", 5).await;
    let states = async |job| {
        let rows = ledger(&client, job).await;
        let states = rows.iter().map(|row| text(row, "state").to_owned());
        states.collect::<Vec<_>>()
    };
    assert_eq!(states("old").await, ["failed"; 10], "not old enough");
    let crowded = ledger(&client, "crowded").await;
    let stayed = crowded.iter().filter(|row| text(row, "state") == "succeeded");
    let stayed: Vec<&Value> = stayed.collect();
    assert!(stayed.iter().all(|row| instant(row, "due_at") >= instant(&crowded[5], "due_at")));
    assert_eq!(crowded.len(), 15, "as many errors as there were");
    assert_eq!(output(&client, stayed[0]).await, "said\n");

    // A new limit counts from the next look on, without a restart; a run that goes on is none of those that may go.
    let signal = home.signal("held");
    let script = format!("read -r line < {}; exit $line", signal.path.display());
    let mut held = noop("crowded", &json!({"type": "date", "run_date": "2100-01-01"}));
    held["task"] = json!({"type": "command", "argv": ["/bin/sh", "-c", script]});
    client.add(&held).await.unwrap();
    let running = client.run("crowded").await.unwrap();
    home.write_config(&config.replace("5\n", "1\n").replace("50", "30"));
    home.ok(&["reload"]);
    becomes(&home, "select count(*) from runs where job_id = 'old'", 0).await;
    becomes(&home, "select count(*) from runs where state = 'succeeded'", 1).await;
    std::fs::write(&signal.path, "0\n").unwrap();
    let ended = support::ended(&client, text(&running, "id")).await;
    assert_eq!(text(&ended, "state"), "succeeded");
    becomes(&home, "select count(*) from runs where state = 'succeeded'", 1).await;
    let left = ledger(&client, "crowded").await;
    assert_eq!((text(&left[0], "id"), left.len()), (text(&running, "id"), 11));
}

#[tokio::test]
async fn outputs_go_before_their_runs_where_that_is_asked_for() {
    let home = Home::new("[retention]\ninterval_seconds = 1\noutput_days = 7\n");
    make_rows(&home, "old", 10, SystemClock.now() - TimeDelta::days(8)).await;
    let _daemon = home.start();
    let client = home.client();
    let mut said = noop("new", &json!({"type": "date", "run_date": "2100-01-01"}));
    said["task"] = json!({"type": "command", "argv": ["/bin/echo", "said"]});
    client.add(&said).await.unwrap();
    let run = run_to_end(&client, "new").await;
    becomes(&home, "select count(*) from attempt_outputs", 1).await;
    assert_eq!(ledger(&client, "old").await.len(), 10);
    assert_eq!(output(&client, &ledger(&client, "old").await[0]).await, "");
    assert_eq!(output(&client, &run).await, "said\n");
}

#[tokio::test]
async fn the_history_of_all_jobs_has_a_budget_of_rows_and_of_bytes() {
    let home = Home::new("[retention]\ninterval_seconds = 1\nmax_runs = 30\n");
    make_rows(&home, "first", 100, SystemClock.now() - TimeDelta::days(2)).await;
    make_rows(&home, "second", 20, SystemClock.now() - TimeDelta::days(1)).await;
    let _daemon = home.start();
    becomes(&home, "select count(*) from runs", 30).await;
    becomes(&home, "select count(*) from runs where job_id = 'second'", 20).await;
    becomes(&home, "select count(*) from attempt_outputs", 30).await;
    let client = home.client();
    let oldest = &ledger(&client, "first").await[0];
    // A megabyte is enough for thousands of these rows, and not for two that are this large.
    let mut connection = open(&home).await;
    let large = "update runs set error = hex(zeroblob(300000)) where job_id = 'second' and id in (select id from runs
        where job_id = 'second' order by id desc limit 2)";
    sqlx::query(large).execute(&mut connection).await.unwrap();
    home.write_config("[retention]\ninterval_seconds = 1\nmax_bytes = 1048576\n");
    home.ok(&["reload"]);
    becomes(&home, "select count(*) from runs", 1).await;
    assert!(ledger(&client, "first").await.is_empty(), "{oldest}");
}

#[tokio::test]
async fn finished_jobs_go_when_their_time_has_passed_or_too_many_are_kept() {
    let home = Home::new("[retention]\ninterval_seconds = 1\nmax_finished_jobs = 3\n");
    let _daemon = home.start();
    let client = home.client();
    let now = json!({"type": "date", "run_date": "2020-01-01"});
    for number in 0..10 {
        client.add(&noop(&format!("once-{number}"), &now)).await.unwrap();
    }
    let mut kept = noop("kept", &now);
    kept["on_finish"] = json!("keep");
    client.add(&kept).await.unwrap();
    let mut removed = noop("removed", &now);
    removed["on_finish"] = json!("remove");
    client.add(&removed).await.unwrap();
    client.add(&noop("later", &json!({"type": "date", "run_date": "2100-01-01"}))).await.unwrap();
    becomes(&home, "select count(*) from jobs where id = 'removed'", 0).await;
    becomes(&home, "select count(*) from jobs where state = 'finished'", 3).await;
    assert_eq!(ledger(&client, "once-0").await.len(), 1, "its run stays");
    home.write_config("[retention]\ninterval_seconds = 1\nfinished_jobs_seconds = 1\n");
    home.ok(&["reload"]);
    becomes(&home, "select count(*) from jobs where state = 'finished'", 1).await;
    becomes(&home, "select count(*) from jobs where id in ('kept', 'later')", 2).await;
    // The id of a job that is gone, or that is finished, is free.
    client.add(&noop("once-0", &now)).await.unwrap();
    client.add(&noop("kept", &now)).await.unwrap();
    assert_eq!(client.job("later").await.unwrap()["state"], "active");
}

#[tokio::test]
async fn skipped_rows_and_runs_of_hooks_never_push_out_the_runs_of_a_job() {
    let home = Home::new(
        "[retention]\ninterval_seconds = 1\nruns_per_job = 2\nhooks_per_job = 1\nskipped_per_job = 1\n",
    );
    let _daemon = home.start();
    let client = home.client();
    let mut job = noop("busy", &json!({"type": "date", "run_date": "2100-01-01"}));
    job["task"] = json!({"type": "command", "argv": ["/bin/sh", "-c", "echo important; exit 1"]});
    job["on_failure"] = json!({"type": "builtin", "name": "noop"});
    client.add(&job).await.unwrap();
    let failure = run_to_end(&client, "busy").await;
    job["task"] = json!({"type": "command", "argv": ["/bin/echo", "important"]});
    job["on_success"] = json!({"type": "builtin", "name": "noop"});
    job["replace_existing"] = true.into();
    client.add(&job).await.unwrap();
    let success = run_to_end(&client, "busy").await;
    // From here on only cancelled runs and skipped rows are added.
    let ids = "'busy'";
    let mut connection = open(&home).await;
    for number in 0..20 {
        let (state, id) = if number % 2 == 0 { ("skipped", "f1") } else { ("cancelled", "f2") };
        let row = format!(
            "insert into runs (id, job_id, anchor, cause, state, reason, scheduled_at, last_scheduled_at, occurrences, \
             due_at, attempt, executor, node, created_at) values ('{id}-{number:02}', {ids}, 0, 'schedule', '{state}', \
             'overlap', {number}, {number}, 1, {number}, 1, 'default', 'gone', {})",
            SystemClock.now().timestamp_micros()
        );
        sqlx::query(sqlx::AssertSqlSafe(row)).execute(&mut connection).await.unwrap();
    }
    becomes(&home, "select count(*) from runs where state = 'skipped'", 1).await;
    becomes(&home, "select count(*) from runs where state = 'cancelled'", 2).await;
    becomes(&home, "select count(*) from runs where event is not null", 1).await;
    for run in [success, failure] {
        assert_eq!(output(&client, &run).await, "important\n", "{run}");
    }
}
