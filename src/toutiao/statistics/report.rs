//! The result of a repair: lines for a person, JSON for a program.

use serde::Serialize;

use crate::toutiao::counters::{Member, Score};

/// The number of corrections per metric that the result names, and that appear as lines.
pub(super) const EXAMPLES: usize = 10;
const EXAMPLE_LINES: usize = 5;

/// What a repair of all metrics has done.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The metrics that were repaired, in their order.
    pub metrics: Vec<MetricReport>,
    /// The number of corrected members of all metrics.
    pub corrected: u64,
    /// The metrics that could not be repaired, and why.
    #[serde(skip)]
    pub failures: Vec<String>,
}

/// What the repair of one metric has done.
#[derive(Debug, Clone, Serialize)]
pub struct MetricReport {
    pub metric: &'static str,
    pub key: String,
    /// The number of members after the repair.
    pub members: u64,
    /// The number of corrected members.
    pub corrected: u64,
    /// The number of members that changed too often to be judged. The next repair looks at them again.
    pub unsettled: usize,
    /// The first corrections.
    pub examples: Vec<Example>,
}

/// A correction.
#[derive(Debug, Clone, Serialize)]
pub struct Example {
    pub member: String,
    /// The score before: a number, a text if it was not a whole number, or null if the member was absent.
    pub from: serde_json::Value,
    /// The score after; 0 means that the member was removed.
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
        let unsettled =
            format!("  {} change all the time and are left for the next run", self.unsettled);
        let unsettled = (self.unsettled > 0).then_some(unsettled);
        std::iter::once(head)
            .chain(unsettled)
            .chain(self.examples.iter().take(EXAMPLE_LINES).map(Example::line))
    }
}

impl Report {
    /// Adds the result of one metric.
    pub(super) fn add(&mut self, result: Result<MetricReport, String>) {
        match result {
            Ok(metric) => {
                self.corrected += metric.corrected;
                self.metrics.push(metric);
            }
            Err(failure) => self.failures.push(failure),
        }
    }

    /// The report for a person.
    pub fn lines(&self) -> Vec<String> {
        let failures = self.failures.iter().map(|failure| format!("failed: {failure}"));
        let total = format!("{} corrected in all", self.corrected);
        self.metrics.iter().flat_map(MetricReport::lines).chain(failures).chain([total]).collect()
    }
}
