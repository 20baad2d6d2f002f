//! The control socket during a start. The socket answers before the store is open: until then, and until the jobs of
//! the file are declared, every request is refused with 503 and the reason, and `/healthz`, `/readyz` and
//! `/v1/status` say how the start goes.

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

use super::condition::{Condition, Kind};
use super::error::ApiError;
use super::health::{self, Trouble};
use super::status::Standing;
use super::{DeclaredFile, Identity};
use crate::clock::Clock;
use crate::scheduler::admission::Rules;
use crate::scheduler::handle::{PoolStatus, Status};

/// The routes of the control socket.
pub type Routes = Router;

/// How far a start has come. The daemon owns it; requests only look at it.
#[derive(Debug, Clone)]
pub enum Stage {
    /// The store is not open yet.
    Opening(Arc<Opening>),
    /// The store is open, and the jobs of the file are being declared.
    Declaring {
        /// The routes, of which those that say how the daemon stands are open.
        routes: Routes,
        /// Why the declaration does not go on, if the store fails meanwhile.
        away: Option<String>,
    },
    /// The start is over: every route is open.
    Up(Routes),
}

/// What is known of a daemon whose store is not open yet.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Who it is.
    pub identity: Identity,
    /// What jobs are judged by, as the file has it.
    pub rules: Rules,
    /// The file that declares jobs.
    pub declared: DeclaredFile,
    /// Why the store cannot be opened, once a try has failed.
    pub away: Option<String>,
}

impl Stage {
    /// Why the start is not over; none if it is.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Opening(opening) => match &opening.away {
                Some(why) => Some(waits(why)),
                None => Some("the daemon is starting: its store is being opened".to_owned()),
            },
            Self::Declaring { away: Some(why), .. } => Some(waits(why)),
            Self::Declaring { away: None, .. } => {
                Some("the daemon is starting: the jobs of its file are being declared".to_owned())
            }
            Self::Up(_) => None,
        }
    }
}

fn waits(why: &str) -> String {
    format!("the daemon waits for its store: {why}")
}

/// What the requests work on until the start is over.
#[derive(Debug, Clone)]
struct Gate {
    stage: watch::Receiver<Stage>,
    clock: Arc<dyn Clock>,
}

/// The routes of the control socket, from the first moment of a start on.
pub fn gated(stage: watch::Receiver<Stage>, clock: Arc<dyn Clock>) -> Routes {
    Router::new().fallback(any(pass)).with_state(Gate { stage, clock })
}

/// Passes a request on as far as the start has come.
async fn pass(State(gate): State<Gate>, request: Request) -> Response {
    let stage = gate.stage.borrow().clone();
    let is_about_the_daemon = request.method() == Method::GET
        && matches!(request.uri().path(), "/healthz" | "/readyz" | "/v1/status");
    let reason = stage.reason().unwrap_or_default();
    match stage {
        Stage::Up(routes) => forward(routes, request).await,
        Stage::Declaring { routes, .. } if is_about_the_daemon => forward(routes, request).await,
        Stage::Opening(opening) if is_about_the_daemon => match request.uri().path() {
            // The process lives, and a restart would not bring the store back.
            "/healthz" => health::answer("healthy", None),
            "/readyz" => health::answer("ready", Some(opening.trouble(reason))),
            _ => Json(opening.status(reason, gate.clock.as_ref())).into_response(),
        },
        Stage::Opening(_) | Stage::Declaring { .. } => {
            ApiError::unavailable(reason).into_response()
        }
    }
}

async fn forward(routes: Routes, request: Request<Body>) -> Response {
    match TowerToHyperService::new(routes).call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

impl Opening {
    fn trouble(&self, reason: String) -> Trouble {
        Trouble::new(if self.away.is_some() { "store" } else { "starting" }, reason)
    }

    /// The answer to `/v1/status`, with what is known without a store.
    fn status(&self, reason: String, clock: &dyn Clock) -> Value {
        let away = self.away.is_some();
        let kind = if away { Kind::Store } else { Kind::Starting };
        let pools = self.rules.executors.iter().map(|(name, settings)| PoolStatus {
            name: name.clone(),
            busy: 0,
            max_workers: settings.max_workers,
            waiting: 0,
            retrying: 0,
            waiting_since: None,
        });
        let standing = Standing {
            state: if away { "waiting for the store" } else { "starting" },
            conditions: &[Condition::new(kind, &reason, None)],
            trouble: Some(self.trouble(reason)),
            scheduler: Status { pools: pools.collect(), ..Status::default() },
            paused_by: None,
            store_error: self.away.clone(),
            jobs: None,
            declared: &self.declared,
            rules: &self.rules,
            identity: &self.identity,
        };
        standing.to_value(clock.now())
    }
}
