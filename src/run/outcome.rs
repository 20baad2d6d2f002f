//! How an attempt ended, and what it cost.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::RunId;
use crate::clock::Timestamp;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Succeeded {
        /// The result of a builtin.
        result: Option<Value>,
        /// The exit code of a command.
        exit_code: Option<i32>,
    },
    Failed {
        error: String,
        /// The exit code of a command, unless a signal ended it.
        exit_code: Option<i32>,
        /// The signal that ended a command or a worker process.
        signal: Option<i32>,
        /// Whether a retry cannot help, as the task said.
        permanent: bool,
    },
    /// It was cancelled before it ended by itself.
    Cancelled {
        /// Who cancelled it and why, in words.
        reason: String,
    },
    /// It exceeded its timeout.
    TimedOut {
        /// The timeout, in words.
        error: String,
    },
    /// The outcome is unknown, because its daemon crashed or stopped waiting while it ran.
    Lost {
        /// When that was discovered, in words.
        error: String,
    },
}

impl Outcome {
    /// The word of the run's state.
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

/// The resources that an attempt used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// CPU time in microseconds, including that of the processes that it has waited for.
    pub cpu_micros: Option<u64>,
    /// The peak memory in bytes of one process: its own, or one that it has waited for.
    pub peak_memory: Option<u64>,
}

/// An attempt that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    pub run_id: RunId,
    /// The number of the attempt, from 1.
    pub number: u32,
    pub node: Arc<str>,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub outcome: Outcome,
    pub cost: Cost,
}
