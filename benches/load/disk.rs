//! What the machine allows: the disk's rate of durable appends, and rows that a bare SQLite commits.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use rusqlite::Connection;
use sqlx::postgres::PgPool;
use sqlx::{Postgres, QueryBuilder};
use tokio::time::Instant;

/// How long each rate is measured.
const TIME: Duration = Duration::from_secs(1);
/// Bytes of a row: about those of a job.
const ROW_BYTES: usize = 300;

/// Measures the disk and SQLite.
pub(crate) async fn probe() -> String {
    let rates = [1, 64, 1000].map(commits);
    let [one, many, thousand] = rates;
    // The benchmark's own runtime is not to be held up for long.
    tokio::task::yield_now().await;
    format!(
        "fdatasync {:.0}/s; SQLite {one:.0} rows/s by 1, {many:.0} by 64, {thousand:.0} by 1,000 a commit",
        appends()
    )
}

/// Measures a PostgreSQL server, through one connection.
pub(crate) async fn probe_postgres(url: &str) -> String {
    let pool = PgPool::connect(url).await.unwrap();
    let sql = "create table if not exists probe (id bigserial primary key, due bigint, body text)";
    sqlx::query(sql).execute(&pool).await.unwrap();
    sqlx::query("create index if not exists probe_due on probe (due)")
        .execute(&pool)
        .await
        .unwrap();
    let mut rates = Vec::new();
    for rows in [1, 64, 1000] {
        let (began, mut count) = (Instant::now(), 0_u32);
        while began.elapsed() < TIME {
            let mut insert = QueryBuilder::<Postgres>::new("insert into probe (due, body) ");
            insert.push_values(0..rows, |mut row, number| {
                row.push_bind(i64::from(number)).push_bind("x".repeat(ROW_BYTES));
            });
            insert.build().execute(&pool).await.unwrap();
            count += u32::try_from(rows).unwrap();
        }
        rates.push(f64::from(count) / began.elapsed().as_secs_f64());
    }
    pool.close().await;
    format!(
        "fdatasync {:.0}/s; PostgreSQL {:.0} rows/s by 1, {:.0} by 64, {:.0} by 1,000 a commit",
        appends(),
        rates[0],
        rates[1],
        rates[2]
    )
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

fn commits(rows: u32) -> f64 {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut connection = Connection::open(folder.path().join("probe.db")).unwrap();
    connection.pragma_update(None, "journal_mode", "wal").unwrap();
    connection.pragma_update(None, "synchronous", "full").unwrap();
    connection.pragma_update(None, "wal_autocheckpoint", 4000).unwrap();
    connection
        .execute_batch(
            "create table rows (id integer primary key, due integer, body text);
             create index rows_due on rows (due);",
        )
        .unwrap();
    let body = "x".repeat(ROW_BYTES);
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < TIME {
        let transaction = connection.transaction().unwrap();
        for number in 0..rows {
            let mut insert =
                transaction.prepare_cached("insert into rows (due, body) values (?, ?)").unwrap();
            insert.execute((i64::from(number), &body)).unwrap();
        }
        transaction.commit().unwrap();
        count += rows;
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}
