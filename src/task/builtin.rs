//! Builtin tasks: registered Rust functions, by name.
//!
//! A builtin runs on a thread of its own (a pool's, or a worker process's), so it may block.
//! The registry is filled once, by the daemon, before anything runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::context::Context;
use super::panics;
use crate::clock::{Clock, Timestamp};
use crate::invalid::Invalid;
use crate::output::Stream;
use crate::run::traceparent;

/// Arguments of a builtin, as they stand in the job's task.
pub type Args = Map<String, Value>;

/// One call of a builtin: what it may know of its run, and where its output goes.
#[derive(Debug)]
pub struct Call {
    /// The run's id: the same for every attempt, so that work can be made idempotent.
    pub run_id: String,
    /// The job's id.
    pub job_id: String,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The due instant that this run serves; none for a manual run.
    pub scheduled_at: Option<Timestamp>,
    /// The task's arguments.
    pub args: Args,
    /// What happened to which run, if this one tells of it.
    pub event: Option<Arc<Value>>,
    /// Whether the run is to end, and what it has said so far.
    context: Arc<Context>,
    /// What stamps its lines.
    clock: Arc<dyn Clock>,
}

impl Call {
    /// A call that is watched through this context, and whose lines this clock stamps.
    pub fn new(
        (run_id, attempt): (String, u32),
        job_id: String,
        args: Args,
        (context, clock): (Arc<Context>, Arc<dyn Clock>),
    ) -> Self {
        Self { run_id, job_id, attempt, scheduled_at: None, args, event: None, context, clock }
    }

    /// Sets the due instant.
    #[must_use]
    pub fn scheduled_at(mut self, at: Option<Timestamp>) -> Self {
        self.scheduled_at = at;
        self
    }

    /// Sets of what it tells.
    #[must_use]
    pub fn telling_of(mut self, event: Option<Arc<Value>>) -> Self {
        self.event = event;
        self
    }

    /// What tells those that it calls of which trace they are a part, as the W3C's `traceparent` has it.
    pub fn traceparent(&self) -> String {
        traceparent(&self.run_id, self.attempt)
    }

    /// Whether the run is to end. What takes long looks now and then, and ends with [`TaskError::Cancelled`].
    pub fn is_cancelled(&self) -> bool {
        self.context.cancellation.is_cancelled()
    }

    /// Waits for `limit`, or until the run is to end: then it answers true.
    pub fn wait(&self, limit: Duration) -> bool {
        self.context.cancellation.wait(limit)
    }

    /// Waits until the run is to end, for what awaits.
    pub async fn cancelled(&self) {
        self.context.cancellation.cancelled().await;
    }

    /// Adds a line to the run's output.
    pub fn say(&self, line: &str) {
        let now = self.clock.now();
        self.context.log.write(now, Stream::Stdout, format!("{line}\n").as_bytes());
    }
}

/// Why a builtin did not do its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// It failed in a way that may pass; what went wrong, for a person.
    #[error("{0}")]
    Passing(String),
    /// It failed in a way that stays, however often it is tried.
    #[error("{0}")]
    Permanent(String),
    /// It ended early because its run was cancelled.
    #[error("it ended because it was cancelled")]
    Cancelled,
}

impl TaskError {
    /// A failure that may pass.
    pub fn passing(message: impl Into<String>) -> Self {
        Self::Passing(message.into())
    }

    /// A failure that stays, however often it is tried.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::Permanent(message.into())
    }
}

/// A registered function.
pub trait Builtin: Send + Sync {
    /// The name by which tasks call it, such as `orders.expire`.
    fn name(&self) -> &'static str;

    /// Checks arguments when a job is added; the error's field is the argument's name.
    fn check(&self, args: &Args) -> Result<(), Invalid>;

    /// Does the work. It may block; a panic becomes a failed run.
    fn run(&self, call: &Call) -> Result<Value, TaskError>;
}

/// The builtins of this program, by name.
#[derive(Clone, Default)]
pub struct Registry {
    builtins: BTreeMap<&'static str, Arc<dyn Builtin>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.builtins.keys()).finish()
    }
}

impl Registry {
    /// Adds a builtin; a later one of the same name takes its place.
    pub fn register(&mut self, builtin: impl Builtin + 'static) {
        self.builtins.insert(builtin.name(), Arc::new(builtin));
    }

    /// The builtin of that name.
    pub fn get(&self, name: &str) -> Option<&dyn Builtin> {
        self.builtins.get(name).map(AsRef::as_ref)
    }

    /// All names, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.builtins.keys().copied().collect()
    }

    /// Checks that a builtin exists and takes these arguments; fields are those of a task.
    pub fn check(&self, name: &str, args: &Args) -> Result<(), Invalid> {
        let builtin = self.get(name).ok_or_else(|| {
            let known = self.names().join(", ");
            Invalid::new("name", format!("unknown builtin \"{name}\" (known: {known})"))
        })?;
        builtin.check(args).map_err(|invalid| invalid.within("args"))
    }

    /// Runs a builtin. A name that is not registered, and a panic, are failures like any other.
    pub fn run(&self, name: &str, call: &Call) -> Result<Value, TaskError> {
        let builtin = self
            .get(name)
            .ok_or_else(|| TaskError::permanent(format!("unknown builtin \"{name}\"")))?;
        let result = panics::caught(|| builtin.run(call));
        result.unwrap_or_else(|error| Err(TaskError::passing(error)))
    }
}
