//! The messages of a daemon and its worker processes.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::Json;

/// The version of these messages. Both sides are usually the same program, but another one can be configured.
pub(crate) const VERSION: u32 = 1;

/// From the daemon to a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DaemonMessage<'a> {
    /// The first message.
    Hello(HelloMessage<'a>),
    /// Run a builtin. A worker has one call at a time.
    Call(BuiltinCall<'a>),
    /// Cancel the builtin of this call. It may arrive after the call has ended.
    Cancel(CallId<'a>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HelloMessage<'a> {
    pub(crate) version: u32,
    /// The daemon's process id.
    pub(crate) daemon: u32,
    /// The interval of keep-alives during a call, in milliseconds.
    #[serde(rename = "beat_millis")]
    pub(crate) keep_alive_millis: u64,
    /// The settings from which the worker builds its registry of builtins.
    pub(crate) settings: Cow<'a, Value>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BuiltinCall<'a> {
    pub(crate) run_id: Cow<'a, str>,
    pub(crate) job_id: Cow<'a, str>,
    pub(crate) attempt: u32,
    /// Microseconds since 1970.
    pub(crate) scheduled_at: Option<i64>,
    pub(crate) name: Cow<'a, str>,
    pub(crate) args: Cow<'a, Json>,
    pub(crate) event: Option<Cow<'a, Value>>,
}

/// Which call a cancel is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CallId<'a> {
    pub(crate) run_id: Cow<'a, str>,
    pub(crate) attempt: u32,
}

/// From a worker to the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WorkerMessage {
    /// The answer to the hello: the worker accepts calls.
    Ready { version: u32 },
    /// The call is still running.
    #[serde(rename = "beat")]
    KeepAlive,
    /// The call has ended.
    Done(CallEnd),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CallEnd {
    pub(crate) outcome: CallOutcome,
    pub(crate) cpu_micros: Option<u64>,
    /// Bytes.
    pub(crate) peak_memory: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CallOutcome {
    Succeeded {
        result: Value,
    },
    Failed {
        error: String,
        permanent: bool,
    },
    /// The builtin ended early because of a cancel. The daemon knows the reason.
    Cancelled,
}
