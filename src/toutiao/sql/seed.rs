//! Fills empty tables with given rows: all of them or, after a crash, none.

use sqlx::query_builder::Separated;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::{BEGIN, CHUNK_ROWS, DatabaseError, ToutiaoDatabase};

/// A row of `user_basic`.
#[derive(Debug, Clone)]
pub struct UserRow {
    /// Id.
    pub id: i64,
    /// Telephone number, 11 digits.
    pub mobile: String,
    /// Nickname.
    pub name: String,
    /// Key of the portrait.
    pub photo: Option<String>,
    /// Whether this is a media account.
    pub is_media: bool,
    /// A line about the user.
    pub introduction: Option<String>,
    /// What the account is certified as.
    pub certificate: Option<String>,
}

/// A row of `news_article_basic`.
#[derive(Debug, Clone)]
pub struct ArticleRow {
    /// Id.
    pub id: i64,
    /// The author.
    pub user_id: i64,
    /// Channel.
    pub channel_id: i64,
    /// Title.
    pub title: String,
    /// 2 is approved.
    pub status: i64,
    /// When it was written.
    pub time: String,
}

/// A row of `news_comment`.
#[derive(Debug, Clone)]
pub struct CommentRow {
    /// Id.
    pub id: i64,
    /// Who wrote it.
    pub user_id: i64,
    /// The article.
    pub article_id: i64,
    /// The comment that is replied to.
    pub parent_id: Option<i64>,
    /// Text.
    pub content: String,
    /// 1 is approved.
    pub status: i64,
    /// When it was written.
    pub time: String,
}

/// What a user thinks of something: a row of `news_collection`, `news_attitude` or `news_comment_liking`.
#[derive(Debug, Clone)]
pub struct MarkRow {
    /// The user.
    pub user_id: i64,
    /// The article or comment.
    pub target_id: i64,
    /// `is_deleted` or `attitude`.
    pub value: Option<i64>,
    /// When it was set.
    pub time: String,
}

/// A row of `user_relation`.
#[derive(Debug, Clone)]
pub struct RelationRow {
    /// Who follows.
    pub user_id: i64,
    /// Who is followed.
    pub target_user_id: i64,
    /// 1 follows.
    pub relation: i64,
    /// When it was set.
    pub time: String,
}

/// All rows.
#[derive(Debug, Clone, Default)]
pub struct SeedRows {
    pub users: Vec<UserRow>,
    pub relations: Vec<RelationRow>,
    pub articles: Vec<ArticleRow>,
    pub collections: Vec<MarkRow>,
    pub attitudes: Vec<MarkRow>,
    pub comments: Vec<CommentRow>,
    pub comment_likings: Vec<MarkRow>,
}

impl ToutiaoDatabase {
    /// Writes all rows in one transaction if there is no user yet; tells whether it did.
    pub async fn seed(&self, content: &SeedRows) -> Result<bool, DatabaseError> {
        let mut transaction = self.pool.begin_with(BEGIN).await?;
        let users: Option<(i64,)> = sqlx::query_as("select user_id from user_basic limit 1")
            .fetch_optional(&mut *transaction)
            .await?;
        if users.is_some() {
            return Ok(false);
        }
        insert_people(&mut transaction, content).await?;
        insert_articles(&mut transaction, content).await?;
        insert_marks(&mut transaction, content).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

async fn insert_people(
    connection: &mut SqliteConnection,
    content: &SeedRows,
) -> Result<(), DatabaseError> {
    let head = "insert into user_basic (user_id, mobile, user_name, profile_photo, is_media, is_verified, \
                introduction, certificate) ";
    insert(connection, head, &content.users, |mut row, user| {
        row.push_bind(user.id).push_bind(user.mobile.as_str()).push_bind(user.name.as_str());
        row.push_bind(user.photo.as_deref()).push_bind(i64::from(user.is_media));
        row.push_bind(i64::from(user.certificate.is_some()));
        row.push_bind(user.introduction.as_deref()).push_bind(user.certificate.as_deref());
    })
    .await?;
    let head =
        "insert into user_relation (user_id, target_user_id, relation, create_time, update_time) ";
    insert(connection, head, &content.relations, |mut row, relation| {
        row.push_bind(relation.user_id)
            .push_bind(relation.target_user_id)
            .push_bind(relation.relation);
        row.push_bind(relation.time.as_str()).push_bind(relation.time.as_str());
    })
    .await
}

async fn insert_articles(
    connection: &mut SqliteConnection,
    content: &SeedRows,
) -> Result<(), DatabaseError> {
    let head = "insert into news_article_basic (article_id, user_id, channel_id, title, cover, status, \
                create_time, update_time) ";
    insert(connection, head, &content.articles, |mut row, article| {
        row.push_bind(article.id).push_bind(article.user_id).push_bind(article.channel_id);
        row.push_bind(article.title.as_str()).push_bind(r#"{"type":0,"images":[]}"#);
        row.push_bind(article.status)
            .push_bind(article.time.as_str())
            .push_bind(article.time.as_str());
    })
    .await?;
    let head = "insert into news_comment (comment_id, user_id, article_id, parent_id, content, status, create_time) ";
    insert(connection, head, &content.comments, |mut row, comment| {
        row.push_bind(comment.id).push_bind(comment.user_id).push_bind(comment.article_id);
        row.push_bind(comment.parent_id).push_bind(comment.content.as_str());
        row.push_bind(comment.status).push_bind(comment.time.as_str());
    })
    .await
}

async fn insert_marks(
    connection: &mut SqliteConnection,
    content: &SeedRows,
) -> Result<(), DatabaseError> {
    let tables = [
        (
            "insert into news_collection (user_id, article_id, is_deleted, create_time, update_time) ",
            &content.collections,
        ),
        (
            "insert into news_attitude (user_id, article_id, attitude, create_time, update_time) ",
            &content.attitudes,
        ),
        (
            "insert into news_comment_liking (user_id, comment_id, is_deleted, create_time, update_time) ",
            &content.comment_likings,
        ),
    ];
    for (head, marks) in tables {
        insert(connection, head, marks, |mut row, mark| {
            row.push_bind(mark.user_id).push_bind(mark.target_id).push_bind(mark.value);
            row.push_bind(mark.time.as_str()).push_bind(mark.time.as_str());
        })
        .await?;
    }
    Ok(())
}

async fn insert<'row, R>(
    connection: &mut SqliteConnection,
    head: &'static str,
    rows: &'row [R],
    bind: impl Fn(Separated<'_, Sqlite, &'static str>, &'row R),
) -> Result<(), DatabaseError> {
    for chunk in rows.chunks(CHUNK_ROWS) {
        let mut query = QueryBuilder::<Sqlite>::new(head);
        query.push_values(chunk, &bind);
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}
