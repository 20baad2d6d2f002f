//! What the machine allows: the disk's rate of durable appends, and rows that a bare SQLite commits.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, QueryBuilder, Sqlite, SqliteConnection};
use tokio::time::Instant;

/// How long each rate is measured.
const TIME: Duration = Duration::from_secs(1);
/// Bytes of a row: about those of a job.
const ROW_BYTES: usize = 300;

/// Measures both.
pub(crate) async fn probe() -> String {
    let (one, many) = (commits(1).await, commits(64).await);
    format!("fdatasync {:.0}/s; SQLite {one:.0} rows/s by 1, {many:.0} by 64 a commit", appends())
}

fn appends() -> f64 {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut file = File::create(folder.path().join("probe")).unwrap();
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < TIME {
        file.write_all(&[7; 4096]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}

async fn commits(rows: usize) -> f64 {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("probe.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("create table rows (id integer primary key, due integer, body text)")
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::query("create index rows_due on rows (due)").execute(&mut connection).await.unwrap();
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < TIME {
        let mut insert = QueryBuilder::<Sqlite>::new("insert into rows (due, body) ");
        insert.push_values(0..rows, |mut row, number| {
            row.push_bind(i64::try_from(number).unwrap()).push_bind("x".repeat(ROW_BYTES));
        });
        insert.build().execute(&mut connection).await.unwrap();
        count += u32::try_from(rows).unwrap();
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}
