//! How a worker process is started, and how long the daemon waits for it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::program;

/// The command line of a worker process, and what the daemon sends to it first.
#[derive(Debug, Clone)]
pub struct WorkerProgram {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// The settings from which the worker builds the same registry of builtins as the daemon.
    pub hello: Value,
    pub times: WorkerTimes,
}

impl WorkerProgram {
    /// This program, started as a worker.
    pub fn own(hello: Value) -> Self {
        let (program, arguments) = (Self::itself(), vec![program::WORKER.to_owned()]);
        Self { program, arguments, hello, times: WorkerTimes::default() }
    }

    /// The file of this program. The path is valid even after an upgrade has replaced the file.
    pub(crate) fn itself() -> PathBuf {
        "/proc/self/exe".into()
    }

    /// Whether this process was itself started with this command line. A program that ignores its worker arguments, such
    /// as a test binary, would start workers of its own, which would start further ones without end.
    pub(super) fn is_running_here(&self) -> bool {
        let is_itself = self.program == Self::itself();
        let arguments = std::env::args_os().skip(1);
        is_itself && arguments.eq(self.arguments.iter().map(OsString::from))
    }
}

/// The timeouts of worker processes.
#[derive(Debug, Clone, Copy)]
pub struct WorkerTimes {
    /// Until a worker that was started must be ready. Default: 10 s.
    pub start: Duration,
    /// How often a worker must send a keep-alive during a call. Default: 3 s.
    pub keep_alive: Duration,
    /// Until a worker that sends nothing during a call is killed. Default: 10 s.
    pub silence: Duration,
    /// Between a cancel and the kill of a worker whose builtin ignores it. Default: 5 s.
    pub grace: Duration,
    /// Until a worker that is idle and not a spare one ends. Default: 1 min.
    pub idle: Duration,
}

impl Default for WorkerTimes {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(10),
            keep_alive: Duration::from_secs(3),
            silence: Duration::from_secs(10),
            grace: Duration::from_secs(5),
            idle: Duration::from_mins(1),
        }
    }
}
