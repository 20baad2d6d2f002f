//! The rows of the demonstration: people who write, read, like and follow, some of them far more than others.

use std::collections::BTreeSet;

use chrono::TimeDelta;

use super::random::Random;
use crate::clock::Timestamp;
use crate::toutiao::sql::{SeedTable, SeedValue};

const USERS: i64 = 2_000;
const ARTICLES: usize = 2_500;
const FOLLOWS: usize = 8_000;
const COLLECTIONS: usize = 4_000;
const ATTITUDES: usize = 9_000;
const COMMENTS: usize = 5_000;
const COMMENT_LIKINGS: usize = 4_000;

/// The number of users who write; the others mostly read.
const AUTHORS: usize = 200;

const CHANNELS: i64 = 25;
const APPROVED: i64 = 2;

/// The rows of each table.
#[derive(Debug)]
pub(super) struct SampleRows {
    pub(super) users: SeedTable,
    pub(super) relations: SeedTable,
    pub(super) articles: SeedTable,
    pub(super) collections: SeedTable,
    pub(super) attitudes: SeedTable,
    pub(super) comments: SeedTable,
    pub(super) comment_likings: SeedTable,
    pub(super) article_ids: Vec<i64>,
}

impl SampleRows {
    /// Generates the rows. `new_id` returns ids of articles and comments.
    pub(super) fn generate(random: &mut Random, now: Timestamp, new_id: impl Fn() -> i64) -> Self {
        let user_ids: Vec<i64> = (1..=USERS).collect();
        let users = users(random);
        let (articles, article_ids) = articles(random, now, &user_ids, &new_id);
        let (comments, comment_ids) = comments(random, now, &user_ids, &article_ids, &new_id);
        // Some collections and likings have been withdrawn.
        let withdrawn = |random: &mut Random| i64::from(random.chance(8)).into();
        let mut marks = |table, columns, count, targets: &[i64], value: MarkValue| {
            let pairs = pairs(random, count, &user_ids, targets).into_iter();
            let rows = pairs.map(|(user_id, target_id)| {
                let value = value(random);
                let time = past(random, now);
                vec![user_id.into(), target_id.into(), value, time.clone(), time]
            });
            SeedTable { table, columns, rows: rows.collect() }
        };
        let collections = marks(
            "news_collection",
            "user_id, article_id, is_deleted, create_time, update_time",
            COLLECTIONS,
            &article_ids,
            withdrawn,
        );
        let attitudes = marks(
            "news_attitude",
            "user_id, article_id, attitude, create_time, update_time",
            ATTITUDES,
            &article_ids,
            attitude,
        );
        let comment_likings = marks(
            "news_comment_liking",
            "user_id, comment_id, is_deleted, create_time, update_time",
            COMMENT_LIKINGS,
            &comment_ids,
            withdrawn,
        );
        let relations = relations(random, now, &user_ids);
        Self {
            users,
            relations,
            articles,
            collections,
            attitudes,
            comments,
            comment_likings,
            article_ids,
        }
    }

    /// All tables, in the order in which they are filled.
    pub(super) fn tables(&self) -> [&SeedTable; 7] {
        [
            &self.users,
            &self.relations,
            &self.articles,
            &self.comments,
            &self.collections,
            &self.attitudes,
            &self.comment_likings,
        ]
    }
}

/// How the value of a mark, such as a like, is drawn.
type MarkValue = fn(&mut Random) -> SeedValue;

fn users(random: &mut Random) -> SeedTable {
    let row = |id: i64| {
        let is_media = usize::try_from(id).is_ok_and(|id| id <= AUTHORS) && random.chance(30);
        let name = if random.chance(20) {
            format!("{}_{id}", random.word("english"))
        } else {
            format!("{}{}{id}", random.word("surname"), random.word("given"))
        };
        let photo = random.chance(60).then(|| format!("portraits/{id}.jpg"));
        let introduction = random.chance(50).then(|| random.word("introduction").to_owned());
        let certificate = is_media.then(|| random.word("certificate").to_owned());
        vec![
            id.into(),
            format!("138{id:08}").into(),
            name.into(),
            photo.into(),
            i64::from(is_media).into(),
            i64::from(certificate.is_some()).into(),
            introduction.into(),
            certificate.into(),
        ]
    };
    let columns = "user_id, mobile, user_name, profile_photo, is_media, is_verified, introduction, certificate";
    let rows = (1..=USERS).map(row).collect();
    SeedTable { table: "user_basic", columns, rows }
}

fn articles(
    random: &mut Random,
    now: Timestamp,
    user_ids: &[i64],
    new_id: impl Fn() -> i64,
) -> (SeedTable, Vec<i64>) {
    let (mut rows, mut ids) = (Vec::new(), Vec::new());
    for _ in 0..ARTICLES {
        let Some(author) = user_ids.get(random.popular(AUTHORS)).copied() else { continue };
        // The others are drafts, under review, rejected, deleted or banned.
        let status = if random.chance(88) {
            APPROVED
        } else {
            random.pick(&[0, 1, 3, 4, 5]).copied().unwrap_or_default()
        };
        let channel = random.between(1, CHANNELS);
        let title = [random.word("place"), random.word("subject"), random.word("turn")].concat();
        let (id, time) = (new_id(), past(random, now));
        ids.push(id);
        rows.push(vec![
            id.into(),
            author.into(),
            channel.into(),
            title.into(),
            r#"{"type":0,"images":[]}"#.to_owned().into(),
            status.into(),
            time.clone(),
            time,
        ]);
    }
    let columns = "article_id, user_id, channel_id, title, cover, status, create_time, update_time";
    (SeedTable { table: "news_article_basic", columns, rows }, ids)
}

fn comments(
    random: &mut Random,
    now: Timestamp,
    user_ids: &[i64],
    article_ids: &[i64],
    new_id: impl Fn() -> i64,
) -> (SeedTable, Vec<i64>) {
    let mut rows = Vec::new();
    // The id of each comment, and that of its article.
    let mut written: Vec<(i64, i64)> = Vec::new();
    for _ in 0..COMMENTS {
        let parent = if random.chance(35) { random.pick(&written).copied() } else { None };
        let about = article_ids.get(random.popular(article_ids.len())).copied();
        let article = parent.map(|(_, article)| article).or(about);
        let (Some(article), Some(user)) = (article, random.pick(user_ids).copied()) else {
            continue;
        };
        let id = new_id();
        let text = random.word("comment").to_owned();
        let status = if random.chance(92) { 1 } else { random.between(2, 3) };
        rows.push(vec![
            id.into(),
            user.into(),
            article.into(),
            parent.map(|(id, _)| id).into(),
            text.into(),
            status.into(),
            past(random, now),
        ]);
        written.push((id, article));
    }
    let columns = "comment_id, user_id, article_id, parent_id, content, status, create_time";
    let ids = written.into_iter().map(|(id, _)| id).collect();
    (SeedTable { table: "news_comment", columns, rows }, ids)
}

fn relations(random: &mut Random, now: Timestamp, user_ids: &[i64]) -> SeedTable {
    let pairs = pairs(random, FOLLOWS, user_ids, user_ids).into_iter();
    let rows = pairs.filter(|(user, target)| user != target).map(|(user, target)| {
        // The others have stopped to follow, and a few have blocked the target.
        let relation = if random.chance(90) { 1 } else { *random.pick(&[0, 0, 2]).unwrap_or(&0) };
        let time = past(random, now);
        vec![user.into(), target.into(), i64::from(relation).into(), time.clone(), time]
    });
    let columns = "user_id, target_user_id, relation, create_time, update_time";
    SeedTable { table: "user_relation", columns, rows: rows.collect() }
}

/// Pairs of a reader and a target, each pair once because the tables demand it. Popular targets are likelier.
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

/// 1 for a like, 0 for a dislike, and null for an attitude that was withdrawn.
fn attitude(random: &mut Random) -> SeedValue {
    if random.chance(5) { SeedValue::Null } else { i64::from(random.chance(85)).into() }
}

/// A time within the last 90 days.
fn past(random: &mut Random, now: Timestamp) -> SeedValue {
    let at = now - TimeDelta::minutes(random.between(1, 90 * 24 * 60));
    at.format("%Y-%m-%d %H:%M:%S").to_string().into()
}
