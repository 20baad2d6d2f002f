//! What a run has written, line by line: when, and by which of its two streams.
//!
//! What is kept has a bound, whatever a run writes: its beginning, which says what it set out to do, and its end,
//! which says what became of it. What was cut between them is counted.

mod lines;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

pub use lines::Lines;

/// Bytes of a line; a longer one is kept as several.
pub const LINE_BYTES: usize = 8 * 1024;
/// Bytes of text, with a line break for each line, that are kept from the beginning.
pub const HEAD_BYTES: usize = 16 * 1024;
/// The same from the end: enough for a stack trace and what led to it.
pub const TAIL_BYTES: usize = 48 * 1024;
/// Stamps that are kept from the beginning. Lines of a stream that were written at once share one, so this only
/// bounds lines that are very short and come one by one.
pub const HEAD_STAMPS: usize = 4 * 1024;
/// The same from the end.
pub const TAIL_STAMPS: usize = 12 * 1024;

/// Bytes of a stamp in a store, roughly.
const STAMP_BYTES: usize = 20;

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
    /// Whether it has no line break: the rest of a long line follows in the same stream, or nothing does.
    pub is_open: bool,
}

/// What is kept of an output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Its first lines.
    pub head: Lines,
    /// Lines after those that are not kept.
    pub cut: u64,
    /// Its last lines.
    pub tail: Lines,
    /// Bytes that were written in all.
    pub bytes: u64,
}

/// The kept lines as the store keeps them.
#[derive(Serialize, Deserialize)]
struct StoredOutput<L> {
    head: L,
    cut: u64,
    tail: L,
}

impl Output {
    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that the kept lines take in a store, roughly.
    pub fn kept_bytes(&self) -> usize {
        let bytes = |lines: &Lines| lines.text().len() + lines.stamps() * STAMP_BYTES;
        bytes(&self.head) + bytes(&self.tail)
    }

    /// The kept lines, in their order.
    pub fn lines(&self) -> impl Iterator<Item = Line> + '_ {
        self.head.iter().chain(self.tail.iter())
    }

    /// The last lines of those that are kept, at most this many, in their order.
    pub fn last_lines(&self, count: usize) -> Vec<Line> {
        let skipped = (self.head.len() + self.tail.len()).saturating_sub(count);
        let mut lines = self.head.since(skipped);
        lines.append(&mut self.tail.since(skipped.saturating_sub(self.head.len())));
        lines
    }

    /// The text, and in its midst what was cut.
    pub fn text(&self) -> String {
        let cut = match self.cut {
            0 => String::new(),
            lines => format!("… {lines} lines are not kept …\n"),
        };
        [self.head.text(), &cut, self.tail.text()].concat()
    }

    /// The kept lines as JSON text.
    pub fn to_json(&self) -> String {
        let stored = StoredOutput { head: &self.head, cut: self.cut, tail: &self.tail };
        serde_json::to_string(&stored).unwrap_or_default()
    }

    /// Reads what [`Output::to_json`] has written; none if it did not.
    pub fn from_json(text: &str, bytes: u64) -> Option<Self> {
        let StoredOutput { head, cut, tail } = serde_json::from_str(text).ok()?;
        Some(Self { head, cut, tail, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: i64, stream: Stream, text: &str) -> Line {
        let at = Timestamp::from_timestamp(1_800_000_000 + second, 0).unwrap();
        Line { at, stream, text: text.to_owned(), is_open: false }
    }

    #[test]
    fn an_output_is_stored_and_read_alike_and_says_what_was_cut() {
        let output = Output {
            head: [line(1, Stream::Stdout, "begin \"quoted\"")].into_iter().collect(),
            cut: 7,
            tail: [line(2, Stream::Stderr, ""), line(3, Stream::Stdout, "end")]
                .into_iter()
                .collect(),
            bytes: 1234,
        };
        assert_eq!(Output::from_json(&output.to_json(), 1234), Some(output.clone()));
        assert_eq!(output.text(), "begin \"quoted\"\n… 7 lines are not kept …\n\nend\n");
        assert_eq!(output.last_lines(1), [line(3, Stream::Stdout, "end")]);
        let before = r#"{"head":[[1800000001000000,"stdout","begin \"quoted\""]],"cut":7,
            "tail":[[1800000002000000,"stderr",""],[1800000003000000,"stdout","end"]]}"#;
        assert_eq!(Output::from_json(before, 1234), Some(output), "as earlier versions wrote it");
        assert_eq!(Output::from_json("plain", 5), None);
    }
}
