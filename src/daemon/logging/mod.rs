//! The program's own log: journald's entries under systemd, else lines on standard error.
//!
//! The daemon must go on whatever happens to its log. Nothing that logs waits: entries go through a bounded queue to a
//! thread of its own ([`LogQueue`]), and an entry that cannot be written is counted and dropped.

mod entry;
mod floor;
mod journal;
mod level;
mod levels;
mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tracing::{Level, Subscriber};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt;

use self::entry::{Entries, Entry, Reader};
use self::levels::Levels;
use self::queue::LogQueue;
use super::files::Demo;
use crate::cli::{CliError, Console};
use crate::control::log::LogFilter;

/// How long the end of the process waits for the last entries to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// The log of a daemon. [`Log::end`] writes what is still queued.
#[derive(Debug)]
pub(super) struct Log {
    queue: LogQueue,
    levels: Levels,
}

/// Begins to log what a daemon does, or ends with an exit code. A demonstration shows every run; a daemon shows those
/// that went wrong.
pub(super) fn start(demo: Demo, output: &Console) -> Result<Log, ExitCode> {
    let reader = journal::reader();
    let queue = LogQueue::start(reader).map_err(|error| {
        let why = format!("the thread of the log could not be started: {error}");
        output.report(Err(CliError::Refused(why)))
    })?;
    let levels = level::of_environment(demo).and_then(|start| Levels::new(demo, start));
    let (levels, filter) = match levels {
        Ok(started) => started,
        Err(why) => return Err(end(&queue, &Err(CliError::Usage(why)), output)),
    };
    let own = queue.clone();
    subscribe(registry().with(filter).with(Entries::new(reader, move |entry| own.push(entry))));
    let log = Log { queue, levels };
    log.take_panics();
    Ok(log)
}

/// Begins to log in a worker process, whose standard error is the output of the run: each line is written at once, so
/// that it keeps its place among those of the builtin.
pub(super) fn start_in_worker() {
    // The daemon has refused a level that is not understood, and a worker has nobody to tell.
    let filter = level::of_environment(Demo::No).and_then(|directives| level::filter(&directives));
    let write = |entry: Entry| {
        // Where the daemon is gone, the worker ends soon.
        drop(std::io::stderr().write_all(entry.line(Reader::Plain).as_bytes()));
    };
    subscribe(registry().with(filter.unwrap_or_default()).with(Entries::new(Reader::Plain, write)));
}

fn subscribe(subscriber: impl Subscriber + Send + Sync) {
    // Only a second start within one process can fail, and then the first one's log goes on.
    drop(subscriber.try_init());
}

impl Log {
    /// The way to change what is logged.
    pub(super) fn filter(&self) -> Arc<dyn LogFilter> {
        Arc::new(self.levels.clone())
    }

    /// Has a panic logged as an entry like any other: the hook of the standard library writes to standard error, and
    /// waits for it.
    fn take_panics(&self) {
        let queue = self.queue.clone();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("without a name");
            let mut text = format!("thread {name}: {info}");
            let trace = Backtrace::capture();
            if trace.status() == BacktraceStatus::Captured {
                text = format!("{text}\n{trace}");
            }
            queue.push(Entry::of_text(&text, Level::ERROR));
        }));
    }

    /// Says why the daemon failed, if it did, writes what is queued as far as that is possible in a limited time, and
    /// gives the exit code.
    pub(super) fn end(self, result: &Result<(), CliError>, output: &Console) -> ExitCode {
        end(&self.queue, result, output)
    }
}

fn end(queue: &LogQueue, result: &Result<(), CliError>, output: &Console) -> ExitCode {
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            queue.push_last(Entry::of_text(&output.worded(failure), Level::ERROR));
            failure.exit_code()
        }
    };
    queue.finish(FLUSH_LIMIT);
    code
}
