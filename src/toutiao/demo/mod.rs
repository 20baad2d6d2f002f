//! Something to look at: a small news site with readers and orders, and counters that have
//! drifted from what they count, so that the first repair has something to do.

mod content;
mod random;
mod words;

use std::collections::BTreeSet;

use chrono::TimeDelta;
use serde::Serialize;

use self::random::Random;
use super::counters::{Correction, Counters, Member};
use super::metric::{ARTICLE_READING_KEY, Metric};
use super::orders::{self, NewOrder, Order};
use super::sql::{SeedRows, ToutiaoDatabase};
use super::{Toutiao, ToutiaoError};
use crate::client::Client;
use crate::clock::Timestamp;

/// The same site every time.
const SEED: u64 = 2019;

/// Per metric: members with a wrong score, members that are absent, and members that count nothing.
const DRIFTED: usize = 30;
const MISSING: usize = 5;
const EXTRA: i64 = 4;

/// Ids of members that count nothing: far above the users of the demonstration, far below its
/// articles and comments.
const FIRST_EXTRA_ID: i64 = 9_000_000;

/// Orders of the demonstration expire while one is watching: seconds from placing them.
const SHORTEST_WAIT_SECONDS: i64 = 10;
const LONGEST_WAIT_SECONDS: i64 = 55;

/// Users who order something in the demonstration.
const BUYERS: u32 = 100;

/// What was filled in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Whether anything was: not if there were users already.
    pub filled: bool,
    pub users: usize,
    pub follows: usize,
    pub articles: usize,
    pub collections: usize,
    pub attitudes: usize,
    pub comments: usize,
    pub comment_likes: usize,
    /// Counters that were left wrong, over all metrics.
    pub drifted: usize,
}

/// Fills the tables and the counters, if there is no user yet. The tables are filled at once: if
/// it is killed they are empty or full, and what counters lack then, the repair adds.
pub async fn fill(toutiao: &Toutiao, now: Timestamp) -> Result<Summary, ToutiaoError> {
    let mut random = Random::new(SEED);
    let content = content::content(&mut random, now, || toutiao.fresh_id());
    let database = toutiao.database().await?;
    if !database.seed(&content).await? {
        return Ok(Summary::default());
    }
    let counters = toutiao.counters().await?;
    let mut drifted = 0;
    for metric in Metric::ALL {
        let truth = all_counts(database, metric).await?;
        let (scores, wrong) = drift(&mut random, truth);
        set(counters, toutiao.settings().key(metric), scores).await?;
        drifted += wrong;
    }
    set(counters, ARTICLE_READING_KEY, readings(&mut random, &content)).await?;
    Ok(Summary {
        filled: true,
        users: content.users.len(),
        follows: content.relations.len(),
        articles: content.articles.len(),
        collections: content.collections.len(),
        attitudes: content.attitudes.len(),
        comments: content.comments.len(),
        comment_likes: content.comment_likings.len(),
        drifted,
    })
}

/// Places unpaid orders that expire within a minute, on the way of every other order.
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

// The truth, made wrong in some places; also how many.
fn drift(random: &mut Random, truth: Vec<(i64, i64)>) -> (Vec<(i64, i64)>, usize) {
    let places: BTreeSet<usize> =
        (0..DRIFTED + MISSING).map(|_| random.below(truth.len())).collect();
    let mut scores = Vec::with_capacity(truth.len());
    let mut missing = 0;
    for (place, (id, count)) in truth.into_iter().enumerate() {
        if !places.contains(&place) {
            scores.push((id, count));
        } else if missing < MISSING {
            missing += 1;
        } else {
            let by = random.between(1, 9);
            let wrong = if random.chance(50) { count + by } else { count - by };
            scores.push((id, wrong));
        }
    }
    // One of them below zero: what a decrement of an absent member leaves behind.
    let extra = (0..EXTRA).map(|number| {
        (FIRST_EXTRA_ID + number, if number == 0 { -1 } else { random.between(1, 5) })
    });
    scores.extend(extra);
    (scores, places.len() + usize::try_from(EXTRA).unwrap_or(0))
}

fn readings(random: &mut Random, content: &SeedRows) -> Vec<(i64, i64)> {
    let most = content.articles.len().saturating_mul(4);
    content
        .articles
        .iter()
        .map(|article| {
            (article.id, i64::try_from(random.popular(most)).unwrap_or(0).saturating_add(1))
        })
        .collect()
}

// Only where nothing is yet: counters that are in use already are not touched.
async fn set(counters: &Counters, key: &str, scores: Vec<(i64, i64)>) -> Result<(), ToutiaoError> {
    let corrections: Vec<Correction> = scores
        .into_iter()
        .filter(|(_, score)| *score != 0)
        .map(|(id, to)| Correction { member: Member::from(id), from: None, to })
        .collect();
    counters.correct(key, &corrections).await?;
    Ok(())
}
