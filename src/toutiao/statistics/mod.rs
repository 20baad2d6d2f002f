//! Makes the counters equal to what they count, while the application goes on using them.
//!
//! Counters drift: a process dies between its commit and its increment, a bug counts twice, a
//! Redis loses its last second. The repair compares every member with its rows and corrects the
//! single ones that are wrong. It never deletes a set, not even for a moment, because readers
//! take an absent counter for "there is nothing to list".

mod drift;
mod repair;
mod report;

use std::time::Duration;

use self::repair::{Backends, MetricRepair};
pub use self::report::{Example, MetricReport, Report};
use super::metric::Metric;
use super::{Toutiao, ToutiaoError};

/// Time that an increment may take from its commit to its arrival, if nothing else is said.
pub const SETTLE_DEFAULT: Duration = Duration::from_secs(1);

/// Looks at what looks wrong, a settle time apart, before the rest is left for the next run.
const MAX_LOOKS: u32 = 12;

/// Surveys of one run: each can correct a bounded number of members.
const MAX_SURVEYS: u32 = 100;

/// Repairs all metrics. One that fails does not stop the others; the report names it.
pub async fn repair(toutiao: &Toutiao, settle: Duration) -> Result<Report, ToutiaoError> {
    let backends =
        Backends { database: toutiao.database().await?, counters: toutiao.counters().await? };
    let mut repairs: Vec<MetricRepair> = Metric::ALL
        .iter()
        .map(|metric| MetricRepair::new(*metric, toutiao.settings().key(*metric)))
        .collect();
    for survey in 0..MAX_SURVEYS {
        for repair in repairs.iter_mut().filter(|repair| survey == 0 || repair.is_cut()) {
            repair.survey(backends).await;
        }
        look_until_settled(&mut repairs, backends, settle).await;
        if !repairs.iter().any(MetricRepair::is_cut) {
            break;
        }
    }
    for repair in &mut repairs {
        repair.finish(backends).await;
    }
    Ok(Report::new(repairs))
}

// All metrics wait together: one settle time is enough for the usual case.
async fn look_until_settled(
    repairs: &mut [MetricRepair],
    backends: Backends<'_>,
    settle: Duration,
) {
    for _ in 0..MAX_LOOKS {
        if !repairs.iter().any(MetricRepair::has_suspects) {
            break;
        }
        tokio::time::sleep(settle).await;
        for repair in repairs.iter_mut().filter(|repair| repair.has_suspects()) {
            repair.look_again(backends).await;
        }
    }
}
