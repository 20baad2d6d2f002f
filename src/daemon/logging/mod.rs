//! The program's own log: lines on standard error, where journald and a terminal find them.
//!
//! The daemon must go on whatever happens to its log. Nothing that logs waits for standard error: lines go through a
//! bounded queue to a thread of its own ([`LogQueue`]), and a line that cannot be written is counted and dropped.

mod level;
mod line;
mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::process::ExitCode;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use self::line::{Journal, Lines};
use self::queue::LogQueue;
use super::files::Demo;
use crate::cli::Failure;

/// How long the end of the process waits for the last lines to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// The log of a daemon. [`Log::end`] writes what is still queued.
#[derive(Debug)]
pub(super) struct Log {
    queue: LogQueue,
    journal: Journal,
}

/// Begins to log what a daemon does. A demonstration shows every run; a daemon shows those that went wrong.
pub(super) fn start(demo: Demo) -> Result<Log, Failure> {
    let filter = level::filter(demo).map_err(Failure::Usage)?;
    let queue = LogQueue::start().map_err(|error| {
        Failure::Refused(format!("the thread of the log could not be started: {error}"))
    })?;
    let journal = Journal::find();
    subscribe(filter, Lines::new(queue.clone(), journal), journal);
    let log = Log { queue, journal };
    log.take_panics();
    Ok(log)
}

/// Begins to log in a worker process, whose standard error is the output of the run: each line is written at once, so
/// that it keeps its place among those of the builtin.
pub(super) fn start_in_worker() {
    // The daemon has refused a level that is not understood, and a worker has nobody to tell.
    let filter = level::filter(Demo::No).unwrap_or_default();
    subscribe(filter, Lines::new(std::io::stderr, Journal::No), Journal::No);
}

fn subscribe<W>(filter: EnvFilter, writer: W, journal: Journal)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(false)
        .log_internal_errors(false)
        .with_target(false);
    let started = match journal {
        // journald has a time of its own for each line.
        Journal::Yes => layer.without_time().try_init(),
        Journal::No => layer.try_init(),
    };
    // Only a second start within one process can fail, and then the first one's log goes on.
    drop(started);
}

impl Log {
    /// Has a panic logged as a line like any other: the hook of the standard library writes to standard error, and
    /// waits for it.
    fn take_panics(&self) {
        let (queue, journal) = (self.queue.clone(), self.journal);
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("without a name");
            let mut text = format!("thread {name}: {info}");
            let trace = Backtrace::capture();
            if trace.status() == BacktraceStatus::Captured {
                text = format!("{text}\n{trace}");
            }
            queue.push(&line::formatted(&text, tracing::Level::ERROR, journal));
        }));
    }

    /// Says why the daemon failed, if it did, writes what is queued as far as that is possible in a limited time, and
    /// gives the exit code.
    pub(super) fn end(self, result: &Result<(), Failure>) -> ExitCode {
        let code = match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                let text = format!("punctual: {failure}");
                self.queue.push_last(&line::formatted(&text, tracing::Level::ERROR, self.journal));
                failure.exit_code()
            }
        };
        self.queue.finish(FLUSH_LIMIT);
        code
    }
}
