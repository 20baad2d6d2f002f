//! The control socket: HTTP/1.1 and JSON over a Unix socket, for the command line and for applications in any language.
//!
//! A request that changes something goes through the scheduler's handle and is answered once the change is on disk; a
//! request that reads goes to the history. Nothing here decides anything about jobs or runs.
//!
//! A request passes `gate` (which refuses it during a start), its route in [`router`], the types in `request` (which read its
//! path, query and body within limits), and a handler in `lists`, `jobs`, `modify`, `bulk`, `batch`, `runs`, `output`, `log` or `daemon`. `audit` logs
//! who changed what, `metrics` counts requests and shows everything that is counted, `error` turns every failure into the
//! JSON of the contract, and `budget` bounds the memory of bodies.

pub mod audit;
mod batch;
pub mod bind;
mod budget;
mod bulk;
pub mod condition;
mod cursor;
mod daemon;
mod error;
mod etag;
mod executors;
mod gate;
mod health;
mod jobs;
pub mod listener;
mod lists;
pub mod log;
mod metrics;
mod modify;
pub mod monitoring;
mod output;
mod pause;
mod precondition;
mod previews;
mod request;
mod runs;
pub mod socket_watch;
mod status;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Timestamp};
use crate::history::History;
use crate::job::admission::Rules;
use crate::scheduler::handle::Handle;
use crate::scheduler::metrics::Metrics;
pub use crate::scheduler::request::Difference;
pub use audit::UserNames;
pub use budget::MemoryBudget;
use condition::ReportedConditions;
use error::ApiError;
pub use gate::{OpeningStore, Routes, StartStage, gated};
pub use log::LogFilter;
pub use metrics::requests::RequestCounts;
pub use previews::PreviewLimits;

/// What a reload changed, or what is wrong with the file, in one line.
pub type ReloadResult = Result<Reloaded, String>;

/// A request to read the configuration again.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Accept a file that declares no jobs any more, and remove them.
    pub force: bool,
    pub reply: oneshot::Sender<ReloadResult>,
}

/// What a reload did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Reloaded {
    #[serde(flatten)]
    pub jobs: Difference,
    /// Sections that changed, but take effect at the next start only.
    pub restart_needed: Vec<String>,
}

/// The file that declares jobs, and what could not be declared.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct DeclaredFile {
    /// An absolute path.
    pub path: String,
    /// The name that its jobs have as their source.
    pub source: String,
    /// How many jobs it declares.
    pub jobs: usize,
    /// The jobs that could not be declared as the file has them.
    pub faults: Vec<DeclaredFault>,
}

/// A job that is not what the file says.
#[derive(Debug, Clone, serde::Serialize)]
pub struct DeclaredFault {
    pub job: String,
    /// What is wrong, and where.
    pub error: String,
}

/// Facts about the daemon that do not change while it lives.
#[derive(Debug, Clone)]
pub struct DaemonInfo {
    /// The node's name.
    pub node: String,
    pub started_at: Timestamp,
    /// The path of the control socket.
    pub socket: PathBuf,
    /// The store's URL, without secrets.
    pub store: String,
    /// Source and version of the time zone rules.
    pub zone_source: String,
}

/// What the handlers of requests work with.
#[derive(Debug, Clone)]
pub struct Api {
    pub handle: Handle,
    pub history: History,
    /// The rules by which definitions are admitted.
    pub rules: watch::Receiver<Arc<Rules>>,
    pub declared: watch::Receiver<DeclaredFile>,
    pub clock: Arc<dyn Clock>,
    /// Reloads are carried out by the part of the daemon that reads the configuration.
    pub reload: mpsc::Sender<ReloadRequest>,
    pub reported: ReportedConditions,
    pub info: Arc<DaemonInfo>,
    /// Cancelled when answers that follow a run have to end.
    pub closing: CancellationToken,
    pub budget: MemoryBudget,
    pub previews: PreviewLimits,
    pub log: Arc<dyn LogFilter>,
    pub users: UserNames,
    /// Counts what the scheduler does.
    pub metrics: Metrics,
    pub requests: RequestCounts,
}

/// The JSON of a refusal that the HTTP server sends before a route sees the request.
pub fn wording(status: StatusCode, message: &str) -> Value {
    ApiError::of_status(status, message).body()
}

/// The routes of the control socket.
pub fn router(api: Api) -> Routes {
    Router::new()
        .route("/v1/jobs", get(lists::jobs).post(jobs::add).delete(bulk::remove))
        .route(
            "/v1/jobs/batch",
            post(batch::add).get(jobs::show).patch(modify::patch).delete(jobs::remove),
        )
        .route(
            "/v1/jobs/pause",
            post(bulk::pause).get(jobs::show).patch(modify::patch).delete(jobs::remove),
        )
        .route(
            "/v1/jobs/resume",
            post(bulk::resume).get(jobs::show).patch(modify::patch).delete(jobs::remove),
        )
        .route("/v1/jobs/{id}", get(jobs::show).patch(modify::patch).delete(jobs::remove))
        .route("/v1/jobs/{id}/pause", post(jobs::pause))
        .route("/v1/jobs/{id}/resume", post(jobs::resume))
        .route("/v1/jobs/{id}/reschedule", post(modify::reschedule))
        .route("/v1/jobs/{id}/run", post(jobs::run))
        .route("/v1/jobs/{id}/explain", get(jobs::explain))
        .route("/v1/runs", get(lists::runs))
        .route("/v1/runs/{id}", get(runs::show))
        .route("/v1/runs/{id}/output", get(output::output))
        .route("/v1/runs/{id}/cancel", post(runs::cancel))
        .route("/v1/executors", get(executors::list))
        .route("/v1/status", get(daemon::status))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/log", get(log::show).put(log::change).delete(log::reset))
        .route("/v1/preview", post(daemon::preview))
        .route("/v1/scheduler/pause", post(jobs::pause_all))
        .route("/v1/scheduler/resume", post(jobs::resume_all))
        .route("/v1/scheduler/reload", post(daemon::reload))
        .fallback(|| async { ApiError::not_found("there is nothing at this path") })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(from_fn_with_state(
            (api.requests.clone(), api.budget.clone()),
            metrics::requests::counted,
        ))
        .with_state(api)
}
