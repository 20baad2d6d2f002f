//! The content of a database of an earlier version is still there after its migration.

use std::str::FromStr;

use punctual::job::JobState;
use punctual::output::Stream;
use punctual::store::sql::{SqlStore, StoreUrl};
use punctual::store::{Archive, Holder, Store};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection, SqliteConnection};
use support::servers::mariadb::MariaDbServer;
use support::servers::postgres::PostgresServer;

/// The migrations of a version, from the first one on.
fn migrator(texts: &[&'static str]) -> Migrator {
    let migration = |(number, text): (i64, &&'static str)| {
        let sql = sqlx::SqlStr::from_static(text);
        Migration::new(number, "earlier".into(), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations((1..).zip(texts).map(migration).collect())
}

/// The migrations up to the one that puts all options of a job into one column.
const SQLITE: &[&str] = &[
    include_str!("../../../migrations/sqlite/0001_init.sql"),
    include_str!("../../../migrations/sqlite/0002_overlap.sql"),
    include_str!("../../../migrations/sqlite/0003_settings.sql"),
    include_str!("../../../migrations/sqlite/0004_nodes.sql"),
    include_str!("../../../migrations/sqlite/0005_execution.sql"),
    include_str!("../../../migrations/sqlite/0006_finished_jobs.sql"),
    include_str!("../../../migrations/sqlite/0007_crashes.sql"),
    include_str!("../../../migrations/sqlite/0008_sources.sql"),
    include_str!("../../../migrations/sqlite/0009_requester.sql"),
    include_str!("../../../migrations/sqlite/0010_failing.sql"),
];
const POSTGRES: &[&str] = &[
    include_str!("../../../migrations/postgres/0001_init.sql"),
    include_str!("../../../migrations/postgres/0002_execution.sql"),
    include_str!("../../../migrations/postgres/0003_finished_jobs.sql"),
    include_str!("../../../migrations/postgres/0004_crashes.sql"),
    include_str!("../../../migrations/postgres/0005_sources.sql"),
    include_str!("../../../migrations/postgres/0006_requester.sql"),
    include_str!("../../../migrations/postgres/0007_failing.sql"),
];
const MYSQL: &[&str] = &[
    include_str!("../../../migrations/mysql/0001_jobs.sql"),
    include_str!("../../../migrations/mysql/0002_runs.sql"),
    include_str!("../../../migrations/mysql/0003_outputs.sql"),
    include_str!("../../../migrations/mysql/0004_settings.sql"),
    include_str!("../../../migrations/mysql/0005_nodes.sql"),
    include_str!("../../../migrations/mysql/0006_options.sql"),
    include_str!("../../../migrations/mysql/0007_cost.sql"),
    include_str!("../../../migrations/mysql/0008_attempts.sql"),
    include_str!("../../../migrations/mysql/0009_attempt_outputs.sql"),
    include_str!("../../../migrations/mysql/0010_drop_outputs.sql"),
    include_str!("../../../migrations/mysql/0011_finished_jobs.sql"),
    include_str!("../../../migrations/mysql/0012_crashes.sql"),
    include_str!("../../../migrations/mysql/0013_sources.sql"),
    include_str!("../../../migrations/mysql/0014_requester.sql"),
    include_str!("../../../migrations/mysql/0015_failing.sql"),
];

const RUN: &str = "insert into runs (id, job_id, anchor, cause, state, occurrences, due_at, attempt, executor, node, \
    created_at, started_at, finished_at, exit_code, error) values ('run', 'job', 1, 'manual', 'failed', 1, \
    1800000000000000, 2, 'default', 'there', 1800000000000000, 1800000000000000, 1800000007000000, 3, 'exit code 3')";
const WAITING: &str = "insert into runs (id, job_id, anchor, cause, state, occurrences, due_at, attempt, executor, node, \
    created_at) values ('waiting', 'job', 1, 'manual', 'pending', 1, 1800000000000000, 1, 'default', 'there', \
    1800000000000000)";
const OUTPUT: &str = "insert into outputs (run_id, tail, bytes) values ('run', 'said \"é\"
and more
', 70000)";

/// What was there is there: a run that has ended with its output, and one that waits.
async fn is_all_there(place: &str) {
    let store = SqlStore::open(&StoreUrl::parse(place).unwrap()).await.unwrap();
    let run = store.run("run").await.unwrap().unwrap();
    assert_eq!((run.state.word(), run.attempt), ("failed", 2));
    let output = store.output("run", 2).await.unwrap().unwrap();
    assert_eq!((output.text().as_str(), output.bytes), ("said \"é\"\nand more\n", 70_000));
    let line = output.lines().next().unwrap();
    assert_eq!((line.at.timestamp(), line.stream), (1_800_000_007, Stream::Stdout));
    let waiting = store.runs_in_flight(Holder::Node("there")).await.unwrap();
    assert_eq!(waiting.iter().map(|run| &*run.id.0).collect::<Vec<_>>(), ["waiting"]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_file_keeps_its_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let mut old = SqliteConnection::connect_with(&options).await.unwrap();
    migrator(&SQLITE[..4]).run(&mut old).await.unwrap();
    for statement in [RUN, WAITING, OUTPUT] {
        sqlx::query(statement).execute(&mut old).await.unwrap();
    }
    old.close().await.unwrap();
    is_all_there(&format!("sqlite://{}", file.display())).await;
}

#[tokio::test]
async fn a_postgres_database_keeps_its_ledger() {
    let Some(server) = PostgresServer::shared() else { return };
    let url = server.database("earlier");
    let options = sqlx::postgres::PgConnectOptions::from_str(&url).unwrap();
    let mut old = PgConnection::connect_with(&options).await.unwrap();
    migrator(&POSTGRES[..1]).run(&mut old).await.unwrap();
    for statement in [RUN, WAITING, OUTPUT] {
        sqlx::query(statement).execute(&mut old).await.unwrap();
    }
    old.close().await.unwrap();
    is_all_there(&url).await;
}

#[tokio::test]
async fn a_mariadb_database_keeps_its_ledger() {
    let Some(server) = MariaDbServer::shared() else { return };
    let url = server.database("earlier");
    let options = sqlx::mysql::MySqlConnectOptions::from_str(&url).unwrap();
    let mut old = MySqlConnection::connect_with(&options).await.unwrap();
    migrator(&MYSQL[..5]).set_locking(false).run(&mut old).await.unwrap();
    for statement in [RUN, WAITING, OUTPUT] {
        sqlx::query(statement).execute(&mut old).await.unwrap();
    }
    old.close().await.unwrap();
    is_all_there(&url).await;
}

/// A job of an earlier version: its id, its seven columns of options as SQL, and what it is after the migration: its options
/// that differ from their defaults, or what the reason for which it is broken says.
type OldJob = (&'static str, &'static str, Result<&'static str, &'static str>);

const COLUMNS: &str =
    "misfire_grace_time, coalesce_rule, max_instances, overlap, on_crash, max_runs, options";

const OLD_JOBS: &[OldJob] = &[
    ("defaults", "null, 'latest', 1, 'skip', 'rerun', null, null", Ok("{}")),
    (
        "columns",
        "1500000, 'all', 3, 'queue', 'lose', 7, null",
        Ok(
            r#"{"misfire_grace_time":1.5,"coalesce":"all","max_instances":3,"overlap":"queue","on_crash":"lose","max_runs":7}"#,
        ),
    ),
    (
        "both",
        r#"60000000, 'latest', 1, 'skip', 'rerun', null, '{"timeout":90,"retry":{"max_attempts":3,"delay":2,"backoff":1.5,"max_delay":60,"jitter":0.0}}'"#,
        Ok(
            r#"{"misfire_grace_time":60,"timeout":90,"retry":{"max_attempts":3,"delay":2,"backoff":1.5,"max_delay":60,"jitter":0.0}}"#,
        ),
    ),
    (
        "longest grace",
        "3199999999999999, 'latest', 1, 'skip', 'rerun', null, null",
        Ok(r#"{"misfire_grace_time":3199999999.999999}"#),
    ),
    (
        "shortest grace",
        "1, 'latest', 1, 'skip', 'rerun', null, null",
        Ok(r#"{"misfire_grace_time":1e-6}"#),
    ),
    (
        "nulls",
        r#"null, 'all', 1, 'skip', 'rerun', null, '{"timeout":null,"retry":null,"priority":0,"on_failure":null,"heartbeat":null}'"#,
        Ok(r#"{"coalesce":"all"}"#),
    ),
    (
        "hook",
        r#"null, 'latest', 1, 'skip', 'rerun', null, '{"on_success":{"type":"command","argv":["}","\"é"],"env":{"A":null}}}'"#,
        Err("on_success.env"),
    ),
    (
        "braces",
        r#"null, 'latest', 1, 'skip', 'rerun', 2, '{"on_success":{"type":"command","argv":["}","é {"]}}'"#,
        Ok(r#"{"max_runs":2,"on_success":{"type":"command","argv":["}","é {"]}}"#),
    ),
    ("empty object", "null, 'latest', 1, 'skip', 'lose', null, '{}'", Ok(r#"{"on_crash":"lose"}"#)),
    (
        "twice",
        r#"null, 'latest', 2, 'skip', 'rerun', null, '{"coalesce":"all","max_instances":9,"max_runs":5}'"#,
        Ok(r#"{"max_instances":2}"#),
    ),
    ("unknown word", "null, 'latest', 1, 'dance', 'rerun', null, null", Err("dance")),
    (
        "quoted word",
        r#"null, 'la"test', 1, 'skip', 'rerun', null, null"#,
        Err("coalesce: invalid value"),
    ),
    ("capital", "null, 'LATEST', 1, 'skip', 'rerun', null, null", Err("LATEST")),
    (
        "zero",
        "null, 'latest', 0, 'skip', 'rerun', null, null",
        Err("max_instances: must be at least 1"),
    ),
    ("too many", "null, 'latest', 4294967296, 'skip', 'rerun', null, null", Err("4294967296")),
    ("negative", "-5, 'latest', 1, 'skip', 'rerun', null, null", Err("misfire_grace_time")),
    ("no runs", "null, 'latest', 1, 'skip', 'rerun', 0, null", Err("max_runs")),
    (
        "unknown key",
        r#"null, 'latest', 1, 'skip', 'rerun', null, '{"timeuot":90}'"#,
        Err("timeuot"),
    ),
    ("empty text", "null, 'latest', 1, 'skip', 'rerun', null, ''", Err("policy")),
    ("null text", "null, 'latest', 1, 'skip', 'rerun', null, 'null'", Err("policy")),
    ("list", "null, 'latest', 1, 'skip', 'rerun', null, '[]'", Err("policy")),
    ("half", r#"null, 'latest', 1, 'skip', 'rerun', null, '{"timeout":90'"#, Err("policy")),
    (
        "half in braces",
        r#"null, 'latest', 1, 'skip', 'rerun', null, '{"timeout":}'"#,
        Err("policy"),
    ),
];

/// What only a file can hold, since the types of its columns are not checked.
const OLD_JOBS_OF_A_FILE: &[OldJob] = &[
    ("blob", "null, x'ff', 1, 'skip', 'rerun', null, null", Err("X'FF'")),
    ("text", "null, 'latest', 1, 'skip', 'rerun', 'many', null", Err("many")),
    ("fraction", "null, 'latest', 1.5, 'skip', 'rerun', null, null", Err("max_instances")),
    ("text for a time", "'soon', 'latest', 1, 'skip', 'rerun', null, null", Err("soon")),
    ("blob of options", "null, 'latest', 1, 'skip', 'rerun', null, x'ff'", Err("policy")),
    ("spaces", "null, 'latest', 1, 'skip', 'rerun', 2, ' { } '", Ok(r#"{"max_runs":2}"#)),
];

fn insert_old_job((id, options, _): &OldJob) -> String {
    format!(
        r#"insert into jobs (id, name, state, trigger_spec, task, executor, {COLUMNS}, run_count, tags, description,
        origin, anchor, scheduled_at, next_run_time, revision, created_at, updated_at) values ('{id}', '', 'active',
        '{{"type":"interval","minutes":1}}', '{{"type":"builtin","name":"noop"}}', 'default', {options}, 0, '[]', '',
        'socket', 1, 1800000000000000, 1800000000000000, 1, 1, 1)"#
    )
}

async fn options_are_all_there(place: &str, jobs: impl IntoIterator<Item = &OldJob>) {
    let store = SqlStore::open(&StoreUrl::parse(place).unwrap()).await.unwrap();
    for (id, options, expected) in jobs {
        let job = store.job(id).await.unwrap().unwrap();
        match (&job.state, expected) {
            (JobState::Active { .. }, Ok(expected)) => {
                let policy = job.policy.to_stored();
                assert_eq!(policy.as_deref().unwrap_or("{}"), *expected, "{id}: {options}");
            }
            (JobState::Broken { reason, .. }, Err(expected)) => {
                let column = "the store's column policy is not understood: ";
                assert!(reason.starts_with(column) && reason.contains(expected), "{id}: {reason}");
            }
            (state, _) => unreachable!("{id}: {options}: {state:?}, {:?}", job.policy),
        }
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_file_keeps_the_options_of_its_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let mut old = SqliteConnection::connect_with(&options).await.unwrap();
    migrator(SQLITE).run(&mut old).await.unwrap();
    for job in OLD_JOBS.iter().chain(OLD_JOBS_OF_A_FILE) {
        sqlx::query(AssertSqlSafe(insert_old_job(job))).execute(&mut old).await.unwrap();
    }
    old.close().await.unwrap();
    let jobs = OLD_JOBS.iter().chain(OLD_JOBS_OF_A_FILE);
    options_are_all_there(&format!("sqlite://{}", file.display()), jobs).await;
}

#[tokio::test]
async fn a_postgres_database_keeps_the_options_of_its_jobs() {
    let Some(server) = PostgresServer::shared() else { return };
    let url = server.database("options");
    let options = sqlx::postgres::PgConnectOptions::from_str(&url).unwrap();
    let mut old = PgConnection::connect_with(&options).await.unwrap();
    migrator(POSTGRES).run(&mut old).await.unwrap();
    for job in OLD_JOBS {
        sqlx::query(AssertSqlSafe(insert_old_job(job))).execute(&mut old).await.unwrap();
    }
    old.close().await.unwrap();
    options_are_all_there(&url, OLD_JOBS).await;
}

#[tokio::test]
async fn a_mariadb_database_keeps_the_options_of_its_jobs() {
    let Some(server) = MariaDbServer::shared() else { return };
    let url = server.database("options");
    let options = sqlx::mysql::MySqlConnectOptions::from_str(&url).unwrap();
    let mut old = MySqlConnection::connect_with(&options).await.unwrap();
    migrator(MYSQL).set_locking(false).run(&mut old).await.unwrap();
    for job in OLD_JOBS {
        // A backslash in a text counts here.
        sqlx::query(AssertSqlSafe(insert_old_job(job).replace('\\', r"\\")))
            .execute(&mut old)
            .await
            .unwrap();
    }
    old.close().await.unwrap();
    options_are_all_there(&url, OLD_JOBS).await;
}
