//! A demonstration: a small news site with readers and orders, whose counters differ from their rows in some places, so
//! that the first repair has something to do.

mod random;
mod sample;

use std::collections::BTreeSet;

use chrono::TimeDelta;
use serde::Serialize;

use self::random::Random;
use self::sample::SampleRows;
use super::counters::{Correction, Counters, Member};
use super::metric::{ARTICLE_READING_KEY, Metric};
use super::orders::{self, NewOrder, Order};
use super::sql::ToutiaoDatabase;
use super::{Toutiao, ToutiaoError};
use crate::client::Client;
use crate::clock::Timestamp;

/// The seed of all choices, so that the site is the same every time.
const SEED: u64 = 2019;

/// Per metric, the number of members with a wrong score, of members that are absent, and of members without rows.
const DRIFTED: usize = 30;
const MISSING: usize = 5;
const EXTRA: i64 = 4;

/// The first id of the members without rows: far above the ids of the users, far below those of articles and comments.
const FIRST_EXTRA_ID: i64 = 9_000_000;

/// The orders expire while one is watching: seconds from their placement.
const SHORTEST_WAIT_SECONDS: i64 = 10;
const LONGEST_WAIT_SECONDS: i64 = 55;

/// The number of users who order something.
const BUYERS: u32 = 100;

/// The numbers of rows that were written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Whether rows were written. None are if there are users already.
    pub filled: bool,
    pub users: usize,
    pub follows: usize,
    pub articles: usize,
    pub collections: usize,
    pub attitudes: usize,
    pub comments: usize,
    pub comment_likes: usize,
    /// The number of counters of all metrics that were left wrong.
    pub drifted: usize,
}

/// Fills the tables and the counters, if there is no user yet. The tables are filled in one transaction: after a crash
/// they are empty or full, and the repair adds the counters that are missing then.
pub async fn fill(toutiao: &Toutiao, now: Timestamp) -> Result<Summary, ToutiaoError> {
    let mut random = Random::new(SEED);
    let sample = SampleRows::generate(&mut random, now, || toutiao.new_id());
    let database = toutiao.database().await?;
    if !database.seed(&sample.tables()).await? {
        return Ok(Summary::default());
    }
    let counters = toutiao.counters().await?;
    let mut drifted = 0;
    for metric in Metric::ALL {
        let counts = all_counts(database, metric).await?;
        let (scores, wrong) = drift(&mut random, counts);
        set(counters, toutiao.settings().key(metric), scores).await?;
        drifted += wrong;
    }
    set(counters, ARTICLE_READING_KEY, readings(&mut random, &sample.article_ids)).await?;
    Ok(Summary {
        filled: true,
        users: sample.users.rows.len(),
        follows: sample.relations.rows.len(),
        articles: sample.articles.rows.len(),
        collections: sample.collections.rows.len(),
        attitudes: sample.attitudes.rows.len(),
        comments: sample.comments.rows.len(),
        comment_likes: sample.comment_likings.rows.len(),
        drifted,
    })
}

/// Places unpaid orders that expire within a minute, as the API does.
pub async fn place_orders(
    toutiao: &Toutiao,
    client: &Client,
    count: u32,
) -> Result<Vec<Order>, ToutiaoError> {
    let buyers = toutiao.database().await?.user_ids(BUYERS).await?;
    let mut random = Random::new(SEED);
    let mut placed = Vec::new();
    for _ in 0..count {
        let new = NewOrder {
            user_id: random.pick(&buyers).copied().unwrap_or(1),
            amount: random.between(100, 50_000),
            expires_in: TimeDelta::try_seconds(
                random.between(SHORTEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS),
            ),
        };
        placed.push(orders::place(toutiao, client, new).await?);
    }
    Ok(placed)
}

async fn all_counts(
    database: &ToutiaoDatabase,
    metric: Metric,
) -> Result<Vec<(i64, i64)>, ToutiaoError> {
    let mut all = Vec::new();
    let mut after = i64::MIN;
    loop {
        let page = database.counts_after(metric, after).await?;
        let Some((last, _)) = page.last() else { return Ok(all) };
        after = *last;
        all.extend(page);
    }
}

/// Makes some of the scores wrong. Returns them with the number of wrong ones.
fn drift(random: &mut Random, counts: Vec<(i64, i64)>) -> (Vec<(i64, i64)>, usize) {
    let chosen: BTreeSet<usize> =
        (0..DRIFTED + MISSING).map(|_| random.below(counts.len())).collect();
    let mut scores = Vec::with_capacity(counts.len());
    let mut missing = 0;
    for (number, (id, count)) in counts.into_iter().enumerate() {
        if !chosen.contains(&number) {
            scores.push((id, count));
        } else if missing < MISSING {
            missing += 1;
        } else {
            let by = random.between(1, 9);
            let wrong = if random.chance(50) { count + by } else { count - by };
            scores.push((id, wrong));
        }
    }
    // One of them is negative, as after a decrement of an absent member.
    let extra = (0..EXTRA).map(|number| {
        (FIRST_EXTRA_ID + number, if number == 0 { -1 } else { random.between(1, 5) })
    });
    scores.extend(extra);
    (scores, chosen.len() + usize::try_from(EXTRA).unwrap_or(0))
}

fn readings(random: &mut Random, article_ids: &[i64]) -> Vec<(i64, i64)> {
    let most = article_ids.len().saturating_mul(4);
    let count =
        |random: &mut Random| i64::try_from(random.popular(most)).unwrap_or(0).saturating_add(1);
    article_ids.iter().map(|id| (*id, count(random))).collect()
}

/// Sets scores of absent members. Counters that are already in use are not changed.
async fn set(counters: &Counters, key: &str, scores: Vec<(i64, i64)>) -> Result<(), ToutiaoError> {
    let corrections: Vec<Correction> = scores
        .into_iter()
        .filter(|(_, score)| *score != 0)
        .map(|(id, to)| Correction { member: Member::from(id), from: None, to })
        .collect();
    counters.correct(key, &corrections).await?;
    Ok(())
}
