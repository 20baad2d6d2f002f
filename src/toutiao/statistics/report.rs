//! What a repair has found and done: lines for a person, JSON for a program.

use serde::Serialize;

use super::repair::MetricRepair;
use crate::toutiao::counters::{Member, Score};

/// Corrections that are shown of one metric: in the result, and as lines.
pub(super) const EXAMPLES: usize = 10;
const EXAMPLE_LINES: usize = 5;

/// What a repair of all metrics has done.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Each metric that was repaired, in order.
    pub metrics: Vec<MetricReport>,
    /// Members that were corrected, over all metrics.
    pub corrected: u64,
    /// The metrics that could not be repaired, and why.
    #[serde(skip)]
    pub failures: Vec<String>,
}

/// What the repair of one metric has done.
#[derive(Debug, Clone, Serialize)]
pub struct MetricReport {
    /// The metric's name.
    pub metric: &'static str,
    /// Its key.
    pub key: String,
    /// Members that it has now.
    pub members: u64,
    /// Members that were corrected.
    pub corrected: u64,
    /// Members that never rested long enough to be judged; the next repair sees them again.
    pub unsettled: usize,
    /// Some of the corrections.
    pub examples: Vec<Example>,
}

/// One correction.
#[derive(Debug, Clone, Serialize)]
pub struct Example {
    /// The member.
    pub member: String,
    /// Its score before: a number, or a text if it was no whole number, or null if it was absent.
    pub from: serde_json::Value,
    /// Its score now; 0 means that it was removed.
    pub to: i64,
}

impl Example {
    pub(super) fn new(member: &Member, from: Option<&Score>, to: i64) -> Self {
        let from = match from {
            None => serde_json::Value::Null,
            Some(Score::Whole(score)) => (*score).into(),
            Some(Score::Odd(text)) => text.as_str().into(),
        };
        Self { member: member.to_string(), from, to }
    }

    fn line(&self) -> String {
        let from = if self.from.is_null() { "absent".to_owned() } else { self.from.to_string() };
        let to = if self.to == 0 { "absent".to_owned() } else { self.to.to_string() };
        format!("  {} {from} → {to}", self.member)
    }
}

impl MetricReport {
    fn lines(&self) -> impl Iterator<Item = String> {
        let head = format!(
            "{} ({}): {} members, {} corrected",
            self.metric, self.key, self.members, self.corrected
        );
        let rest =
            format!("  {} change all the time and are left for the next run", self.unsettled);
        let rest = (self.unsettled > 0).then_some(rest);
        std::iter::once(head)
            .chain(rest)
            .chain(self.examples.iter().take(EXAMPLE_LINES).map(Example::line))
    }
}

impl Report {
    pub(super) fn new(repairs: Vec<MetricRepair>) -> Self {
        let mut report = Self { metrics: Vec::new(), corrected: 0, failures: Vec::new() };
        for repair in repairs {
            match repair.into_report() {
                Ok(metric) => {
                    report.corrected += metric.corrected;
                    report.metrics.push(metric);
                }
                Err(failure) => report.failures.push(failure),
            }
        }
        report
    }

    /// The report for a person.
    pub fn lines(&self) -> Vec<String> {
        let failures = self.failures.iter().map(|failure| format!("failed: {failure}"));
        let total = format!("{} corrected in all", self.corrected);
        self.metrics.iter().flat_map(MetricReport::lines).chain(failures).chain([total]).collect()
    }
}
