//! The program's own log: journald's native protocol under systemd, else lines on stderr.
//!
//! An event becomes an entry ([`entry`]), which goes through a bounded queue to a thread of its own ([`queue`]). The
//! thread writes it to journald ([`journal`]) or stderr. [`directives`] parses the filter, and [`reloadable_filter`]
//! changes it while the daemon runs.
//!
//! The daemon must go on whatever happens to its log: nothing that logs waits, and an entry that cannot be written is
//! counted and dropped.

mod directives;
mod entry;
mod journal;
mod queue;
mod reloadable_filter;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tracing::{Level, Subscriber};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt;

use self::directives::Directives;
use self::entry::{EntryLayer, LogEntry, LogFormat};
use self::queue::LogQueue;
use self::reloadable_filter::ReloadableFilter;
use crate::cli::{CliError, Console};
use crate::control::log::LogFilter;

/// Maximum time that the end of the process waits for the last entries to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// The log of a daemon. [`DaemonLog::end`] writes what is still queued.
#[derive(Debug)]
pub(super) struct DaemonLog {
    queue: LogQueue,
    filter: ReloadableFilter,
}

/// Starts the log of a daemon. If that fails, reports why and returns the exit code.
pub(super) fn start(is_demo: bool, output: &Console) -> Result<DaemonLog, ExitCode> {
    let format = journal::stderr_format();
    let queue = LogQueue::start(format).map_err(|error| {
        let why = format!("the thread of the log could not be started: {error}");
        output.report(Err(CliError::Refused(why)))
    })?;
    let filter = Directives::from_environment(is_demo)
        .and_then(|directives| ReloadableFilter::new(is_demo, directives));
    let (filter, layer) = match filter {
        Ok(filter) => filter,
        Err(why) => return Err(end(&queue, &Err(CliError::Usage(why)), output)),
    };
    let own = queue.clone();
    subscribe(registry().with(layer).with(EntryLayer::new(format, move |entry| own.push(entry))));
    let log = DaemonLog { queue, filter };
    log.log_panics();
    Ok(log)
}

/// Starts the log of a worker process, whose stderr is the output of the run. Each line is written at once, so that it
/// keeps its place among the lines of the builtin.
pub(super) fn start_in_worker() {
    // The daemon has refused invalid directives already.
    let filter = Directives::from_environment(false).and_then(|directives| directives.filter());
    let write = |entry: LogEntry| {
        // This fails only if the daemon is gone, and then the worker ends soon.
        drop(std::io::stderr().write_all(entry.line(LogFormat::Plain).as_bytes()));
    };
    let layer = EntryLayer::new(LogFormat::Plain, write);
    subscribe(registry().with(filter.unwrap_or_default()).with(layer));
}

fn subscribe(subscriber: impl Subscriber + Send + Sync) {
    // This fails only for a second log in one process. Then the first one stays in use.
    drop(subscriber.try_init());
}

impl DaemonLog {
    /// Changes what is logged.
    pub(super) fn filter(&self) -> Arc<dyn LogFilter> {
        Arc::new(self.filter.clone())
    }

    /// Makes panics entries of the log. The standard library's own hook would block on stderr.
    fn log_panics(&self) {
        let queue = self.queue.clone();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("without a name");
            let mut text = format!("thread {name}: {info}");
            let trace = Backtrace::capture();
            if trace.status() == BacktraceStatus::Captured {
                text = format!("{text}\n{trace}");
            }
            queue.push(LogEntry::from_text(&text, Level::ERROR));
        }));
    }

    /// Logs why the daemon failed, if it did, writes the queued entries within a time limit, and returns the exit code.
    pub(super) fn end(self, result: &Result<(), CliError>, output: &Console) -> ExitCode {
        end(&self.queue, result, output)
    }
}

fn end(queue: &LogQueue, result: &Result<(), CliError>, output: &Console) -> ExitCode {
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            queue.push_last(LogEntry::from_text(&output.worded(failure), Level::ERROR));
            failure.exit_code()
        }
    };
    queue.finish(FLUSH_LIMIT);
    code
}
