//! The statistics: their names, and the keys under which their counters are published.
//!
//! The rows that each of them counts are defined in [`super::sql`]. Readings are not among them: the counter is their only
//! record, so it cannot be repaired.

/// The keys that count readings of an article and of an author; an old version wrote the latter under an empty name. No
/// repair may change them.
pub const READING_KEYS: [&str; 3] = [ARTICLE_READING_KEY, "count:user:arts:reading", ""];

/// The key that counts how often each article was read.
pub const ARTICLE_READING_KEY: &str = "count:art:reading";

/// A statistic. They are repaired in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Approved articles of a user.
    UserArticles,
    /// Collections that hold an article.
    ArticleCollecting,
    /// Articles that a user has collected.
    UserCollecting,
    /// Users who dislike an article.
    ArticleDislikes,
    /// Users who like an article.
    ArticleLikes,
    /// Users who like a comment.
    CommentLikes,
    /// Approved comments and replies under an article.
    ArticleComments,
    /// Approved replies to a comment.
    CommentReplies,
    /// Users that a user follows.
    UserFollowings,
    /// Users who follow a user.
    UserFollowers,
    /// Likes that the articles of a user have received.
    UserLiked,
}

impl Metric {
    pub const ALL: [Self; 11] = [
        Self::UserArticles,
        Self::ArticleCollecting,
        Self::UserCollecting,
        Self::ArticleDislikes,
        Self::ArticleLikes,
        Self::CommentLikes,
        Self::ArticleComments,
        Self::CommentReplies,
        Self::UserFollowings,
        Self::UserFollowers,
        Self::UserLiked,
    ];

    /// The name in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::UserArticles => "user_articles",
            Self::ArticleCollecting => "article_collecting",
            Self::UserCollecting => "user_collecting",
            Self::ArticleDislikes => "article_dislikes",
            Self::ArticleLikes => "article_likes",
            Self::CommentLikes => "comment_likes",
            Self::ArticleComments => "article_comments",
            Self::CommentReplies => "comment_replies",
            Self::UserFollowings => "user_followings",
            Self::UserFollowers => "user_followers",
            Self::UserLiked => "user_liked",
        }
    }

    /// The key, unless the settings give another one.
    pub fn default_key(self) -> &'static str {
        match self {
            Self::UserArticles => "count:user:arts",
            Self::ArticleCollecting => "count:art:collecting",
            Self::UserCollecting => "count:user:art:collecting",
            Self::ArticleDislikes => "count:art:dislike",
            Self::ArticleLikes => "count:art:liking",
            Self::CommentLikes => "count:comm:liking",
            Self::ArticleComments => "count:art:comm",
            // The members are comments, in spite of the key; existing readers know it by this name.
            Self::CommentReplies => "count:art:reply",
            Self::UserFollowings => "count:user:followings",
            Self::UserFollowers => "count:user:followers",
            Self::UserLiked => "count:user:liked",
        }
    }
}
