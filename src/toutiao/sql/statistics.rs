//! The rows that each metric counts.
//!
//! A metric is one grouped count, which is read either page by page for all members or for some members. Members without
//! rows are absent.

use std::collections::BTreeMap;

use sqlx::{QueryBuilder, Sqlite};

use super::{CHUNK_ROWS, DatabaseError, ToutiaoDatabase};
use crate::toutiao::metric::Metric;

/// The rows of a metric.
struct CountSource {
    /// The column of the member.
    member: &'static str,
    /// The tables, and a condition on their rows.
    rows: &'static str,
}

fn source(metric: Metric) -> CountSource {
    let (member, rows) = match metric {
        Metric::UserArticles => ("user_id", "news_article_basic where status = 2"),
        Metric::ArticleCollecting => ("article_id", "news_collection where is_deleted = 0"),
        Metric::UserCollecting => ("user_id", "news_collection where is_deleted = 0"),
        // A withdrawn attitude is null, which is neither 0 nor 1.
        Metric::ArticleDislikes => ("article_id", "news_attitude where attitude = 0"),
        Metric::ArticleLikes => ("article_id", "news_attitude where attitude = 1"),
        Metric::CommentLikes => ("comment_id", "news_comment_liking where is_deleted = 0"),
        Metric::ArticleComments => ("article_id", "news_comment where status = 1"),
        Metric::CommentReplies => {
            ("parent_id", "news_comment where status = 1 and parent_id is not null")
        }
        Metric::UserFollowings => ("user_id", "user_relation where relation = 1"),
        Metric::UserFollowers => ("target_user_id", "user_relation where relation = 1"),
        Metric::UserLiked => (
            "author.user_id",
            "news_attitude liked inner join news_article_basic author on author.article_id = liked.article_id \
             where liked.attitude = 1",
        ),
    };
    CountSource { member, rows }
}

impl CountSource {
    fn select(&self) -> QueryBuilder<Sqlite> {
        QueryBuilder::new(format!(
            "select {}, count(*) from {} and {} ",
            self.member, self.rows, self.member
        ))
    }
}

impl ToutiaoDatabase {
    /// The counts of the next members above `after`, in order. An empty page is the end.
    pub async fn counts_after(
        &self,
        metric: Metric,
        after: i64,
    ) -> Result<Vec<(i64, i64)>, DatabaseError> {
        let source = source(metric);
        let mut query = source.select();
        query.push("> ").push_bind(after);
        query.push(format!(
            " group by {} order by {} limit {CHUNK_ROWS}",
            source.member, source.member
        ));
        Ok(query.build_query_as().fetch_all(&self.pool).await?)
    }

    /// The counts of those of these members that have rows.
    pub async fn counts_of(
        &self,
        metric: Metric,
        ids: &[i64],
    ) -> Result<BTreeMap<i64, i64>, DatabaseError> {
        let source = source(metric);
        let mut counts = BTreeMap::new();
        for chunk in ids.chunks(CHUNK_ROWS) {
            let mut query = source.select();
            let mut list = query.push("in (").separated(", ");
            for id in chunk {
                list.push_bind(*id);
            }
            query.push(format!(") group by {}", source.member));
            // The statement is not kept prepared: its text depends on the number of ids.
            let rows: Vec<(i64, i64)> =
                query.build_query_as().persistent(false).fetch_all(&self.pool).await?;
            counts.extend(rows);
        }
        Ok(counts)
    }
}
