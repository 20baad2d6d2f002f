//! What a run is writing: bounded, whatever it writes, and readable while it writes.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::output::{HEAD_BYTES, LINE_BYTES, Line, Output, Stream, TAIL_BYTES};

/// What stands where a secret stood.
const MASK: &str = "***";

#[derive(Debug, Default)]
struct Lines {
    head: Vec<Line>,
    head_bytes: usize,
    tail: VecDeque<Line>,
    tail_bytes: usize,
    cut: u64,
    bytes: u64,
    /// What has no line break yet, of both streams.
    begun: [Vec<u8>; 2],
    /// Texts that must not be seen.
    secrets: Vec<String>,
    is_closed: bool,
    followers: usize,
    /// Where lines go that are not kept here.
    pass_on: Option<fn(&Line)>,
}

/// The output of a run, while it grows.
#[derive(Debug, Default)]
pub struct Log {
    lines: Mutex<Lines>,
    changed: Notify,
}

/// Lines that a follower has not seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// Lines that were cut before it came to them.
    pub missed: u64,
    /// The lines.
    pub lines: Vec<Line>,
    /// Whether there will be no more.
    pub is_last: bool,
}

impl Log {
    /// A log that keeps nothing, and gives each line to whoever keeps it.
    pub fn passing_on(pass_on: fn(&Line)) -> Self {
        let lines = Lines { pass_on: Some(pass_on), ..Lines::default() };
        Self { lines: Mutex::new(lines), changed: Notify::default() }
    }

    /// Texts that are masked from now on, wherever they are written.
    pub fn hide(&self, secrets: impl IntoIterator<Item = String>) {
        // A secret of several lines never stands on one.
        let lines = secrets.into_iter().flat_map(|secret| {
            let lines: Vec<String> = secret.lines().map(str::to_owned).collect();
            lines
        });
        let mut state = self.lock();
        state.secrets.extend(lines.filter(|secret| !secret.trim().is_empty()));
        // The longest first: one may be a part of another.
        state.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// A text without what must not be seen.
    pub fn masked(&self, text: String) -> String {
        masked(&self.lock().secrets, text)
    }

    /// Takes up what was written.
    pub fn write(&self, at: Timestamp, stream: Stream, bytes: &[u8]) {
        let mut state = self.lock();
        if state.is_closed {
            return;
        }
        state.bytes = state.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        bytes
            .split_inclusive(|byte| *byte == b'\n')
            .for_each(|piece| state.take(at, stream, piece));
        drop(state);
        self.changed.notify_waiters();
    }

    /// Adds lines of an output that was kept elsewhere.
    pub fn append(&self, lines: Vec<Line>, bytes: u64) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_add(bytes);
        for line in lines {
            let text = masked(&state.secrets, line.text);
            state.keep(Line { text, ..line });
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Nothing more is written: what is kept of it all.
    pub fn close(&self, at: Timestamp) -> Output {
        let mut state = self.lock();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let begun = std::mem::take(state.begun_of(stream));
            if !begun.is_empty() {
                state.push(at, stream, &begun);
            }
        }
        state.is_closed = true;
        let (cut, bytes) = (state.cut, state.bytes);
        let (head, tail) = if state.followers == 0 {
            (std::mem::take(&mut state.head), std::mem::take(&mut state.tail))
        } else {
            (state.head.clone(), state.tail.clone())
        };
        drop(state);
        self.changed.notify_waiters();
        Output { head, cut, tail: tail.into(), bytes }
    }

    /// What is kept so far.
    pub fn so_far(&self) -> Output {
        let state = self.lock();
        let tail = state.tail.iter().cloned().collect();
        Output { head: state.head.clone(), cut: state.cut, tail, bytes: state.bytes }
    }

    /// Whether nothing more is written. What is kept then is only there for those who followed before.
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn begun_of(&mut self, stream: Stream) -> &mut Vec<u8> {
        let [stdout, stderr] = &mut self.begun;
        match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        }
    }

    /// Takes up a piece of a line, with its line break if it is the last one.
    fn take(&mut self, at: Timestamp, stream: Stream, piece: &[u8]) {
        let mut begun = std::mem::take(self.begun_of(stream));
        let text = piece.strip_suffix(b"\n");
        begun.extend_from_slice(text.unwrap_or(piece));
        let mut rest = begun.as_slice();
        while let Some((part, more)) =
            rest.split_at_checked(LINE_BYTES).filter(|(_, more)| !more.is_empty())
        {
            self.push(at, stream, part);
            rest = more;
        }
        if text.is_some() {
            self.push(at, stream, rest);
            begun.clear();
        } else {
            let done = begun.len() - rest.len();
            begun.drain(..done);
        }
        *self.begun_of(stream) = begun;
    }

    /// Takes up a line.
    fn push(&mut self, at: Timestamp, stream: Stream, bytes: &[u8]) {
        let text = masked(&self.secrets, String::from_utf8_lossy(bytes).into_owned());
        self.keep(Line { at, stream, text });
    }

    fn keep(&mut self, line: Line) {
        let cost = line.cost();
        if let Some(pass_on) = self.pass_on {
            return pass_on(&line);
        }
        if self.tail.is_empty() && self.head_bytes + cost <= HEAD_BYTES {
            self.head_bytes += cost;
            self.head.push(line);
            return;
        }
        self.tail_bytes += cost;
        self.tail.push_back(line);
        while self.tail_bytes > TAIL_BYTES
            && let Some(oldest) = self.tail.pop_front()
        {
            self.tail_bytes -= oldest.cost();
            self.cut += 1;
        }
    }

    /// Lines from the one of that number on.
    fn since(&self, seen: u64) -> News {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let position = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let head = self.head.iter().skip(position(seen));
        if self.cut > 0 && head.len() > 0 {
            // What was cut comes after these: it is told next.
            return News { missed: 0, lines: head.cloned().collect(), is_last: false };
        }
        let before_tail = count(self.head.len()) + self.cut;
        let missed = if seen < before_tail { self.cut.min(before_tail - seen) } else { 0 };
        let tail = self.tail.iter().skip(position(seen.saturating_sub(before_tail)));
        let lines = head.chain(tail).cloned().collect();
        News { missed, lines, is_last: self.is_closed }
    }
}

fn masked(secrets: &[String], text: String) -> String {
    secrets.iter().fold(text, |text, secret| {
        if text.contains(secret.as_str()) { text.replace(secret.as_str(), MASK) } else { text }
    })
}

/// Reads an output line by line while it grows.
#[derive(Debug)]
pub struct Follower<L: std::ops::Deref<Target = Log>> {
    log: L,
    seen: u64,
}

impl<L: std::ops::Deref<Target = Log>> Follower<L> {
    /// Reads from the beginning.
    pub fn new(log: L) -> Self {
        log.lock().followers += 1;
        Self { log, seen: 0 }
    }

    /// What has come, once something has.
    pub async fn next(&mut self) -> News {
        loop {
            let mut changed = std::pin::pin!(self.log.changed.notified());
            changed.as_mut().enable();
            let news = self.log.lock().since(self.seen);
            if news.is_last || news.missed > 0 || !news.lines.is_empty() {
                let count = u64::try_from(news.lines.len()).unwrap_or(u64::MAX);
                self.seen = self.seen.saturating_add(news.missed).saturating_add(count);
                return news;
            }
            changed.await;
        }
    }
}

impl<L: std::ops::Deref<Target = Log>> Drop for Follower<L> {
    fn drop(&mut self) {
        self.log.lock().followers -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn lines_are_stamped_when_they_are_complete_and_streams_are_told_apart() {
        let log = Log::default();
        log.write(at(1), Stream::Stdout, b"one\ntw");
        log.write(at(2), Stream::Stderr, b"oops\n");
        log.write(at(3), Stream::Stdout, b"o\nrest");
        let output = log.close(at(4));
        let seen: Vec<_> = output.lines().map(|line| (line.at, line.stream, &*line.text)).collect();
        assert_eq!(
            seen,
            [
                (at(1), Stream::Stdout, "one"),
                (at(2), Stream::Stderr, "oops"),
                (at(3), Stream::Stdout, "two"),
                (at(4), Stream::Stdout, "rest"),
            ]
        );
        assert_eq!((output.bytes, output.cut), (17, 0));
        log.write(at(5), Stream::Stdout, b"too late\n");
        assert!(log.so_far().is_empty() || log.so_far().lines().count() == 0);
    }

    #[test]
    fn the_beginning_and_the_end_are_kept_of_whatever_is_written() {
        let log = Log::default();
        for number in 0..100_000 {
            log.write(at(0), Stream::Stdout, format!("line {number}\n").as_bytes());
        }
        log.write(at(0), Stream::Stdout, &vec![b'x'; 3 * LINE_BYTES]);
        let output = log.close(at(1));
        assert_eq!(output.head.first().unwrap().text, "line 0");
        assert_eq!(output.tail.last().unwrap().text.len(), LINE_BYTES);
        let kept: usize = output.lines().map(Line::cost).sum();
        assert!(kept <= HEAD_BYTES + TAIL_BYTES, "{kept}");
        let lines = u64::try_from(output.lines().count()).unwrap();
        assert_eq!(lines + output.cut, 100_003, "what is cut is counted");
    }

    #[test]
    fn a_secret_is_masked_also_where_it_comes_in_pieces() {
        let log = Log::default();
        log.hide(["swordfish".to_owned(), "two\nlines".to_owned(), String::new()]);
        log.write(at(0), Stream::Stdout, b"the word is sword");
        log.write(at(0), Stream::Stdout, b"fish!\nof two\n");
        let output = log.close(at(0));
        assert_eq!(texts(&output.head), ["the word is ***!", "of ***"]);
        assert_eq!(log.masked("no swordfish".to_owned()), "no ***");
    }

    async fn read_all(follower: &mut Follower<&Log>) -> Vec<String> {
        let mut seen = Vec::new();
        let mut news = News::default();
        while !news.is_last {
            news = follower.next().await;
            seen.extend(news.lines.iter().map(|line| line.text.clone()));
        }
        seen
    }

    #[tokio::test]
    async fn a_follower_sees_every_line_once_and_the_end() {
        let log = Log::default();
        log.write(at(0), Stream::Stdout, b"before\n");
        let mut follower = Follower::new(&log);
        assert_eq!(texts(&follower.next().await.lines), ["before"]);
        let write = |text: &str| {
            log.write(at(1), Stream::Stdout, text.as_bytes());
            tokio::task::yield_now()
        };
        let writing = async {
            write("a\n").await;
            write("b").await;
            write("c\n").await;
            write("d").await;
            log.close(at(2))
        };
        let (seen, output) = tokio::join!(read_all(&mut follower), writing);
        assert_eq!(seen, ["a", "bc", "d"]);
        assert_eq!(output.lines().count(), 4, "who follows does not take it away");
    }

    #[test]
    fn what_is_passed_on_is_whole_lines_without_secrets_and_is_not_kept() {
        static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let log = Log::passing_on(|line| SEEN.lock().unwrap().push(line.text.clone()));
        log.hide(["swordfish".to_owned()]);
        log.write(at(0), Stream::Stdout, b"one\nsword");
        assert_eq!(*SEEN.lock().unwrap(), ["one"]);
        log.write(at(0), Stream::Stdout, b"fish");
        assert_eq!(log.close(at(1)).lines().count(), 0);
        assert_eq!(*SEEN.lock().unwrap(), ["one", "***"]);
    }

    #[tokio::test]
    async fn a_slow_follower_is_told_how_much_it_has_missed() {
        let log = Log::default();
        let mut follower = Follower::new(&log);
        for number in 0..10_000 {
            log.write(at(0), Stream::Stdout, format!("line {number}\n").as_bytes());
        }
        let (head, tail) = (follower.next().await, follower.next().await);
        assert_eq!((head.missed, &*head.lines[0].text), (0, "line 0"));
        let seen = u64::try_from(head.lines.len() + tail.lines.len()).unwrap();
        assert_eq!(tail.missed + seen, 10_000);
        log.write(at(0), Stream::Stdout, b"and on\n");
        let news = follower.next().await;
        assert_eq!((news.missed, texts(&news.lines)), (0, vec!["and on"]));
    }
}
