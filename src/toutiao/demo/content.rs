//! The rows of the demonstration: people who write, read, like and follow, some far more than others.

use std::collections::BTreeSet;

use chrono::TimeDelta;

use super::random::Random;
use super::words;
use crate::clock::Timestamp;
use crate::toutiao::sql::{ArticleRow, CommentRow, MarkRow, RelationRow, SeedRows, UserRow};

const USERS: usize = 2_000;
const ARTICLES: usize = 2_500;
const FOLLOWS: usize = 8_000;
const COLLECTIONS: usize = 4_000;
const ATTITUDES: usize = 9_000;
const COMMENTS: usize = 5_000;
const COMMENT_LIKINGS: usize = 4_000;

/// Users of which many write; the others mostly read.
const AUTHORS: usize = 200;

const CHANNELS: i64 = 25;
const APPROVED: i64 = 2;

/// Makes the rows; `ids` gives ids of articles and comments.
pub(super) fn content(random: &mut Random, now: Timestamp, ids: impl Fn() -> i64) -> SeedRows {
    let users = users(random);
    let articles = articles(random, now, &users, &ids);
    let comments = comments(random, now, &users, &articles, &ids);
    let readers: Vec<i64> = users.iter().map(|user| user.id).collect();
    let article_ids: Vec<i64> = articles.iter().map(|article| article.id).collect();
    let comment_ids: Vec<i64> = comments.iter().map(|comment| comment.id).collect();
    let mut marks = |count, targets: &[i64], value: fn(&mut Random) -> Option<i64>| {
        pairs(random, count, &readers, targets)
            .into_iter()
            .map(|(user_id, target_id)| MarkRow {
                user_id,
                target_id,
                value: value(random),
                time: past(random, now),
            })
            .collect()
    };
    // Some are withdrawn again.
    let collections = marks(COLLECTIONS, &article_ids, |random| Some(i64::from(random.chance(8))));
    let attitudes = marks(ATTITUDES, &article_ids, attitude);
    let comment_likings =
        marks(COMMENT_LIKINGS, &comment_ids, |random| Some(i64::from(random.chance(8))));
    let relations = relations(random, now, &readers);
    SeedRows { users, relations, articles, collections, attitudes, comments, comment_likings }
}

fn users(random: &mut Random) -> Vec<UserRow> {
    (1..=USERS)
        .map(|number| {
            let is_media = number <= AUTHORS && random.chance(30);
            UserRow {
                id: i64::try_from(number).unwrap_or(i64::MAX),
                mobile: format!("138{number:08}"),
                name: words::name(random, number),
                photo: random.chance(60).then(|| format!("portraits/{number}.jpg")),
                is_media,
                introduction: random.chance(50).then(|| words::introduction(random)),
                certificate: is_media.then(|| words::certificate(random)),
            }
        })
        .collect()
}

fn articles(
    random: &mut Random,
    now: Timestamp,
    users: &[UserRow],
    id: impl Fn() -> i64,
) -> Vec<ArticleRow> {
    (0..ARTICLES)
        .filter_map(|_| {
            let author = users.get(random.popular(AUTHORS))?.id;
            // Most are approved; the rest is spread over draft, to review, rejected, deleted, banned.
            let status =
                if random.chance(88) { APPROVED } else { *random.pick(&[0, 1, 3, 4, 5])? };
            let channel_id = random.between(1, CHANNELS);
            let title = words::title(random);
            Some(ArticleRow {
                id: id(),
                user_id: author,
                channel_id,
                title,
                status,
                time: past(random, now),
            })
        })
        .collect()
}

fn comments(
    random: &mut Random,
    now: Timestamp,
    users: &[UserRow],
    articles: &[ArticleRow],
    id: impl Fn() -> i64,
) -> Vec<CommentRow> {
    let mut comments: Vec<CommentRow> = Vec::with_capacity(COMMENTS);
    for _ in 0..COMMENTS {
        let parent = if random.chance(35) {
            random.pick(&comments).map(|parent| (parent.id, parent.article_id))
        } else {
            None
        };
        let about = articles.get(random.popular(articles.len())).map(|article| article.id);
        let article_id = parent.map(|(_, article_id)| article_id).or(about);
        let (Some(article_id), Some(user)) = (article_id, random.pick(users)) else { continue };
        comments.push(CommentRow {
            id: id(),
            user_id: user.id,
            article_id,
            parent_id: parent.map(|(id, _)| id),
            content: words::remark(random),
            status: if random.chance(92) { 1 } else { random.between(2, 3) },
            time: past(random, now),
        });
    }
    comments
}

fn relations(random: &mut Random, now: Timestamp, readers: &[i64]) -> Vec<RelationRow> {
    pairs(random, FOLLOWS, readers, readers)
        .into_iter()
        .filter(|(user_id, target_user_id)| user_id != target_user_id)
        .map(|(user_id, target_user_id)| {
            // Most follow; some have stopped, a few have blocked.
            let relation =
                if random.chance(90) { 1 } else { *random.pick(&[0, 0, 2]).unwrap_or(&0) };
            RelationRow { user_id, target_user_id, relation, time: past(random, now) }
        })
        .collect()
}

// Each pair once: that is what the tables demand. Any reader, but mostly the popular targets.
fn pairs(
    random: &mut Random,
    count: usize,
    readers: &[i64],
    targets: &[i64],
) -> BTreeSet<(i64, i64)> {
    (0..count)
        .filter_map(|_| {
            let reader = *random.pick(readers)?;
            let target = *targets.get(random.popular(targets.len()))?;
            Some((reader, target))
        })
        .collect()
}

fn attitude(random: &mut Random) -> Option<i64> {
    if random.chance(5) { None } else { Some(i64::from(random.chance(85))) }
}

fn past(random: &mut Random, now: Timestamp) -> String {
    let at = now - TimeDelta::minutes(random.between(1, 90 * 24 * 60));
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}
