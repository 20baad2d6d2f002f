//! The application that runs in the daemon's process: its builtins are in the registry, and it has an HTTP API. Its
//! database and counters are opened when they are first used.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::Client;
use crate::clock::Clock;
use crate::invalid::Invalid;
use crate::task::builtin::Registry;
use crate::task::standard;
use crate::toutiao::{self, Toutiao, ToutiaoError, ToutiaoSettings};

/// What a worker process needs to build the same application.
#[derive(Debug, Serialize, Deserialize)]
struct WorkerSettings {
    toutiao: ToutiaoSettings,
    state_directory: std::path::PathBuf,
}

/// Toutiao, and the registry with all builtins.
#[derive(Debug)]
pub(super) struct Application {
    pub(super) toutiao: Toutiao,
    pub(super) registry: Registry,
    /// What a worker process needs to build the same application.
    pub(super) worker_settings: Value,
}

impl Application {
    /// Builds the application and its registry. `runtime` drives the futures that builtins block on. An error names the
    /// faulty field of the settings.
    pub(super) fn new(
        settings: ToutiaoSettings,
        state_directory: &Path,
        clock: Arc<dyn Clock>,
        runtime: &Handle,
    ) -> Result<Self, Invalid> {
        let toutiao = settings.clone();
        let worker_settings =
            WorkerSettings { toutiao, state_directory: state_directory.to_owned() };
        let worker_settings = serde_json::to_value(worker_settings)
            .map_err(|error| Invalid::new("", error.to_string()))?;
        let toutiao =
            Toutiao::new(settings, state_directory, clock).map_err(|error| match error {
                ToutiaoError::Settings(invalid) => invalid,
                other => Invalid::new("", other.to_string()),
            })?;
        let mut registry = Registry::default();
        standard::register(&mut registry);
        toutiao.register(&mut registry, runtime);
        Ok(Self { toutiao, registry, worker_settings })
    }

    /// Builds the application in a worker process from the `worker_settings` of the daemon.
    pub(super) fn from_settings(
        settings: Value,
        clock: Arc<dyn Clock>,
        runtime: &Handle,
    ) -> anyhow::Result<Self> {
        let WorkerSettings { toutiao, state_directory } = serde_json::from_value(settings)?;
        Ok(Self::new(toutiao, &state_directory, clock, runtime)?)
    }

    /// Starts the HTTP API, if the settings have an address for it.
    pub(super) async fn serve(
        &self,
        tracker: &TaskTracker,
        client: Client,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let Some(address) = &self.toutiao.settings().listen else { return Ok(()) };
        self.toutiao.database().await?;
        self.toutiao.counters().await?;
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("toutiao.listen: cannot listen at {address}"))?;
        let is_local = listener.local_addr().is_ok_and(|bound| bound.ip().is_loopback());
        if is_local {
            tracing::info!(%address, "toutiao API");
        } else {
            tracing::warn!(%address, "the toutiao API has no authentication and listens on an address that other machines may reach; put it behind a gateway, or listen on 127.0.0.1");
        }
        tracker.spawn(toutiao::api::serve(
            listener,
            self.toutiao.clone(),
            client,
            shutdown.cancelled_owned(),
        ));
        Ok(())
    }
}
