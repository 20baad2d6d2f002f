//! The output of a run: its lines, each with its time and its stream.
//!
//! The kept output is bounded, however much a run writes. It consists of the beginning, which shows what the run was going
//! to do, and the end, which shows how it went. The lines between them are only counted.

mod lines;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

pub use lines::Lines;

/// The largest size of a line. A longer line is kept as several.
pub const LINE_BYTES: usize = 8 * 1024;
/// Bytes of the text that are kept from the beginning, including a line break for each line.
pub const HEAD_BYTES: usize = 16 * 1024;
/// Bytes of the text that are kept from the end: enough for a stack trace and what led to it.
pub const TAIL_BYTES: usize = 48 * 1024;
/// Time stamps that are kept from the beginning. Lines of one stream that were written at the same time share a stamp, so
/// this only limits very short lines that are written one by one.
pub const HEAD_STAMPS: usize = 4 * 1024;
/// Time stamps that are kept from the end.
pub const TAIL_STAMPS: usize = 12 * 1024;

/// The approximate size of a stamp in the store.
const STAMP_BYTES: usize = 20;

/// The stream that a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output, or the messages of a builtin.
    Stdout,
    Stderr,
}

/// A line of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When the line was complete.
    pub at: Timestamp,
    pub stream: Stream,
    /// The text without its line break.
    pub text: String,
    /// Whether the line has no line break, because the rest of a long line follows in the same stream, or because the
    /// stream ends.
    pub is_open: bool,
}

/// The kept output of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    pub head: Lines,
    /// The number of lines between `head` and `tail` that are not kept.
    pub cut: u64,
    pub tail: Lines,
    /// The number of bytes that were written in total.
    pub bytes: u64,
}

/// The stored form of the kept lines.
#[derive(Serialize, Deserialize)]
struct StoredOutput<L> {
    head: L,
    cut: u64,
    tail: L,
}

impl Output {
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The approximate size of the kept lines in the store.
    pub fn kept_bytes(&self) -> usize {
        let bytes = |lines: &Lines| lines.text().len() + lines.stamps() * STAMP_BYTES;
        bytes(&self.head) + bytes(&self.tail)
    }

    pub fn lines(&self) -> impl Iterator<Item = Line> + '_ {
        self.head.iter().chain(self.tail.iter())
    }

    /// The last `count` kept lines, in order.
    pub fn last_lines(&self, count: usize) -> Vec<Line> {
        let skipped = (self.head.len() + self.tail.len()).saturating_sub(count);
        let mut lines = self.head.since(skipped);
        lines.append(&mut self.tail.since(skipped.saturating_sub(self.head.len())));
        lines
    }

    /// The text, with a note in place of the lines that are not kept.
    pub fn text(&self) -> String {
        let cut = match self.cut {
            0 => String::new(),
            lines => format!("… {lines} lines are not kept …\n"),
        };
        [self.head.text(), &cut, self.tail.text()].concat()
    }

    pub fn to_json(&self) -> String {
        let stored = StoredOutput { head: &self.head, cut: self.cut, tail: &self.tail };
        serde_json::to_string(&stored).unwrap_or_default()
    }

    /// Parses the result of [`Output::to_json`].
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
    fn an_output_survives_storage_and_notes_what_was_cut() {
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
