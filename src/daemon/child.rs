//! The roles of this program in child processes of the daemon: `punctual worker`, `punctual exec` and `punctual launch`.

use std::process::ExitCode;
use std::sync::Arc;

use super::application::Application;
use super::logging;
use super::process_state::ProcessState;
use crate::cli::{CliError, report};
use crate::clock::SystemClock;
use crate::executor;

/// `punctual worker`: runs builtins in a worker process until the daemon is gone.
pub fn worker() -> ExitCode {
    let process = ProcessState::set_for_child();
    logging::start_in_worker();
    process.log_faults();
    report(run_worker().map_err(|error| CliError::Refused(format!("worker: {error:#}"))))
}

fn run_worker() -> anyhow::Result<()> {
    // The main thread runs builtins, which block on this runtime. Its one thread drives their connections.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    executor::serve_worker::<anyhow::Error>(|settings| {
        // The application opens only what the builtins that run need.
        let clock = Arc::new(SystemClock);
        Ok(Application::from_settings(settings, clock, runtime.handle())?.registry)
    })
}

/// `punctual exec`: sets up its own process as the daemon cannot from outside, and becomes a command.
pub fn exec() -> ExitCode {
    executor::exec()
        .unwrap_or_else(|error| report(Err(CliError::Refused(format!("exec: {error}")))))
}

/// `punctual launch`: starts commands in a cgroup until the daemon is gone.
pub fn launch() -> ExitCode {
    // The launcher receives secrets that the commands of its user must not read. It has no log for faults.
    drop(ProcessState::set_for_child());
    report(executor::launch().map_err(|error| CliError::Refused(format!("launch: {error}"))))
}
