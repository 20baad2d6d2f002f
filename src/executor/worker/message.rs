//! What a daemon and its worker processes tell each other.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::Json;

/// The version of these messages. Both sides are the same program, unless another one was configured.
pub(super) const VERSION: u32 = 1;

/// From the daemon to a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Request<'a> {
    /// The first message.
    Hello(Hello<'a>),
    /// Run a builtin. There is one call at a time.
    Call(Call<'a>),
    /// Ask the builtin that runs to end. It may come too late.
    Cancel(Cancel<'a>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello<'a> {
    pub(super) version: u32,
    /// The daemon's process.
    pub(super) daemon: u32,
    /// A call that takes longer than this has to give a sign of life so often.
    pub(super) beat_millis: u64,
    /// What the worker builds its registry from.
    pub(super) settings: Cow<'a, Value>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Call<'a> {
    pub(super) run_id: Cow<'a, str>,
    pub(super) job_id: Cow<'a, str>,
    pub(super) attempt: u32,
    /// Microseconds.
    pub(super) scheduled_at: Option<i64>,
    pub(super) name: Cow<'a, str>,
    pub(super) args: Cow<'a, Json>,
    pub(super) event: Option<Cow<'a, Value>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Cancel<'a> {
    pub(super) run_id: Cow<'a, str>,
    pub(super) attempt: u32,
}

/// From a worker to the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Answer {
    /// The hello was understood; calls may come.
    Ready { version: u32 },
    /// A sign of life.
    Beat,
    /// How the call has ended.
    Done(Done),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) outcome: Answered,
    pub(super) cpu_micros: Option<u64>,
    pub(super) peak_memory: Option<u64>,
}

/// What a builtin came to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Answered {
    Succeeded {
        result: Value,
    },
    Failed {
        error: String,
        permanent: bool,
    },
    /// It ended early, as it was asked to; who asked knows why.
    Cancelled,
}
