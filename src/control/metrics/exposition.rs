//! Writes the text format of Prometheus, version 0.0.4: for each metric its help and type, and then its samples.

use std::fmt::Display;
use std::time::Duration;

use crate::scheduler::metrics::Histogram;

#[derive(Debug, Clone, Copy)]
pub(super) enum MetricType {
    /// Its name ends in `_total`.
    Counter,
    Gauge,
    Histogram,
}

impl MetricType {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What the values of a histogram are.
#[derive(Debug, Clone, Copy)]
pub(super) enum HistogramUnit {
    /// They are shown in seconds.
    Microseconds,
    Number,
}

impl HistogramUnit {
    fn text(self, value: u64) -> String {
        match self {
            Self::Microseconds => Duration::from_micros(value).as_secs_f64().to_string(),
            Self::Number => value.to_string(),
        }
    }
}

/// A label and its value.
pub(super) type Label<'a> = (&'static str, &'a str);

#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a metric. Its samples follow.
    pub(super) fn metric(
        &mut self,
        kind: MetricType,
        name: &'static str,
        help: &str,
    ) -> Samples<'_> {
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        let kind = kind.word();
        self.text.extend(["# HELP ", name, " ", &help, "\n# TYPE ", name, " ", kind, "\n"]);
        Samples { text: &mut self.text, name }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// The samples of one metric.
#[derive(Debug)]
pub(super) struct Samples<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Samples<'_> {
    pub(super) fn add(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.line("", labels, value);
    }

    /// Adds the sample of a metric without labels, if its value is known.
    pub(super) fn one(&mut self, value: Option<impl Display>) {
        if let Some(value) = value {
            self.line("", &[], value);
        }
    }

    pub(super) fn histogram(
        &mut self,
        labels: &[Label<'_>],
        histogram: &Histogram,
        unit: HistogramUnit,
    ) {
        let within = |bound: &str, labels: &[Label<'_>]| {
            let labels = labels.iter().copied().map(|(key, value)| (key, value.to_owned()));
            labels.chain([("le", bound.to_owned())]).collect::<Vec<_>>()
        };
        let count = histogram.count();
        let bounds = histogram.cumulative().map(|(bound, count)| (unit.text(bound), count));
        for (bound, count) in bounds.chain([("+Inf".to_owned(), count)]) {
            let labels = within(&bound, labels);
            let labels: Vec<_> = labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
            self.line("_bucket", &labels, count);
        }
        self.line("_sum", labels, unit.text(histogram.sum()));
        self.line("_count", labels, count);
    }

    fn line(&mut self, suffix: &str, labels: &[Label<'_>], value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let mut before = '{';
        for (key, value) in labels {
            self.text.push(before);
            self.text.extend([key, "=\"", &escaped(value), "\""]);
            before = ',';
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.text.extend([" ", &value.to_string(), "\n"]);
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_follow_the_help_and_the_type_of_their_metric() {
        let mut page = Exposition::default();
        let mut samples = page.metric(MetricType::Counter, "a_total", "What \\ is\ncounted.");
        samples.add(&[], 1);
        samples.add(&[("b", r#"say "\n""#), ("c", "two\nlines")], 0.5);
        page.metric(MetricType::Gauge, "d", "Unknown.").one(None::<u64>);
        let expected = r#"# HELP a_total What \\ is\ncounted.
# TYPE a_total counter
a_total 1
a_total{b="say \"\\n\"",c="two\nlines"} 0.5
# HELP d Unknown.
# TYPE d gauge
"#;
        assert_eq!(page.into_text(), expected);
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound_and_shows_seconds() {
        let mut histogram = Histogram::new(&[500, 2_000_000]);
        for value in [100, 500, 1_500_000, 9_000_000] {
            histogram.observe(value);
        }
        let mut page = Exposition::default();
        let mut samples = page.metric(MetricType::Histogram, "h_seconds", "Times.");
        samples.histogram(&[("a", "b")], &histogram, HistogramUnit::Microseconds);
        let expected = r#"# HELP h_seconds Times.
# TYPE h_seconds histogram
h_seconds_bucket{a="b",le="0.0005"} 2
h_seconds_bucket{a="b",le="2"} 3
h_seconds_bucket{a="b",le="+Inf"} 4
h_seconds_sum{a="b"} 10.5006
h_seconds_count{a="b"} 4
"#;
        assert_eq!(page.into_text(), expected);
    }
}
