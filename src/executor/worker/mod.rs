//! Worker processes: this program, started again to run builtins in isolation. What a builtin
//! breaks there, it breaks there only.
//!
//! A worker's standard input is a socket to its daemon. What the two say there are frames ([`frame`])
//! of JSON ([`message`]): a hello and its answer, then one call at a time, signs of life while it
//! takes, and what it came to. What a builtin says or prints goes to the worker's standard output and
//! error, which the daemon reads beside it.
//!
//! A worker does not outlive its daemon, however that ends: the socket ends, and the kernel kills the
//! worker with the thread that has started it ([`spawner`]), even one that is stopped.

mod death;
mod frame;
mod keeper;
mod line;
mod memory;
mod message;
mod outputs;
mod remote;
mod serve;
mod socket;
mod spawner;
mod watch;

pub(super) use keeper::{Order, StartError, keep};
pub use serve::serve;
pub(super) use spawner::Spawner;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::program;

/// How a worker process is started.
#[derive(Debug, Clone)]
pub struct WorkerProgram {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// What it is told first, so that it can build the same registry.
    pub hello: Value,
    /// How long it is waited for.
    pub times: WorkerTimes,
}

impl WorkerProgram {
    /// The program itself, even after an upgrade has replaced its file.
    pub fn own(hello: Value) -> Self {
        let (program, arguments) = (Self::itself(), vec![program::WORKER.to_owned()]);
        Self { program, arguments, hello, times: WorkerTimes::default() }
    }

    /// The file of this program, even after an upgrade has replaced it.
    pub(super) fn itself() -> PathBuf {
        "/proc/self/exe".into()
    }

    /// Whether this process is what it starts. A program that does not do as it is told when it is started as a worker,
    /// such as a test, and goes on to start workers of its own, must not do so without end.
    fn is_running_here(&self) -> bool {
        let is_itself = self.program == Self::itself();
        let arguments = std::env::args_os().skip(1);
        is_itself && arguments.eq(self.arguments.iter().map(OsString::from))
    }
}

/// How long worker processes are waited for.
#[derive(Debug, Clone, Copy)]
pub struct WorkerTimes {
    /// Until a worker that was started is ready.
    pub start: Duration,
    /// How often it has to give a sign of life while a call takes.
    pub beat: Duration,
    /// Until a worker that gives none is killed.
    pub silence: Duration,
    /// Between the wish that a builtin ends and the end of its worker by force.
    pub grace: Duration,
    /// Until a worker that is not needed ends.
    pub idle: Duration,
}

impl Default for WorkerTimes {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(10),
            beat: Duration::from_secs(3),
            silence: Duration::from_secs(10),
            grace: Duration::from_secs(5),
            idle: Duration::from_mins(1),
        }
    }
}
