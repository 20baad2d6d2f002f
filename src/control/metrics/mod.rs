//! `GET /metrics`: what Prometheus reads.
//!
//! The scheduler counts ([`Metrics`](crate::scheduler::metrics::Metrics)), and its status is published after each step; a
//! request only copies and prints both. It makes no query: the number of jobs in each state is the last one that the
//! history has read. So the answer is as quick with a million jobs, and with a store that is away.

mod exposition;
mod families;
mod process;
pub(super) mod requests;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use super::Api;
use super::health;
use super::request::NoInput;
pub(super) use families::MetricsReport;
use process::ProcessUsage;
pub(super) use requests::RequestTable;

/// The text format of Prometheus.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of this daemon.
pub(super) async fn metrics(State(api): State<Api>, _: NoInput) -> Response {
    let now = api.clock.now();
    let jobs = api.history.latest_job_counts();
    let conditions = health::found(&api, jobs.as_deref());
    let report = MetricsReport {
        now,
        conditions: &conditions,
        delay: api.handle.delay(now, Instant::now()),
        status: &api.handle.status(),
        counts: Some(api.metrics.read()),
        jobs,
        requests: api.requests.read(),
        info: &api.info,
    };
    answer(&report).await
}

/// The answer with the metrics of this report, and those of the process.
pub(super) async fn answer(report: &MetricsReport<'_>) -> Response {
    // A process may have many open files, and they are counted one by one.
    let usage = tokio::task::spawn_blocking(ProcessUsage::read).await.unwrap_or_default();
    let text = report.to_text(&usage);
    ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response()
}
