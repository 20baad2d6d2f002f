//! The statistics as the test's own SQL counts them, and as they are published.

use std::collections::{BTreeMap, BTreeSet};

use punctual::toutiao::counters::{Counters, Member};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::site::Site;

/// How long an increment of [`Site::like_articles`] may be under way, in seconds.
pub(crate) const SETTLE_SECONDS: f64 = 0.3;

/// Members and their counts.
pub(crate) type Counts = BTreeMap<String, String>;

/// Each key, and the statement that counts what belongs there.
pub(crate) const TRUTH: [(&str, &str); 11] = [
    (
        "count:user:arts",
        "select user_id, count(article_id) from news_article_basic where status = 2 group by 1",
    ),
    (
        "count:art:collecting",
        "select article_id, count(*) from news_collection where is_deleted = 0 group by 1",
    ),
    (
        "count:user:art:collecting",
        "select user_id, count(*) from news_collection where is_deleted = 0 group by 1",
    ),
    (
        "count:art:dislike",
        "select article_id, count(*) from news_attitude where attitude = 0 group by 1",
    ),
    (
        "count:art:liking",
        "select article_id, count(*) from news_attitude where attitude = 1 group by 1",
    ),
    (
        "count:comm:liking",
        "select comment_id, count(*) from news_comment_liking where is_deleted = 0 group by 1",
    ),
    ("count:art:comm", "select article_id, count(*) from news_comment where status = 1 group by 1"),
    (
        "count:art:reply",
        "select parent_id, count(*) from news_comment where status = 1 and parent_id is not null group by 1",
    ),
    (
        "count:user:followings",
        "select user_id, count(*) from user_relation where relation = 1 group by 1",
    ),
    (
        "count:user:followers",
        "select target_user_id, count(*) from user_relation where relation = 1 group by 1",
    ),
    (
        "count:user:liked",
        "select (select user_id from news_article_basic b where b.article_id = a.article_id) author, count(*) \
         from news_attitude a where attitude = 1 and author is not null group by 1",
    ),
];

/// A little of everything: two authors, three articles, marks of all kinds.
pub(crate) const ROWS: &str = "
    insert into user_basic (user_id, mobile, user_name, is_media) values
        (1, '13800000001', 'Wang', 1), (2, '13800000002', 'Li', 0), (3, '13800000003', 'Zhang', 0);
    insert into news_article_basic (article_id, user_id, channel_id, title, cover, status, create_time, update_time)
        values (11, 1, 1, 'a', '{}', 2, '', ''), (12, 1, 1, 'b', '{}', 2, '', ''), (13, 2, 1, 'c', '{}', 4, '', '');
    insert into news_collection (user_id, article_id, is_deleted, create_time, update_time) values
        (1, 11, 0, '', ''), (2, 11, 0, '', ''), (3, 12, 1, '', '');
    insert into news_attitude (user_id, article_id, attitude, create_time, update_time) values
        (1, 11, 1, '', ''), (2, 11, 1, '', ''), (3, 11, 0, '', ''), (1, 12, null, '', ''), (2, 13, 1, '', '');
    insert into news_comment (comment_id, user_id, article_id, parent_id, content, status, create_time) values
        (21, 1, 11, null, 'x', 1, ''), (22, 2, 11, 21, 'y', 1, ''), (23, 3, 11, 21, 'z', 3, '');
    insert into news_comment_liking (user_id, comment_id, is_deleted, create_time, update_time) values
        (1, 21, 0, '', ''), (2, 21, 0, '', ''), (3, 22, 1, '', '');
    insert into user_relation (user_id, target_user_id, relation, create_time, update_time) values
        (2, 1, 1, '', ''), (3, 1, 1, '', ''), (1, 2, 0, '', ''), (3, 2, 2, '', '');
";

impl Site {
    /// What one statement counts.
    pub(crate) async fn counted(&self, statement: &'static str) -> Counts {
        let rows: Vec<(i64, i64)> = sqlx::query_as(statement).fetch_all(&self.rows).await.unwrap();
        rows.into_iter().map(|(member, count)| (member.to_string(), count.to_string())).collect()
    }

    pub(crate) async fn counters(&self) -> &Counters {
        self.toutiao.counters().await.unwrap()
    }

    pub(crate) async fn add(&self, key: &str, member: &str, by: i64) {
        self.counters()
            .await
            .add(key, &Member::from(member.as_bytes().to_vec()), by)
            .await
            .unwrap();
    }

    /// Repairs all statistics; `settle_seconds` is how long an increment may be under way.
    pub(crate) async fn fix(&self, settle_seconds: f64) -> Value {
        self.run("toutiao.fix_statistics", json!({"settle_seconds": settle_seconds})).await.unwrap()
    }

    /// Likes articles 101 to 120 for as long as `busy` says: a row first, the counters a moment later. Returns the articles
    /// of which an increment was under way for longer than [`SETTLE_SECONDS`], because the machine was busy: a repair may
    /// have counted it twice.
    pub(crate) async fn like_articles(
        &self,
        writer: i64,
        busy: impl Fn() -> bool,
    ) -> BTreeSet<i64> {
        let mut likes = 0;
        let mut late = BTreeSet::new();
        while busy() || likes < 20 {
            likes += 1;
            let article = 101 + (likes * 7 + writer) % 20;
            let user = writer * 1_000_000 + likes;
            let began = Instant::now();
            sqlx::query(
                "insert into news_attitude (user_id, article_id, attitude, create_time, update_time) \
                 values (?, ?, 1, '', '')",
            )
            .bind(user)
            .bind(article)
            .execute(&self.rows)
            .await
            .unwrap();
            self.add("count:art:liking", &article.to_string(), 1).await;
            self.add("count:user:liked", &article.to_string(), 1).await;
            if began.elapsed().as_secs_f64() > SETTLE_SECONDS {
                late.insert(article);
            }
        }
        late
    }

    /// Articles 101 to 120, each of an author of the same number; the likes of some are counted wrongly.
    pub(crate) async fn publish_busy_articles(&self) {
        for article in 101..=120 {
            sqlx::query(
                "insert into news_article_basic (article_id, user_id, channel_id, title, cover, status, create_time, \
                 update_time) values (?, ?, 1, 't', '{}', 2, '', '')",
            )
            .bind(article)
            .bind(article)
            .execute(&self.rows)
            .await
            .unwrap();
        }
        for article in 101..=108 {
            self.add("count:art:liking", &article.to_string(), drift_of(article)).await;
        }
    }
}

/// How far the likes of a busy article are off before a repair.
pub(crate) fn drift_of(article: i64) -> i64 {
    if (101..=108).contains(&article) { article - 104 } else { 0 }
}

/// Of busy articles, now at rest: each is right or as far off as it was before the repair. An
/// increment that was lost or counted twice would make it neither. Those with late increments are not judged.
pub(crate) fn assert_nothing_lost_or_doubled(
    key: &str,
    published: &Counts,
    counted: &Counts,
    late: &BTreeSet<i64>,
) {
    for article in (101..=120).filter(|article| !late.contains(article)) {
        let of = |counts: &Counts| {
            counts.get(&article.to_string()).map_or(0, |count| count.parse::<i64>().unwrap())
        };
        let off = of(published) - of(counted);
        let before = if key == "count:art:liking" { drift_of(article) } else { 0 };
        assert!(
            off == 0 || off == before,
            "{key} of {article} is {off} off, and was {before} off before the repair"
        );
    }
}

/// One number of one metric of a result.
pub(crate) fn number(result: &Value, metric: &str, field: &str) -> u64 {
    let metrics = result.get("metrics").and_then(Value::as_array).unwrap();
    let metric = metrics.iter().find(|found| found.get("metric").unwrap() == metric).unwrap();
    metric.get(field).and_then(Value::as_u64).unwrap()
}
