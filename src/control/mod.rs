//! The control socket: HTTP/1.1 and JSON over a Unix socket, for the command line and for
//! applications in any language.
//!
//! Requests that change something go through the scheduler's handle and are answered once they
//! are on disk; requests that read go to the history. Nothing here decides anything.

pub mod audit;
mod batch;
pub mod bind;
mod budget;
mod cancel;
pub mod condition;
mod daemon;
mod error;
mod gate;
mod health;
mod jobs;
pub mod kept;
pub mod log;
mod output;
mod previews;
mod request;
mod runs;
mod status;
pub mod unix;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::map_response_with_state;
use axum::routing::{get, post};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Timestamp};
use crate::history::History;
use crate::scheduler::admission::Rules;
use crate::scheduler::handle::Handle;
pub use crate::scheduler::request::Difference;
pub use audit::Users;
pub use budget::Budget;
use condition::Noted;
use error::ApiError;
pub use gate::{Opening, Routes, Stage, gated};
pub use log::LogFilter;
pub use previews::Previews;

/// A reload's answer: what changed, or what is wrong with the file, in one line.
pub type ReloadAnswer = Result<Reloaded, String>;

/// Somebody asks for a reload.
#[derive(Debug)]
pub struct ReloadOrder {
    /// Whether a file that declares no jobs any more is believed.
    pub force: bool,
    /// Who waits for the answer.
    pub reply: oneshot::Sender<ReloadAnswer>,
}

/// What a reload did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Reloaded {
    /// How the jobs of the file differ from those before.
    #[serde(flatten)]
    pub jobs: Difference,
    /// Sections that changed and take effect at the next start only.
    pub restart_needed: Vec<String>,
}

/// What is known of the file that declares jobs.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct DeclaredFile {
    /// Its absolute path.
    pub path: String,
    /// The source of its jobs.
    pub source: String,
    /// How many jobs it declares.
    pub jobs: usize,
    /// Those that could not be declared as the file has them.
    pub faults: Vec<DeclaredFault>,
}

/// Why a job is not what the file says.
#[derive(Debug, Clone, serde::Serialize)]
pub struct DeclaredFault {
    /// The job.
    pub job: String,
    /// What is wrong, and where.
    pub error: String,
}

/// What does not change while a daemon lives.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The node's name.
    pub node: String,
    /// When it started.
    pub started_at: Timestamp,
    /// Where it listens.
    pub socket: PathBuf,
    /// The store's URL, without secrets.
    pub store: String,
    /// Where the rules of time zones come from.
    pub zone_source: String,
}

/// What the requests work on.
#[derive(Debug, Clone)]
pub struct Api {
    /// The way to the scheduler.
    pub handle: Handle,
    /// The way to the store's readers.
    pub history: History,
    /// What definitions are judged by.
    pub rules: watch::Receiver<Arc<Rules>>,
    /// The file that declares jobs.
    pub declared: watch::Receiver<DeclaredFile>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The way to the one who reads the configuration.
    pub reload: mpsc::Sender<ReloadOrder>,
    /// What other parts of the daemon have noted.
    pub noted: Noted,
    /// Who this daemon is.
    pub identity: Arc<Identity>,
    /// When answers that go on have to end.
    pub closing: CancellationToken,
    /// How many bytes of requests and answers are in memory.
    pub budget: Budget,
    /// The places for previews.
    pub previews: Previews,
    /// The filter of the log.
    pub log: Arc<dyn LogFilter>,
    /// The names of users.
    pub users: Users,
}

/// The JSON of a refusal that is sent before a route sees the request.
pub fn wording(status: StatusCode, message: &str) -> Value {
    ApiError::of_status(status, message).body()
}

/// The routes of the control socket.
pub fn router(api: Api) -> Routes {
    Router::new()
        .route("/v1/jobs", get(jobs::list).post(jobs::add))
        .route("/v1/jobs/batch", post(batch::add).get(jobs::show).delete(jobs::remove))
        .route("/v1/jobs/{id}", get(jobs::show).delete(jobs::remove))
        .route("/v1/jobs/{id}/pause", post(jobs::pause))
        .route("/v1/jobs/{id}/resume", post(jobs::resume))
        .route("/v1/jobs/{id}/run", post(jobs::run))
        .route("/v1/jobs/{id}/explain", get(jobs::explain))
        .route("/v1/runs", get(runs::list))
        .route("/v1/runs/{id}", get(runs::show))
        .route("/v1/runs/{id}/output", get(output::output))
        .route("/v1/runs/{id}/cancel", post(cancel::cancel))
        .route("/v1/status", get(daemon::status))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/v1/log", get(log::show).put(log::change).delete(log::reset))
        .route("/v1/preview", post(daemon::preview))
        .route("/v1/scheduler/pause", post(jobs::pause_all))
        .route("/v1/scheduler/resume", post(jobs::resume_all))
        .route("/v1/scheduler/reload", post(daemon::reload))
        .fallback(|| async { ApiError::not_found("there is nothing at this path") })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(map_response_with_state(api.budget.clone(), budget::bound_answer))
        .with_state(api)
}
