//! The counters in which the statistics are published: sorted sets of members with scores.
//!
//! Readers and writers of the application use them all the time, so no operation replaces a set as a whole. A repair
//! changes single members, each only if it still has the score that the repair has seen. If an increment came in between,
//! the repair looks again.

mod embedded;
mod redis;

use std::fmt;
use std::path::Path;

pub use self::embedded::Embedded;
pub use self::redis::Redis;
use super::settings::RedisSettings;
use super::sql::DatabaseError;

/// The largest number of members that one command reads or corrects, so that no command delays others.
pub const CHUNK_MEMBERS: usize = 500;

/// The file of embedded counters, in the state directory.
const EMBEDDED_FILE: &str = "counters.db";

/// Why an operation on the counters failed.
#[derive(Debug, thiserror::Error)]
pub enum CounterError {
    /// Redis failed or is unreachable.
    #[error("redis: {0}")]
    Redis(#[from] ::redis::RedisError),
    /// The file of embedded counters failed.
    #[error("embedded counters: {0}")]
    Embedded(#[from] DatabaseError),
}

impl From<sqlx::Error> for CounterError {
    fn from(error: sqlx::Error) -> Self {
        Self::Embedded(error.into())
    }
}

/// A member of a set: an id in decimal, or anything else that was written into the set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member(Vec<u8>);

impl Member {
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The id, if the member is an id as the application writes it.
    pub fn id(&self) -> Option<i64> {
        let text = str::from_utf8(&self.0).ok()?;
        text.parse().ok().filter(|id: &i64| id.to_string() == text)
    }
}

impl From<i64> for Member {
    fn from(id: i64) -> Self {
        Self(id.to_string().into_bytes())
    }
}

impl From<Vec<u8>> for Member {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&String::from_utf8_lossy(&self.0))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Score {
    /// A whole number that a double represents exactly.
    Whole(i64),
    /// Anything else that a set can hold, as it is written: `2.5`, `inf`, `1e+300`.
    Odd(String),
}

impl Score {
    /// The count to show, which is whole and never negative.
    pub fn shown(&self) -> i64 {
        match self {
            Self::Whole(count) => (*count).max(0),
            Self::Odd(text) => {
                text.split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or(0).max(0)
            }
        }
    }
}

impl fmt::Display for Score {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(count) => count.fmt(formatter),
            Self::Odd(text) => text.fmt(formatter),
        }
    }
}

/// Some members of a set, and where the next page begins. The same member may be on two pages.
#[derive(Debug)]
pub struct MemberPage {
    pub entries: Vec<(Member, Score)>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<Cursor>,
}

/// The position between two pages.
#[derive(Debug, Clone)]
pub struct Cursor(Vec<u8>);

/// A change of one member, which is made only if its score is still the one that was seen.
#[derive(Debug, Clone)]
pub struct Correction {
    pub member: Member,
    /// The score that was seen; `None` if the member was absent.
    pub from: Option<Score>,
    /// The new score. A member with zero is removed.
    pub to: i64,
}

/// The counters, in a file or in Redis.
#[derive(Debug, Clone)]
pub enum Counters {
    Embedded(Embedded),
    Redis(Redis),
}

impl Counters {
    /// Opens the counters. A Redis server that is down is not an error yet, because it is connected to when needed.
    pub async fn open(
        redis: Option<&RedisSettings>,
        state_dir: &Path,
    ) -> Result<Self, CounterError> {
        match redis {
            Some(redis) => Ok(Self::Redis(Redis::new(&redis.url)?)),
            None => Ok(Self::Embedded(Embedded::open(&state_dir.join(EMBEDDED_FILE)).await?)),
        }
    }

    /// A page of the members of a set. A member that is in the set during the whole traversal is on some page.
    pub async fn page(
        &self,
        key: &str,
        after: Option<&Cursor>,
    ) -> Result<MemberPage, CounterError> {
        match self {
            Self::Embedded(counters) => counters.page(key, after).await,
            Self::Redis(counters) => counters.page(key, after).await,
        }
    }

    /// The scores of some members, in their order; `None` for an absent member.
    pub async fn scores(
        &self,
        key: &str,
        members: &[Member],
    ) -> Result<Vec<Option<Score>>, CounterError> {
        let mut scores = Vec::with_capacity(members.len());
        for chunk in members.chunks(CHUNK_MEMBERS) {
            scores.extend(match self {
                Self::Embedded(counters) => counters.scores(key, chunk).await?,
                Self::Redis(counters) => counters.scores(key, chunk).await?,
            });
        }
        Ok(scores)
    }

    /// Adds to the score of a member. An absent member starts from zero.
    pub async fn add(&self, key: &str, member: &Member, by: i64) -> Result<(), CounterError> {
        match self {
            Self::Embedded(counters) => counters.add(key, member, by).await,
            Self::Redis(counters) => counters.add(key, member, by).await,
        }
    }

    /// Makes the corrections. Returns which of them were made, in their order.
    pub async fn correct(
        &self,
        key: &str,
        corrections: &[Correction],
    ) -> Result<Vec<bool>, CounterError> {
        let mut done = Vec::with_capacity(corrections.len());
        for chunk in corrections.chunks(CHUNK_MEMBERS) {
            done.extend(match self {
                Self::Embedded(counters) => counters.correct(key, chunk).await?,
                Self::Redis(counters) => counters.correct(key, chunk).await?,
            });
        }
        Ok(done)
    }

    /// The number of members of a set.
    pub async fn size(&self, key: &str) -> Result<u64, CounterError> {
        match self {
            Self::Embedded(counters) => counters.size(key).await,
            Self::Redis(counters) => counters.size(key).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_decimal_is_an_id() {
        for (text, id) in [
            ("42", Some(42)),
            ("042", None),
            ("+1", None),
            ("", None),
            ("4x", None),
            ("-1", Some(-1)),
        ] {
            assert_eq!(Member::from(text.as_bytes().to_vec()).id(), id, "{text}");
        }
        assert_eq!(Member::from(vec![0xff, 0xfe]).id(), None);
    }

    #[test]
    fn a_shown_count_is_whole_and_never_negative() {
        let odd = |text: &str| Score::Odd(text.to_owned());
        for (score, shown) in
            [(Score::Whole(3), 3), (Score::Whole(-1), 0), (odd("2.5"), 2), (odd("inf"), 0)]
        {
            assert_eq!(score.shown(), shown, "{score}");
        }
    }
}
