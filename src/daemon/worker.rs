//! `punctual worker`: a worker process, started by the daemon. Its hello tells it what to build
//! its builtins from; it opens only what the builtins that it runs need.

use std::process::ExitCode;
use std::sync::Arc;

use super::app::App;
use super::inherited::Inherited;
use super::logging;
use crate::cli::{CliError, report};
use crate::clock::SystemClock;
use crate::executor::serve_worker;

/// Runs builtins until the daemon is gone.
pub fn worker() -> ExitCode {
    let inherited = Inherited::settle_worker();
    logging::start_in_worker();
    inherited.report();
    report(run().map_err(|error| CliError::Refused(format!("worker: {error:#}"))))
}

fn run() -> anyhow::Result<()> {
    // Builtins block on it from the main thread; its own thread drives their connections.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    serve_worker::<anyhow::Error>(|hello| {
        let app = App::from_hello(hello, Arc::new(SystemClock), runtime.handle())?;
        Ok(app.registry())
    })
}
