//! Words that say how a job behaves when it is late, still busy, or was interrupted.

use serde::{Deserialize, Deserializer, Serialize};

/// Which of several occurrences that fell due together are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Coalesce {
    /// The latest of them, once.
    #[default]
    Latest,
    /// The earliest of them, once.
    Earliest,
    /// Each of them, one after the other.
    All,
}

impl Coalesce {
    /// The rule of that name.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "latest" => Some(Self::Latest),
            "earliest" => Some(Self::Earliest),
            "all" => Some(Self::All),
            _ => None,
        }
    }

    /// The rule's name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Earliest => "earliest",
            Self::All => "all",
        }
    }
}

impl<'de> Deserialize<'de> for Coalesce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected \"latest\", \"earliest\", \"all\", true or false")]
        enum CoalesceInput {
            Flag(bool),
            Word(String),
        }
        match CoalesceInput::deserialize(deserializer)? {
            CoalesceInput::Flag(true) => Ok(Self::Latest),
            CoalesceInput::Flag(false) => Ok(Self::All),
            CoalesceInput::Word(word) => Self::parse(&word).ok_or_else(|| {
                serde::de::Error::custom(format!(
                    "unknown rule \"{word}\" (expected \"latest\", \"earliest\", \"all\", true or false)"
                ))
            }),
        }
    }
}

/// What becomes of an occurrence while as many runs of its job as `max_instances` allows are in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// It is not run, and recorded so.
    #[default]
    Skip,
    /// It waits until one of them ends.
    Queue,
    /// The oldest of them is ended, and it waits for that.
    Replace,
}

impl Overlap {
    /// The rule of that name.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Skip, Self::Queue, Self::Replace].into_iter().find(|rule| rule.word() == word)
    }

    /// The rule's name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
            Self::Replace => "replace",
        }
    }
}

/// What happens to a finished job once none of its runs is in flight. Without one of these, the job is removed when the
/// time that `[retention]` gives finished jobs has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFinish {
    /// It is removed at once.
    Remove,
    /// It is kept until a client removes it.
    Keep,
}

/// What becomes of a run that was in flight when its daemon died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnCrash {
    /// It is run again, as the next attempt: at least once.
    #[default]
    Rerun,
    /// It is recorded as lost: at most once.
    Lose,
}

impl OnCrash {
    /// The word that the store keeps.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rerun => "rerun",
            Self::Lose => "lose",
        }
    }

    /// The choice of that word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Rerun, Self::Lose].into_iter().find(|choice| choice.word() == word)
    }
}
