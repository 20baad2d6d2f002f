//! Counters in an SQLite file, for a system without Redis.
//!
//! They are in a file rather than in memory because worker processes share them with the daemon, and because the readings
//! have no other record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sqlx::sqlite::SqlitePool;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::{CHUNK_MEMBERS, Correction, CounterError, Cursor, Member, MemberPage, Score};
use crate::toutiao::sql::{BEGIN, open_file};

#[derive(Debug, Clone)]
pub struct Embedded {
    pool: SqlitePool,
}

impl Embedded {
    /// Opens the file, and creates it if there is none.
    pub(super) async fn open(path: &Path) -> Result<Self, CounterError> {
        let pool =
            open_file(path, include_str!("../../../migrations/toutiao/counters/0001_init.sql"))
                .await?;
        Ok(Self { pool })
    }

    pub(super) async fn page(
        &self,
        key: &str,
        after: Option<&Cursor>,
    ) -> Result<MemberPage, CounterError> {
        let mut query =
            QueryBuilder::<Sqlite>::new("select member, score from counter where zset = ");
        query.push_bind(key);
        if let Some(Cursor(last)) = after {
            query.push(" and member > ").push_bind(last.as_slice());
        }
        query.push(format!(" order by member limit {CHUNK_MEMBERS}"));
        let rows: Vec<(Vec<u8>, i64)> = query.build_query_as().fetch_all(&self.pool).await?;
        let full = rows.len() == CHUNK_MEMBERS;
        let next = rows.last().filter(|_| full).map(|(member, _)| Cursor(member.clone()));
        let entries =
            rows.into_iter().map(|(member, score)| (Member(member), Score::Whole(score))).collect();
        Ok(MemberPage { entries, next })
    }

    pub(super) async fn scores(
        &self,
        key: &str,
        members: &[Member],
    ) -> Result<Vec<Option<Score>>, CounterError> {
        let mut connection = self.pool.acquire().await?;
        let found = read(&mut connection, key, members.iter()).await?;
        Ok(members.iter().map(|member| found.get(member).copied().map(Score::Whole)).collect())
    }

    pub(super) async fn add(
        &self,
        key: &str,
        member: &Member,
        by: i64,
    ) -> Result<(), CounterError> {
        sqlx::query(
            "insert into counter (zset, member, score) values (?, ?, ?) \
             on conflict (zset, member) do update set score = counter.score + excluded.score",
        )
        .bind(key)
        .bind(member.bytes())
        .bind(by)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    pub(super) async fn correct(
        &self,
        key: &str,
        corrections: &[Correction],
    ) -> Result<Vec<bool>, CounterError> {
        let mut transaction = self.pool.begin_with(BEGIN).await?;
        let found =
            read(&mut transaction, key, corrections.iter().map(|correction| &correction.member))
                .await?;
        let done: Vec<bool> = corrections
            .iter()
            .map(|correction| {
                found.get(&correction.member).copied().map(Score::Whole) == correction.from
            })
            .collect();
        let due = corrections
            .iter()
            .zip(&done)
            .filter(|(_, done)| **done)
            .map(|(correction, _)| correction);
        let (gone, kept): (Vec<_>, Vec<_>) = due.partition(|correction| correction.to == 0);
        delete(&mut transaction, key, &gone).await?;
        write(&mut transaction, key, &kept).await?;
        transaction.commit().await?;
        Ok(done)
    }

    pub(super) async fn size(&self, key: &str) -> Result<u64, CounterError> {
        let (size,): (i64,) = sqlx::query_as("select count(*) from counter where zset = ?")
            .bind(key)
            .fetch_one(&self.pool)
            .await?;
        Ok(u64::try_from(size).unwrap_or(0))
    }
}

async fn read(
    connection: &mut SqliteConnection,
    key: &str,
    members: impl ExactSizeIterator<Item = &Member>,
) -> Result<BTreeMap<Member, i64>, CounterError> {
    if members.len() == 0 {
        return Ok(BTreeMap::new());
    }
    let mut query = QueryBuilder::<Sqlite>::new("select member, score from counter where zset = ");
    query.push_bind(key).push(" and member in (");
    push_members(&mut query, members);
    // These statements are not kept prepared, here and below: their text depends on the number of members.
    let rows: Vec<(Vec<u8>, i64)> =
        query.build_query_as().persistent(false).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(member, score)| (Member(member), score)).collect())
}

async fn delete(
    connection: &mut SqliteConnection,
    key: &str,
    gone: &[&Correction],
) -> Result<(), CounterError> {
    if gone.is_empty() {
        return Ok(());
    }
    let mut query = QueryBuilder::<Sqlite>::new("delete from counter where zset = ");
    query.push_bind(key).push(" and member in (");
    push_members(&mut query, gone.iter().map(|correction| &correction.member));
    query.build().persistent(false).execute(connection).await?;
    Ok(())
}

async fn write(
    connection: &mut SqliteConnection,
    key: &str,
    kept: &[&Correction],
) -> Result<(), CounterError> {
    if kept.is_empty() {
        return Ok(());
    }
    let mut query = QueryBuilder::<Sqlite>::new("insert into counter (zset, member, score) ");
    query.push_values(kept, |mut row, correction| {
        row.push_bind(key).push_bind(correction.member.bytes()).push_bind(correction.to);
    });
    query.push(" on conflict (zset, member) do update set score = excluded.score");
    query.build().persistent(false).execute(connection).await?;
    Ok(())
}

/// Appends the members, each once, and the closing bracket.
fn push_members<'member>(
    query: &mut QueryBuilder<Sqlite>,
    members: impl Iterator<Item = &'member Member>,
) {
    let mut list = query.separated(", ");
    for member in members.collect::<BTreeSet<_>>() {
        list.push_bind(member.bytes());
    }
    query.push(")");
}
