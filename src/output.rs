//! What a run has written, line by line: when, and by which of its two streams.
//!
//! What is kept has a bound, whatever a run writes: its beginning, which says what it set out to do, and its end,
//! which says what became of it. What was cut between them is counted.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// Bytes of a line; a longer one is kept as several.
pub const LINE_BYTES: usize = 8 * 1024;
/// Bytes of lines that are kept from the beginning, and from the end.
pub const HEAD_BYTES: usize = 16 * 1024;
/// The same from the end: enough for a stack trace and what led to it.
pub const TAIL_BYTES: usize = 48 * 1024;
/// What a line costs beside its text, so that a million empty ones have a bound too.
const LINE_COST: usize = 32;

/// Which of its streams a run wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output; what a builtin says.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it was complete.
    pub at: Timestamp,
    /// Where it was written.
    pub stream: Stream,
    /// Its text, without the line break.
    pub text: String,
}

impl Line {
    /// Bytes that count against a bound.
    pub fn cost(&self) -> usize {
        self.text.len() + LINE_COST
    }
}

/// What is kept of an output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Its first lines.
    pub head: Vec<Line>,
    /// Lines after those that are not kept.
    pub cut: u64,
    /// Its last lines.
    pub tail: Vec<Line>,
    /// Bytes that were written in all.
    pub bytes: u64,
}

/// A line as the store keeps it: microseconds, stream, text.
#[derive(Serialize, Deserialize)]
struct StoredLine(i64, Stream, String);

/// The kept lines as the store keeps them.
#[derive(Serialize, Deserialize)]
struct Stored {
    head: Vec<StoredLine>,
    cut: u64,
    tail: Vec<StoredLine>,
}

impl Output {
    /// Bytes of the lines that are kept.
    pub fn kept_bytes(&self) -> usize {
        self.head.iter().chain(&self.tail).map(Line::cost).sum()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The kept lines, in their order.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &Line> {
        self.head.iter().chain(&self.tail)
    }

    /// The text, and in its midst what was cut.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut push = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        self.head.iter().for_each(|line| push(&line.text));
        if self.cut > 0 {
            push(&format!("… {} lines are not kept …", self.cut));
        }
        self.tail.iter().for_each(|line| push(&line.text));
        text
    }

    /// The kept lines as JSON text.
    pub fn to_json(&self) -> String {
        let stored = |lines: &[Line]| {
            let stored = |line: &Line| {
                StoredLine(line.at.timestamp_micros(), line.stream, line.text.clone())
            };
            lines.iter().map(stored).collect()
        };
        let stored = Stored { head: stored(&self.head), cut: self.cut, tail: stored(&self.tail) };
        serde_json::to_string(&stored).unwrap_or_default()
    }

    /// Reads what [`Output::to_json`] has written; none if it did not.
    pub fn from_json(text: &str, bytes: u64) -> Option<Self> {
        let Stored { head, cut, tail } = serde_json::from_str(text).ok()?;
        let lines = |stored: Vec<StoredLine>| {
            let line = |StoredLine(micros, stream, text)| {
                Some(Line { at: Timestamp::from_timestamp_micros(micros)?, stream, text })
            };
            stored.into_iter().map(line).collect::<Option<Vec<Line>>>()
        };
        Some(Self { head: lines(head)?, cut, tail: lines(tail)?, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: i64, stream: Stream, text: &str) -> Line {
        let at = Timestamp::from_timestamp(1_800_000_000 + second, 0).unwrap();
        Line { at, stream, text: text.to_owned() }
    }

    #[test]
    fn an_output_is_stored_and_read_alike_and_says_what_was_cut() {
        let output = Output {
            head: vec![line(1, Stream::Stdout, "begin \"quoted\"")],
            cut: 7,
            tail: vec![line(2, Stream::Stderr, ""), line(3, Stream::Stdout, "end")],
            bytes: 1234,
        };
        assert_eq!(Output::from_json(&output.to_json(), 1234), Some(output.clone()));
        assert_eq!(output.text(), "begin \"quoted\"\n… 7 lines are not kept …\n\nend\n");
        assert_eq!(Output::from_json("plain", 5), None);
    }
}
