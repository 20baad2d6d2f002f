//! Builtins: registered Rust functions that jobs call by name.
//!
//! A builtin runs on a thread of a pool or on the main thread of a worker process, so it may block. The daemon fills the
//! registry once, before the first run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::context::Context;
use super::panics;
use crate::clock::{Clock, Timestamp};
use crate::invalid::Invalid;
use crate::job::admission::Builtins;
use crate::output::Stream;
use crate::run::traceparent;

/// The arguments of a builtin, as the job's task gives them.
pub type Args = Map<String, Value>;

/// A call of a builtin: what it may know of its run, and how it writes output and notices a cancel.
#[derive(Debug)]
pub struct Call {
    /// The same for every attempt of the run, so that work can be made idempotent.
    pub run_id: String,
    pub job_id: String,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The occurrence that the run serves; `None` for a manual run.
    pub scheduled_at: Option<Timestamp>,
    pub args: Args,
    /// The report of another run, if this run is a hook.
    pub event: Option<Arc<Value>>,
    pub context: Arc<Context>,
    /// Gives the time of each output line.
    pub clock: Arc<dyn Clock>,
}

impl Call {
    /// The trace id of the run in the form of the W3C header `traceparent`, for the calls that the builtin makes.
    pub fn traceparent(&self) -> String {
        traceparent(&self.run_id, self.attempt)
    }

    /// Whether the run was cancelled. A builtin that takes long has to check this now and then, and to return
    /// [`TaskError::Cancelled`].
    pub fn is_cancelled(&self) -> bool {
        self.context.cancellation.is_cancelled()
    }

    /// Blocks for `limit`, or until the run is cancelled: then the answer is true.
    pub fn wait(&self, limit: Duration) -> bool {
        self.context.cancellation.wait(limit)
    }

    /// Waits until the run is cancelled, for async code.
    pub async fn cancelled(&self) {
        self.context.cancellation.cancelled().await;
    }

    /// Writes a line to the run's output.
    pub fn say(&self, line: &str) {
        let now = self.clock.now();
        self.context.log.write(now, Stream::Stdout, format!("{line}\n").as_bytes());
    }
}

/// Why a builtin failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// A retry may succeed. The text is for a person.
    #[error("{0}")]
    Passing(String),
    /// No retry can succeed.
    #[error("{0}")]
    Permanent(String),
    /// The builtin ended early because its run was cancelled.
    #[error("it ended because it was cancelled")]
    Cancelled,
}

impl TaskError {
    pub fn passing(message: impl Into<String>) -> Self {
        Self::Passing(message.into())
    }

    pub fn permanent(message: impl Into<String>) -> Self {
        Self::Permanent(message.into())
    }
}

/// A builtin as its author writes it.
pub trait BuiltinFunction: Send + Sync {
    /// The name by which tasks call it, such as `orders.expire`.
    fn name(&self) -> &'static str;

    /// Checks the arguments when a job is added. The error's field is the name of the argument.
    fn check(&self, args: &Args) -> Result<(), Invalid>;

    /// Does the work. It may block. A panic becomes a failed run.
    fn run(&self, call: &Call) -> Result<Value, TaskError>;
}

/// All builtins by name.
#[derive(Clone, Default)]
pub struct Registry {
    builtins: BTreeMap<&'static str, Arc<dyn BuiltinFunction>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.builtins.keys()).finish()
    }
}

impl Registry {
    /// Adds a builtin. It replaces an earlier one of the same name.
    pub fn register(&mut self, builtin: impl BuiltinFunction + 'static) {
        self.builtins.insert(builtin.name(), Arc::new(builtin));
    }

    pub fn get(&self, name: &str) -> Option<&dyn BuiltinFunction> {
        self.builtins.get(name).map(AsRef::as_ref)
    }

    /// All names in alphabetical order.
    pub fn names(&self) -> Vec<&'static str> {
        self.builtins.keys().copied().collect()
    }

    /// Checks that a builtin exists and accepts the arguments. The error's field is a field of the task.
    pub fn check(&self, name: &str, args: &Args) -> Result<(), Invalid> {
        let builtin = self.get(name).ok_or_else(|| {
            let known = self.names().join(", ");
            Invalid::new("name", format!("unknown builtin \"{name}\" (known: {known})"))
        })?;
        builtin.check(args).map_err(|invalid| invalid.within("args"))
    }

    /// Runs a builtin. An unknown name and a panic are errors too.
    pub fn run(&self, name: &str, call: &Call) -> Result<Value, TaskError> {
        let builtin = self
            .get(name)
            .ok_or_else(|| TaskError::permanent(format!("unknown builtin \"{name}\"")))?;
        let result = panics::catch(|| builtin.run(call));
        result.unwrap_or_else(|error| Err(TaskError::passing(error)))
    }
}

impl Builtins for Registry {
    fn check(&self, name: &str, args: &Args) -> Result<(), Invalid> {
        Self::check(self, name, args)
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}
