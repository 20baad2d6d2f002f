//! The daemon's own log: lines on the standard error, where journald and a terminal find them.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::files::Demo;

/// Variable that sets the level, such as `debug` or `warn,punctual::store=debug`.
const LEVEL_VARIABLE: &str = "PUNCTUAL_LOG";

/// A database driver reports what it also returns: a loss would be told several times, and each start by a notice.
const DRIVERS: &str = "sqlx=error,sqlx_core=error";

/// Begins to log. A demonstration shows every run; a daemon shows those that went wrong.
pub(super) fn start(demo: Demo) {
    let level = if demo == Demo::Yes { "info,ledger=debug" } else { "info" };
    let filter = EnvFilter::try_from_env(LEVEL_VARIABLE)
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},{DRIVERS}")));
    let terminal = std::io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal);
    // journald has a time of its own for each line.
    let started = if std::env::var_os("JOURNAL_STREAM").is_some() {
        layer.without_time().with_target(false).try_init()
    } else {
        layer.with_target(false).try_init()
    };
    // Only a second start within one process can fail, and then the first one's log goes on.
    drop(started);
}
