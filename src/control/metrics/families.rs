//! The metrics by name: what each means and where its value comes from. Names and units follow the conventions of
//! Prometheus, and `docs/OPERATIONS.md` lists them.

use super::exposition::MetricType::{self, Counter, Gauge};
use super::exposition::{Exposition, HistogramUnit};
use super::process::{ProcessUsage, epoch_seconds};
use super::requests::RequestTable;
use crate::clock::Timestamp;
use crate::control::DaemonInfo;
use crate::control::condition::{Condition, ConditionKind};
use crate::control::health;
use crate::history::JobStateCounts;
use crate::run::HookEvent;
use crate::scheduler::handle::{Delay, PoolStatus, Status};
use crate::scheduler::metrics::{Counts, DeliveryCounts, Histogram, JobCounts, PoolCounts};

/// The label of the jobs that are not counted by themselves.
const OTHER_JOBS: &str = "(other)";

/// What the metrics are read from.
#[derive(Debug)]
pub(in crate::control) struct MetricsReport<'a> {
    pub(in crate::control) now: Timestamp,
    /// Everything that is wrong.
    pub(in crate::control) conditions: &'a [Condition],
    /// How far the scheduler's loop is behind; none if there is no loop.
    pub(in crate::control) delay: Option<Delay>,
    pub(in crate::control) status: &'a Status,
    /// None if there is no scheduler yet.
    pub(in crate::control) counts: Option<(Counts, DeliveryCounts)>,
    /// How many jobs are in each state; none if that is not known.
    pub(in crate::control) jobs: Option<JobStateCounts>,
    pub(in crate::control) requests: RequestTable,
    pub(in crate::control) info: &'a DaemonInfo,
}

impl MetricsReport<'_> {
    pub(super) fn to_text(&self, usage: &ProcessUsage) -> String {
        let mut page = Exposition::default();
        let version = env!("CARGO_PKG_VERSION");
        page.metric(Gauge, "punctual_build_info", "Always 1, with the version of the daemon.")
            .add(&[("version", version)], 1);
        self.write_health(&mut page);
        self.write_jobs(&mut page);
        self.write_pools(&mut page);
        if let Some((counts, deliveries)) = &self.counts {
            write_runs(&mut page, counts);
            write_jobs_by_id(&mut page, counts);
            write_reports(&mut page, counts, *deliveries);
            self.write_steps(&mut page, counts);
            self.write_nodes(&mut page, counts);
        }
        self.write_requests(&mut page);
        usage.write(&mut page, self.info.started_at);
        page.into_text()
    }

    fn write_health(&self, page: &mut Exposition) {
        let is_found =
            |kind| self.conditions.iter().any(|condition: &Condition| condition.kind == kind);
        let ready = health::blocking(self.conditions).is_none();
        page.metric(Gauge, "punctual_ready", "1 if jobs fire and requests can be stored, else 0.")
            .add(&[], u8::from(ready));
        let help =
            "1 for each reason for which the daemon is degraded, as in punctual status, else 0.";
        let mut conditions = page.metric(Gauge, "punctual_condition", help);
        for kind in ConditionKind::ALL {
            conditions.add(&[("reason", kind.word())], u8::from(is_found(kind)));
        }
        let is_away = [ConditionKind::Store, ConditionKind::StoreRead].into_iter().any(is_found);
        let is_opening = self.counts.is_none();
        page.metric(Gauge, "punctual_store_up", "1 if the store can be used, else 0.")
            .add(&[], u8::from(!is_away && !is_opening));
        let paused = self.status.pause.as_ref().map(|pause| pause.since);
        page.metric(Gauge, "punctual_scheduler_paused", "1 if the scheduler is paused, else 0.")
            .add(&[], u8::from(paused.is_some()));
        let help = "Since when the scheduler is paused, in seconds since the Unix epoch; absent if it is not.";
        page.metric(Gauge, "punctual_scheduler_paused_since_timestamp_seconds", help)
            .one(paused.map(epoch_seconds));
        let help = "How late the scheduler's loop is with a step or with waking up, in seconds.";
        page.metric(Gauge, "punctual_scheduler_delay_seconds", help)
            .one(self.delay.map(|delay| delay.late.as_secs_f64()));
    }

    fn write_jobs(&self, page: &mut Exposition) {
        let help =
            "Jobs in the store by state, as last counted; absent if the store cannot be read.";
        let mut jobs = page.metric(Gauge, "punctual_jobs", help);
        for (state, count) in self.jobs.iter().flatten() {
            jobs.add(&[("state", state)], count);
        }
        let help = "Jobs that were due after the last step and had not fired, among the earliest of each executor.";
        page.metric(Gauge, "punctual_jobs_due", help).add(&[], self.status.due);
        let help =
            "For how long the first job of this node has been due without firing, in seconds.";
        page.metric(Gauge, "punctual_jobs_overdue_seconds", help)
            .add(&[], self.seconds_since(self.status.next_due));
        let help = "Runs that this node has started and that have not ended.";
        page.metric(Gauge, "punctual_runs_in_progress", help).add(&[], self.status.running);
    }

    /// The seconds since an instant, if it is past; else 0.
    fn seconds_since(&self, at: Option<Timestamp>) -> f64 {
        let since = at.and_then(|at| self.now.signed_duration_since(at).to_std().ok());
        since.unwrap_or_default().as_secs_f64()
    }

    fn write_pools(&self, page: &mut Exposition) {
        let mut gauge = |name, help: &str, value: &dyn Fn(&PoolStatus) -> f64| {
            let mut samples = page.metric(Gauge, name, help);
            for pool in &self.status.pools {
                samples.add(&[("executor", &pool.name)], value(pool));
            }
        };
        gauge("punctual_executor_workers", "Workers of an executor.", &|pool| {
            number(pool.max_workers)
        });
        gauge("punctual_executor_workers_busy", "Workers that run something.", &|pool| {
            number(pool.busy)
        });
        gauge("punctual_executor_runs_waiting", "Runs that wait for a worker.", &|pool| {
            number(pool.waiting)
        });
        gauge(
            "punctual_executor_runs_retrying",
            "Runs that wait for their next attempt.",
            &|pool| number(pool.retrying),
        );
        gauge(
            "punctual_executor_queue_limit",
            "Runs that may wait for a worker before jobs that are due stay in the store.",
            &|pool| number(pool.queue_limit),
        );
        gauge(
            "punctual_executor_waiting_seconds",
            "For how long the first of the waiting runs has been due while all workers are busy, in seconds.",
            &|pool| self.seconds_since(pool.waiting_since),
        );
    }

    fn write_steps(&self, page: &mut Exposition, counts: &Counts) {
        page.metric(Counter, "punctual_scheduler_steps_total", "Steps of the scheduler.")
            .add(&[], self.status.steps);
        let help = "Steps that were not committed; conflict means that another node was faster.";
        let mut failures = page.metric(Counter, "punctual_scheduler_step_failures_total", help);
        for (reason, count) in &counts.failed_steps {
            failures.add(&[("reason", reason)], count);
        }
        let help = "How long the transactions of the scheduler's steps took, in seconds.";
        page.metric(MetricType::Histogram, "punctual_commit_duration_seconds", help).histogram(
            &[],
            &counts.commit_time,
            HistogramUnit::Microseconds,
        );
        let help = "How many changes the transactions of the scheduler's steps had.";
        page.metric(MetricType::Histogram, "punctual_commit_changes", help).histogram(
            &[],
            &counts.commit_changes,
            HistogramUnit::Number,
        );
        page.metric(Counter, "punctual_ledger_rows_total", "Rows added to the ledger.")
            .add(&[], self.status.written.runs);
        let help = "Bytes added to the ledger and its outputs, as the retention estimates them.";
        page.metric(Counter, "punctual_ledger_bytes_total", help)
            .add(&[], self.status.written.bytes);
    }

    fn write_nodes(&self, page: &mut Exposition, counts: &Counts) {
        let nodes = &self.status.nodes;
        page.metric(Gauge, "punctual_nodes", "Live nodes on the store, including this one.")
            .add(&[], nodes.len().max(1));
        let help = "When each node on a shared store last renewed its lease by its own clock, in seconds since the Unix epoch.";
        let mut seen = page.metric(Gauge, "punctual_node_lease_renewed_timestamp_seconds", help);
        for node in nodes {
            seen.add(&[("node", &node.name)], epoch_seconds(node.seen_at));
        }
        let help =
            "Nodes that were silent for too long, so that this one took over their jobs and runs.";
        page.metric(Counter, "punctual_nodes_expired_total", help).add(&[], counts.expired_nodes);
        let help = "How often this node was silent for too long, so that others took over its jobs and runs.";
        page.metric(Counter, "punctual_leases_lost_total", help).add(&[], counts.lost_leases);
    }

    fn write_requests(&self, page: &mut Exposition) {
        let help = "Answers to requests of the control socket by route, method and status.";
        let mut requests = page.metric(Counter, "punctual_control_requests_total", help);
        for (route, answers) in &self.requests {
            for ((method, status), count) in answers {
                let status = status.to_string();
                let labels = [("method", *method), ("route", route), ("status", &status)];
                requests.add(&labels, count);
            }
        }
    }
}

/// A number of things as a value. No gauge has as many as a float cannot hold.
fn number(count: usize) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}

fn write_runs(page: &mut Exposition, counts: &Counts) {
    let help = "Runs that ended, including those of hooks, by executor and outcome.";
    let mut ended = page.metric(Counter, "punctual_runs_ended_total", help);
    for (executor, pool) in &counts.pools {
        for (outcome, count) in pool.ended.by_outcome() {
            ended.add(&[("executor", executor), ("outcome", outcome)], count);
        }
    }
    let help = "Attempts that failed and were followed by another one.";
    let mut retried = page.metric(Counter, "punctual_attempts_retried_total", help);
    for (executor, pool) in &counts.pools {
        retried.add(&[("executor", executor)], pool.retried);
    }
    let mut histogram = |name, help: &str, of: &dyn Fn(&PoolCounts) -> &Histogram| {
        let mut samples = page.metric(MetricType::Histogram, name, help);
        for (executor, pool) in &counts.pools {
            let labels = [("executor", executor.as_str())];
            let unit = HistogramUnit::Microseconds;
            samples.histogram(&labels, of(pool), unit);
        }
    };
    let help = "From when an attempt was due to its start, in seconds.";
    histogram("punctual_run_lateness_seconds", help, &|pool| &pool.lateness);
    let help = "From when an attempt was due and recorded to its start, in seconds.";
    histogram("punctual_run_queue_wait_seconds", help, &|pool| &pool.queue_wait);
    let help = "From the start of an attempt to its end, in seconds.";
    histogram("punctual_run_duration_seconds", help, &|pool| &pool.duration);
    let help = "Occurrences that did not run, by reason.";
    let mut skipped = page.metric(Counter, "punctual_occurrences_skipped_total", help);
    for (reason, count) in &counts.skipped {
        skipped.add(&[("reason", reason)], count);
    }
}

fn write_jobs_by_id(page: &mut Exposition, counts: &Counts) {
    // A job whose id is the label of the others counts as one of them.
    let jobs = || counts.jobs.iter().filter(|(id, _)| id.as_str() != OTHER_JOBS);
    let help = "Runs that ended, without those of hooks, for up to 200 recurring jobs, and for all others together.";
    let mut ended = page.metric(Counter, "punctual_job_runs_ended_total", help);
    for (id, job) in jobs() {
        for (outcome, count) in job.ended.by_outcome() {
            ended.add(&[("job_id", id.as_str()), ("outcome", outcome)], count);
        }
    }
    for (outcome, count) in counts.other_jobs.by_outcome() {
        ended.add(&[("job_id", OTHER_JOBS), ("outcome", outcome)], count);
    }
    let mut last = |name, help: &str, at: &dyn Fn(&JobCounts) -> Option<Timestamp>| {
        let mut samples = page.metric(Gauge, name, help);
        for (id, job) in jobs() {
            if let Some(at) = at(job) {
                samples.add(&[("job_id", id.as_str())], epoch_seconds(at));
            }
        }
    };
    let help = "When a run of the job last succeeded, in seconds since the Unix epoch.";
    last("punctual_job_last_success_timestamp_seconds", help, &|job| job.last_success);
    let help = "When a run of the job last failed, timed out or was lost, in seconds since the Unix epoch.";
    last("punctual_job_last_failure_timestamp_seconds", help, &|job| job.last_failure);
}

fn write_reports(page: &mut Exposition, counts: &Counts, deliveries: DeliveryCounts) {
    let help = "Runs of hooks that ended, by hook and outcome.";
    let mut hooks = page.metric(Counter, "punctual_hook_runs_ended_total", help);
    for (event, ended) in &counts.hooks {
        for (outcome, count) in ended.by_outcome() {
            let hook: HookEvent = *event;
            hooks.add(&[("hook", hook.hook()), ("outcome", outcome)], count);
        }
    }
    let help = "Heartbeats by what became of them; dropped means that too many waited.";
    let mut heartbeats = page.metric(Counter, "punctual_heartbeats_total", help);
    heartbeats.add(&[("result", "delivered")], deliveries.heartbeats_delivered);
    heartbeats.add(&[("result", "failed")], deliveries.heartbeats_failed);
    heartbeats.add(&[("result", "dropped")], deliveries.heartbeats_dropped);
    let help = "Attempts to send a mail by what became of them.";
    let mut mails = page.metric(Counter, "punctual_mails_total", help);
    mails.add(&[("result", "sent")], deliveries.mails_sent);
    mails.add(&[("result", "failed")], deliveries.mails_failed);
}
