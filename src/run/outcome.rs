//! How an execution ended, and what it cost.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::RunId;
use crate::clock::Timestamp;

/// How an execution ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It did its work.
    Succeeded {
        /// What a builtin answered.
        result: Option<Value>,
        /// A command's exit code: 0.
        exit_code: Option<i32>,
    },
    /// It failed.
    Failed {
        /// What went wrong.
        error: String,
        /// A command's exit code, unless a signal ended it.
        exit_code: Option<i32>,
        /// The signal that ended a command or a worker process.
        signal: Option<i32>,
        /// Whether the task said that trying again cannot help.
        permanent: bool,
    },
    /// Someone ended it before it ended by itself.
    Cancelled {
        /// Who or what, and why, in words.
        reason: String,
    },
    /// It took longer than it may, and was ended.
    TimedOut {
        /// How long it may take, in words.
        error: String,
    },
    /// Nobody knows: its daemon died, or stopped waiting, while it ran.
    Lost {
        /// When that was found, in words.
        error: String,
    },
}

impl Outcome {
    /// The state's word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
            Self::TimedOut { .. } => "timed_out",
            Self::Lost { .. } => "lost",
        }
    }
}

/// What an execution cost beside its time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Time on processors, in microseconds: its own, and that of the processes that it has waited for.
    pub cpu_micros: Option<u64>,
    /// The most memory that it, or a process that it has waited for, had at a time, in bytes.
    pub peak_memory: Option<u64>,
}

/// An attempt that was not the last one of its run.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Of which run.
    pub run_id: RunId,
    /// 1 for the first.
    pub number: u32,
    /// Where it was executed.
    pub node: Arc<str>,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// What it cost.
    pub cost: Cost,
}
