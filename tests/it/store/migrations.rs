//! The content of a database of an earlier version is still there after its migration.

use std::str::FromStr;

use punctual::output::Stream;
use punctual::store::sql::{SqlStore, StoreUrl};
use punctual::store::{Archive, Holder, Store};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Connection, MySqlConnection, PgConnection, SqliteConnection};
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
    let texts = [
        include_str!("../../../migrations/sqlite/0001_init.sql"),
        include_str!("../../../migrations/sqlite/0002_overlap.sql"),
        include_str!("../../../migrations/sqlite/0003_settings.sql"),
        include_str!("../../../migrations/sqlite/0004_nodes.sql"),
    ];
    migrator(&texts).run(&mut old).await.unwrap();
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
    migrator(&[include_str!("../../../migrations/postgres/0001_init.sql")])
        .run(&mut old)
        .await
        .unwrap();
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
    let texts = [
        include_str!("../../../migrations/mysql/0001_jobs.sql"),
        include_str!("../../../migrations/mysql/0002_runs.sql"),
        include_str!("../../../migrations/mysql/0003_outputs.sql"),
        include_str!("../../../migrations/mysql/0004_settings.sql"),
        include_str!("../../../migrations/mysql/0005_nodes.sql"),
    ];
    migrator(&texts).set_locking(false).run(&mut old).await.unwrap();
    for statement in [RUN, WAITING, OUTPUT] {
        sqlx::query(statement).execute(&mut old).await.unwrap();
    }
    old.close().await.unwrap();
    is_all_there(&url).await;
}
