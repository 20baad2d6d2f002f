//! Stores lines compactly: their text in one string, and one stamp for each group of lines that were written at the same
//! time to the same stream.

use std::collections::VecDeque;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Line, Stream};
use crate::clock::Timestamp;

/// The time and the stream of a group of successive lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    at: Timestamp,
    stream: Stream,
    lines: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines {
    /// The text of all lines, each with a line break.
    text: String,
    stamps: VecDeque<Stamp>,
    count: usize,
    /// The numbers of the lines that were written without a line break, in order.
    open: VecDeque<usize>,
}

impl Lines {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The text of all lines, each with a line break.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The number of stamps, at most one for each line.
    pub fn stamps(&self) -> usize {
        self.stamps.len()
    }

    /// Adds a line. A line break in its text begins another line.
    pub fn push(&mut self, at: Timestamp, stream: Stream, text: &str) {
        for line in text.split('\n') {
            self.text.push_str(line);
            self.text.push('\n');
            self.count += 1;
            match self.stamps.back_mut() {
                Some(last) if (last.at, last.stream) == (at, stream) && last.lines < u32::MAX => {
                    last.lines += 1;
                }
                _ => self.stamps.push_back(Stamp { at, stream, lines: 1 }),
            }
        }
    }

    /// Adds a line that may be open.
    pub fn push_line(&mut self, line: &Line) {
        self.push(line.at, line.stream, &line.text);
        if line.is_open {
            self.open.push_back(self.count - 1);
        }
    }

    /// Removes lines from the front until the rest is within the limits. Returns their number.
    pub fn shorten(&mut self, bytes: usize, stamps: usize) -> usize {
        let (mut cut, mut lines) = (0, 0);
        while self.text.len() - cut > bytes || self.stamps.len() > stamps {
            let Some(length) = self.text.get(cut..).and_then(|rest| rest.find('\n')) else { break };
            cut += length + 1;
            lines += 1;
            if let Some(first) = self.stamps.front_mut() {
                first.lines -= 1;
            }
            if self.stamps.front().is_some_and(|first| first.lines == 0) {
                self.stamps.pop_front();
            }
        }
        if lines > 0 {
            self.text.drain(..cut);
            self.count -= lines;
            self.open = self.open.iter().filter_map(|number| number.checked_sub(lines)).collect();
        }
        lines
    }

    pub fn iter(&self) -> impl Iterator<Item = Line> + '_ {
        self.since_line(0)
    }

    /// The lines from this number on, counted from 0.
    pub fn since(&self, number: usize) -> Vec<Line> {
        self.since_line(number).collect()
    }

    fn since_line(&self, first: usize) -> impl Iterator<Item = Line> + '_ {
        let stamps = self.stamps.iter().flat_map(|stamp| {
            let lines = usize::try_from(stamp.lines).unwrap_or(usize::MAX);
            std::iter::repeat_n((stamp.at, stamp.stream), lines)
        });
        let texts = self.text.split_terminator('\n');
        let lines = stamps.zip(texts).enumerate().skip(first);
        lines.map(|(number, ((at, stream), text))| {
            let is_open = self.open.binary_search(&number).is_ok();
            Line { at, stream, text: text.to_owned(), is_open }
        })
    }
}

impl FromIterator<Line> for Lines {
    fn from_iter<I: IntoIterator<Item = Line>>(from: I) -> Self {
        let mut lines = Self::default();
        from.into_iter().for_each(|line| lines.push_line(&line));
        lines
    }
}

/// The stored form of a stamp: microseconds since the stamp before, stream, number of lines.
#[derive(Serialize, Deserialize)]
struct StoredStamp(i64, Stream, u32);

/// The stored form of lines.
#[derive(Serialize, Deserialize)]
struct StoredLines<'a> {
    text: std::borrow::Cow<'a, str>,
    stamps: Vec<StoredStamp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    open: Vec<usize>,
}

impl Serialize for Lines {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut before = 0;
        let stored = |stamp: &Stamp| {
            let at = stamp.at.timestamp_micros();
            let since = at.wrapping_sub(std::mem::replace(&mut before, at));
            StoredStamp(since, stamp.stream, stamp.lines)
        };
        let stamps = self.stamps.iter().map(stored).collect();
        let open = self.open.iter().copied().collect();
        StoredLines { text: (&self.text).into(), stamps, open }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Lines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The current form, and that of earlier versions: microseconds, stream and text of each line.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Groups(StoredLines<'static>),
            Each(Vec<(i64, Stream, String)>),
        }
        let unreadable = || serde::de::Error::custom("the stamps do not belong to the lines");
        let lines = match Either::deserialize(deserializer)? {
            Either::Groups(stored) => Self::from_stored(stored),
            Either::Each(lines) => {
                let line = |(micros, stream, text)| {
                    let at = Timestamp::from_timestamp_micros(micros)?;
                    Some(Line { at, stream, text, is_open: false })
                };
                lines.into_iter().map(line).collect()
            }
        };
        lines.ok_or_else(unreadable)
    }
}

impl Lines {
    fn from_stored(stored: StoredLines<'_>) -> Option<Self> {
        let mut micros: i64 = 0;
        let mut count: usize = 0;
        let stamps = stored.stamps.into_iter().map(|StoredStamp(since, stream, lines)| {
            micros = micros.wrapping_add(since);
            count = count.checked_add(usize::try_from(lines).ok()?)?;
            Some(Stamp { at: Timestamp::from_timestamp_micros(micros)?, stream, lines })
        });
        let stamps = stamps.collect::<Option<VecDeque<Stamp>>>()?;
        let text = stored.text.into_owned();
        let breaks = text.bytes().filter(|byte| *byte == b'\n').count();
        let is_whole = text.is_empty() || text.ends_with('\n');
        let open = VecDeque::from(stored.open);
        let is_open_right = open.iter().is_sorted_by(|number, next| number < next)
            && open.back().is_none_or(|last| *last < count);
        let is_right = breaks == count && is_whole && is_open_right;
        (is_right && stamps.iter().all(|stamp| stamp.lines > 0)).then_some(Self {
            text,
            stamps,
            count,
            open,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn texts(lines: &Lines) -> Vec<String> {
        lines.iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_that_were_written_at_the_same_time_share_a_stamp() {
        let mut lines = Lines::default();
        for number in 0..10 {
            lines.push(at(number / 5), Stream::Stdout, &number.to_string());
        }
        lines.push(at(1), Stream::Stderr, "two\nlines");
        assert_eq!((lines.len(), lines.stamps()), (12, 3));
        let all: Vec<Line> = lines.iter().collect();
        assert_eq!((all[4].at, all[5].at, all[11].stream), (at(0), at(1), Stream::Stderr));
        for number in 0..13 {
            assert_eq!(lines.since(number), all[number.min(12)..], "since {number}");
        }
        assert_eq!(lines.shorten(usize::MAX, 1), 10);
        assert_eq!(texts(&lines), ["two", "lines"]);
        assert_eq!(lines.shorten(6, 1), 1);
        assert_eq!((texts(&lines), lines.text()), (vec!["lines".to_owned()], "lines\n"));
        assert_eq!((lines.shorten(0, 0), lines), (1, Lines::default()));
    }

    #[test]
    fn a_line_without_a_line_break_is_known_by_its_number() {
        let mut lines = Lines::default();
        for (text, is_open) in [("whole", false), ("one ", true), ("line", false), ("end", true)] {
            let text = text.to_owned();
            lines.push_line(&Line { at: at(0), stream: Stream::Stdout, text, is_open });
        }
        let open = |lines: &Lines| lines.iter().map(|line| line.is_open).collect::<Vec<_>>();
        assert_eq!(open(&lines), [false, true, false, true]);
        assert!(lines.since(1)[0].is_open);
        let stored = serde_json::to_string(&lines).unwrap();
        assert_eq!(serde_json::from_str::<Lines>(&stored).unwrap(), lines);
        assert_eq!(lines.iter().collect::<Lines>(), lines);
        assert_eq!(lines.shorten(9, 1), 2);
        assert_eq!(
            (texts(&lines), open(&lines)),
            (vec!["line".to_owned(), "end".to_owned()], vec![false, true])
        );
    }

    #[test]
    fn stored_lines_are_hardly_larger_than_their_text_and_inconsistent_ones_are_refused() {
        let mut lines = Lines::default();
        (0..8192).for_each(|number| lines.push(at(0), Stream::Stdout, &format!("{number:05}")));
        let stored = serde_json::to_string(&lines).unwrap();
        assert!(stored.len() < 8192 * 7 + 100, "{}", stored.len());
        assert_eq!(serde_json::from_str::<Lines>(&stored).unwrap(), lines);
        for bad in [
            r#"{"text":"a\n","stamps":[]}"#,
            r#"{"text":"a","stamps":[[1,"stdout",1]]}"#,
            r#"{"text":"","stamps":[[1,"stdout",0]]}"#,
            r#"{"text":"a\n","stamps":[[1,"stdout",1]],"open":[1]}"#,
            r#"{"text":"a\nb\n","stamps":[[1,"stdout",2]],"open":[1,0]}"#,
        ] {
            assert!(serde_json::from_str::<Lines>(bad).is_err(), "{bad}");
        }
    }
}
