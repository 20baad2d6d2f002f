//! The application beside the scheduler: its builtins in the registry, its HTTP API, its sample
//! data. Nothing of it is opened before it is needed.

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

/// What a worker process is told first.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    toutiao: ToutiaoSettings,
    state_directory: std::path::PathBuf,
}

/// Toutiao, and the registry with all builtins.
#[derive(Debug)]
pub(super) struct App {
    toutiao: Toutiao,
    registry: Registry,
    hello: Value,
}

impl App {
    /// Builds the registry. `runtime` drives what builtins wait for. The fault of a setting names its field.
    pub(super) fn new(
        settings: ToutiaoSettings,
        state_directory: &Path,
        clock: Arc<dyn Clock>,
        runtime: &Handle,
    ) -> Result<Self, Invalid> {
        let hello =
            Hello { toutiao: settings.clone(), state_directory: state_directory.to_owned() };
        let hello =
            serde_json::to_value(hello).map_err(|error| Invalid::new("", error.to_string()))?;
        let toutiao =
            Toutiao::new(settings, state_directory, clock).map_err(|error| match error {
                ToutiaoError::Settings(invalid) => invalid,
                ToutiaoError::Database(_) | ToutiaoError::Counters(_) => {
                    Invalid::new("", error.to_string())
                }
            })?;
        let mut registry = Registry::default();
        standard::register(&mut registry);
        toutiao.register(&mut registry, runtime);
        Ok(Self { toutiao, registry, hello })
    }

    /// Builds it in a worker process, from what the daemon told.
    pub(super) fn from_hello(
        hello: Value,
        clock: Arc<dyn Clock>,
        runtime: &Handle,
    ) -> anyhow::Result<Self> {
        let hello: Hello = serde_json::from_value(hello)?;
        Ok(Self::new(hello.toutiao, &hello.state_directory, clock, runtime)?)
    }

    /// All builtins.
    pub(super) fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// What a worker process is told first.
    pub(super) fn worker_hello(&self) -> &Value {
        &self.hello
    }

    /// The application itself.
    pub(super) fn toutiao(&self) -> &Toutiao {
        &self.toutiao
    }

    /// Starts the HTTP API, if it has an address.
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
