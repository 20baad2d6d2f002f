//! The control socket during a start. It answers before the store is open: until then, and until the jobs of the file are
//! declared, every request is refused with 503 and the reason, and `/healthz`, `/readyz`, `/v1/status` and `/metrics` show
//! the state of the start.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Json, Router};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::sync::watch;

use super::condition::ConditionKind;
use super::error::ApiError;
use super::health::{self, Problem};
use super::metrics::{self, MetricsReport, RequestTable};
use super::status::StatusReport;
use super::{DaemonInfo, DeclaredFile};
use crate::clock::Clock;
use crate::job::admission::Rules;
use crate::scheduler::handle::{PoolStatus, Status};

/// The routes of the control socket.
pub type Routes = Router;

/// How far a start has come.
#[derive(Debug, Clone)]
pub enum StartStage {
    /// The store is not open yet.
    Opening(Arc<OpeningStore>),
    /// The store is open, and the jobs of the file are being declared.
    Declaring {
        /// Only the routes about the daemon's state are open.
        routes: Routes,
        /// Why the store is unavailable, if it fails meanwhile.
        store_error: Option<String>,
    },
    /// The start is over: every route is open.
    Up(Routes),
}

/// A daemon whose store is not open yet.
#[derive(Debug, Clone)]
pub struct OpeningStore {
    pub info: DaemonInfo,
    /// The rules by which the file has jobs admitted.
    pub rules: Rules,
    pub declared: DeclaredFile,
    /// Why the store cannot be opened, once an attempt has failed.
    pub store_error: Option<String>,
}

impl StartStage {
    /// Why the start is not over; none if it is.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Opening(opening) => match &opening.store_error {
                Some(why) => Some(waits_for_store(why)),
                None => Some("the daemon is starting: its store is being opened".to_owned()),
            },
            Self::Declaring { store_error: Some(why), .. } => Some(waits_for_store(why)),
            Self::Declaring { store_error: None, .. } => {
                Some("the daemon is starting: the jobs of its file are being declared".to_owned())
            }
            Self::Up(_) => None,
        }
    }
}

fn waits_for_store(why: &str) -> String {
    format!("the daemon waits for its store: {why}")
}

#[derive(Debug, Clone)]
struct Gate {
    stage: watch::Receiver<StartStage>,
    clock: Arc<dyn Clock>,
}

/// The routes of the control socket, from the beginning of a start.
pub fn gated(stage: watch::Receiver<StartStage>, clock: Arc<dyn Clock>) -> Routes {
    Router::new().fallback(any(pass)).with_state(Gate { stage, clock })
}

/// Passes a request on if the start has come far enough.
async fn pass(State(gate): State<Gate>, request: Request) -> Response {
    let stage = gate.stage.borrow().clone();
    let is_about_the_daemon = request.method() == Method::GET
        && matches!(request.uri().path(), "/healthz" | "/readyz" | "/v1/status" | "/metrics");
    let reason = stage.reason().unwrap_or_default();
    match stage {
        StartStage::Up(routes) => forward(routes, request).await,
        StartStage::Declaring { routes, .. } if is_about_the_daemon => {
            forward(routes, request).await
        }
        StartStage::Opening(opening) if is_about_the_daemon => match request.uri().path() {
            // The process works, and a restart would not bring the store back.
            "/healthz" => health::answer("healthy", None),
            "/readyz" => health::answer("ready", Some(opening.problem(reason))),
            "/metrics" => opening.metrics(reason, gate.clock.as_ref()).await,
            _ => Json(opening.status(reason, gate.clock.as_ref())).into_response(),
        },
        StartStage::Opening(_) | StartStage::Declaring { .. } => {
            ApiError::unavailable(reason).into_response()
        }
    }
}

pub(super) async fn forward(routes: Routes, request: Request<Body>) -> Response {
    match TowerToHyperService::new(routes).call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

impl OpeningStore {
    fn problem(&self, message: String) -> Problem {
        let is_away = self.store_error.is_some();
        let reason = if is_away { ConditionKind::Store } else { ConditionKind::Starting };
        Problem { reason, message }
    }

    /// The answer to `/v1/status`, without what only the store knows.
    fn status(&self, reason: String, clock: &dyn Clock) -> Value {
        let is_away = self.store_error.is_some();
        let problem = self.problem(reason);
        let report = StatusReport {
            state: if is_away { "waiting for the store" } else { "starting" },
            conditions: &[problem.to_condition()],
            not_ready: Some(problem),
            scheduler: self.idle(),
            store_error: self.store_error.clone(),
            jobs: None,
            declared: &self.declared,
            rules: &self.rules,
            info: &self.info,
        };
        report.to_value(clock.now())
    }

    /// The answer to `/metrics`, without what only the scheduler and the store know.
    async fn metrics(&self, reason: String, clock: &dyn Clock) -> Response {
        let report = MetricsReport {
            now: clock.now(),
            conditions: &[self.problem(reason).to_condition()],
            delay: None,
            status: &self.idle(),
            counts: None,
            jobs: None,
            requests: RequestTable::new(),
            info: &self.info,
        };
        metrics::answer(&report).await
    }

    /// The status of a scheduler that does nothing yet.
    fn idle(&self) -> Status {
        let pools = self.rules.executors.iter().map(|(name, settings)| PoolStatus {
            name: name.clone(),
            busy: 0,
            max_workers: settings.max_workers,
            waiting: 0,
            retrying: 0,
            waiting_since: None,
            queue_limit: 0,
        });
        Status { pools: pools.collect(), ..Status::default() }
    }
}
