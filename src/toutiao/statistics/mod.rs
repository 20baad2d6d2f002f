//! The repair of the statistics: makes the counters equal to the rows that they count, while the application goes on
//! using them.
//!
//! Counters drift: a process dies between its commit and its increment, a bug counts twice, Redis loses its last second.
//! The repair compares every member with its rows (`repair`), decides whether a difference is an error or an increment
//! that is still on its way (`drift`), corrects single members, and reports them (`report`). It never deletes a set,
//! not even for a moment, because readers take an absent counter for an empty list.

mod drift;
mod repair;
mod report;

use std::time::Duration;

use self::repair::{Backends, MetricRepair};
pub use self::report::{Example, MetricReport, Report};
use super::metric::Metric;
use super::{Toutiao, ToutiaoError};

/// The default settle time: how long an increment may take after its commit.
pub const SETTLE_DEFAULT: Duration = Duration::from_secs(1);

/// How often suspicious members are observed, a settle time apart, before the rest is left for the next run.
const MAX_OBSERVATIONS: u32 = 12;

/// The largest number of surveys in one run. Each can correct a limited number of members.
const MAX_SURVEYS: u32 = 100;

/// Repairs all metrics. A metric that fails does not stop the others; the report names it.
pub async fn repair(toutiao: &Toutiao, settle: Duration) -> Result<Report, ToutiaoError> {
    let backends =
        Backends { database: toutiao.database().await?, counters: toutiao.counters().await? };
    let mut repairs: Vec<MetricRepair> = Metric::ALL
        .iter()
        .map(|metric| MetricRepair::new(*metric, toutiao.settings().key(*metric)))
        .collect();
    for survey in 0..MAX_SURVEYS {
        for repair in repairs.iter_mut().filter(|repair| survey == 0 || repair.is_incomplete()) {
            repair.survey(backends).await;
        }
        observe_until_settled(&mut repairs, backends, settle).await;
        if !repairs.iter().any(MetricRepair::is_incomplete) {
            break;
        }
    }
    let mut report = Report::default();
    for repair in repairs {
        report.add(repair.finish(backends).await);
    }
    Ok(report)
}

/// All metrics wait together, so that one settle time is enough in the usual case.
async fn observe_until_settled(
    repairs: &mut [MetricRepair],
    backends: Backends<'_>,
    settle: Duration,
) {
    for _ in 0..MAX_OBSERVATIONS {
        if !repairs.iter().any(MetricRepair::has_suspects) {
            break;
        }
        tokio::time::sleep(settle).await;
        for repair in repairs.iter_mut().filter(|repair| repair.has_suspects()) {
            repair.observe_suspects(backends).await;
        }
    }
}
