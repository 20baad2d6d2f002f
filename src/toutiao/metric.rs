//! The statistics: their names, and the keys under which their counters are published.
//!
//! The rows that each of them counts are defined in [`super::sql`]. Readings are not among them: the counter is their only
//! record, so it cannot be repaired.

use crate::words::words;

/// The keys that count readings of an article and of an author; an old version wrote the latter under an empty name. No
/// repair may change them.
pub const READING_KEYS: [&str; 3] = [ARTICLE_READING_KEY, "count:user:arts:reading", ""];

/// The key that counts how often each article was read.
pub const ARTICLE_READING_KEY: &str = "count:art:reading";

words! {
    /// A statistic, with its name in settings and reports. They are repaired in this order.
    #[derive(PartialOrd, Ord)]
    pub enum Metric {
        /// Approved articles of a user.
        UserArticles = "user_articles",
        /// Collections that hold an article.
        ArticleCollecting = "article_collecting",
        /// Articles that a user has collected.
        UserCollecting = "user_collecting",
        /// Users who dislike an article.
        ArticleDislikes = "article_dislikes",
        /// Users who like an article.
        ArticleLikes = "article_likes",
        /// Users who like a comment.
        CommentLikes = "comment_likes",
        /// Approved comments and replies under an article.
        ArticleComments = "article_comments",
        /// Approved replies to a comment.
        CommentReplies = "comment_replies",
        /// Users that a user follows.
        UserFollowings = "user_followings",
        /// Users who follow a user.
        UserFollowers = "user_followers",
        /// Likes that the articles of a user have received.
        UserLiked = "user_liked",
    }
}

impl Metric {
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
