//! The output of a run while it grows. It is bounded, however much the run writes: the first lines and the last ones are
//! kept, and the lines between them are counted. It can be read and saved at any time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::TimeDelta;
use tokio::sync::Notify;

use super::mask::Mask;
use crate::clock::Timestamp;
use crate::output::{
    HEAD_BYTES, HEAD_STAMPS, LINE_BYTES, Line, Lines, Output, Stream, TAIL_BYTES, TAIL_STAMPS,
};

/// How long output stays unsaved while its run goes on: what a run writes that ends soon is saved with its end only.
const SAVE_PAUSE: TimeDelta = TimeDelta::seconds(1);
/// Bytes that are saved per second. An output is saved as a whole each time, so a large one is saved less often.
const SAVE_BYTES_PER_SECOND: usize = 16 * 1024;
/// The longest pause that follows from it. If the next save is further away than this, the clock was set back, and the output may be saved now.
const SAVE_PAUSE_MAX: TimeDelta = TimeDelta::seconds(10);

#[derive(Debug, Default)]
struct LogState {
    head: Lines,
    tail: Lines,
    cut: u64,
    bytes: u64,
    /// The unfinished line of each stream.
    unfinished: [Vec<u8>; 2],
    mask: Mask,
    is_closed: bool,
    followers: usize,
    /// If set, gets each line, and no line is kept.
    pass_on: Option<fn(&Line)>,
    /// When the first byte was written that has not been saved.
    unsaved_since: Option<Timestamp>,
    /// When the output may be saved next, if it was saved before.
    save_from: Option<Timestamp>,
}

/// What follows a piece of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Perhaps the rest of its line.
    Nothing,
    /// A line break.
    Line,
    /// The end of the output.
    Output,
}

/// The output of a run while it grows.
#[derive(Debug, Default)]
pub struct Log {
    state: Mutex<LogState>,
    changed: Notify,
    /// Notified when there is unsaved output and was none before.
    unsaved: Option<Arc<Notify>>,
}

/// New lines for a follower.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// Lines that were cut before the follower read them.
    pub missed: u64,
    pub lines: Vec<Line>,
    /// Whether no more lines will follow.
    pub is_last: bool,
}

impl Log {
    /// Creates a log that keeps nothing and passes each line on.
    pub fn passing_on(pass_on: fn(&Line)) -> Self {
        let state = LogState { pass_on: Some(pass_on), ..LogState::default() };
        Self { state: Mutex::new(state), ..Self::default() }
    }

    /// Creates a log that notifies its owner when there is something to save.
    pub fn notifying(unsaved: Arc<Notify>) -> Self {
        Self { unsaved: Some(unsaved), ..Self::default() }
    }

    /// Masks these secrets from now on, unless they are too short to be masked.
    pub fn hide(&self, secrets: impl IntoIterator<Item = String>) {
        self.lock().mask.hide(secrets);
    }

    /// The text with all secrets masked.
    pub fn masked(&self, text: String) -> String {
        self.lock().mask.apply(text)
    }

    /// Adds output. After [`Log::close`] it is ignored.
    pub fn write(&self, at: Timestamp, stream: Stream, bytes: &[u8]) {
        let mut state = self.lock();
        if state.is_closed {
            return;
        }
        state.bytes = state.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        bytes
            .split_inclusive(|byte| *byte == b'\n')
            .for_each(|piece| state.take(at, stream, piece));
        let is_first = state.unsaved_since.is_none();
        state.unsaved_since.get_or_insert(at);
        drop(state);
        self.changed.notify_waiters();
        if let Some(unsaved) = self.unsaved.as_ref().filter(|_| is_first) {
            unsaved.notify_one();
        }
    }

    /// Ends the log, and returns the output that is kept.
    pub fn close(&self, at: Timestamp) -> Output {
        let mut state = self.lock();
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !state.unfinished_of(stream).is_empty() {
                state.take_part(at, stream, b"", End::Output);
            }
        }
        state.shorten();
        state.is_closed = true;
        let (cut, bytes) = (state.cut, state.bytes);
        let (head, tail) = if state.followers == 0 {
            (std::mem::take(&mut state.head), std::mem::take(&mut state.tail))
        } else {
            (state.head.clone(), state.tail.clone())
        };
        drop(state);
        self.changed.notify_waiters();
        Output { head, cut, tail, bytes }
    }

    /// The output that is kept so far, without unfinished lines.
    pub fn so_far(&self) -> Output {
        self.lock().so_far()
    }

    /// Whether the log has ended. Then it keeps its lines only for followers that began before.
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Whether there is unsaved output, and the end of the run will not save it.
    pub fn is_unsaved(&self) -> bool {
        let state = self.lock();
        state.unsaved_since.is_some() && !state.is_closed
    }

    /// Since when the output waits to be saved, if it is due to be saved.
    pub fn unsaved_since(&self, now: Timestamp) -> Option<Timestamp> {
        let state = self.lock();
        let since = state.unsaved_since.filter(|_| !state.is_closed)?;
        let is_young = since <= now && now - since < SAVE_PAUSE;
        let was_saved =
            state.save_from.is_some_and(|from| now < from && from - now <= SAVE_PAUSE_MAX);
        (!is_young && !was_saved).then_some(since)
    }

    /// The output to save now, including the unfinished lines.
    pub fn to_save(&self, now: Timestamp) -> Output {
        let mut state = self.lock();
        let mut output = state.so_far();
        for (stream, begun) in [Stream::Stdout, Stream::Stderr].into_iter().zip(&state.unfinished) {
            let settled = state.mask.settled(begun);
            if settled.is_empty() {
                continue;
            }
            let text = state.mask.apply(String::from_utf8_lossy(settled).into_owned());
            let is_head = state.is_head(&text);
            let lines = if is_head { &mut output.head } else { &mut output.tail };
            lines.push_line(&Line { at: now, stream, text, is_open: true });
        }
        output
    }

    /// Takes note that an output from [`Log::to_save`] has been saved.
    pub fn saved(&self, output: &Output, now: Timestamp) {
        let mut state = self.lock();
        state.unsaved_since = Some(now).filter(|_| state.bytes > output.bytes);
        let seconds = output.kept_bytes() / SAVE_BYTES_PER_SECOND;
        let pause = TimeDelta::seconds(i64::try_from(seconds).unwrap_or(i64::MAX));
        state.save_from = now.checked_add_signed(pause.clamp(SAVE_PAUSE, SAVE_PAUSE_MAX));
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogState {
    fn unfinished_of(&mut self, stream: Stream) -> &mut Vec<u8> {
        let [stdout, stderr] = &mut self.unfinished;
        match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        }
    }

    /// Adds a piece of a line, with its line break if it is the last piece.
    fn take(&mut self, at: Timestamp, stream: Stream, piece: &[u8]) {
        match piece.strip_suffix(b"\n") {
            Some(text) => self.take_part(at, stream, text, End::Line),
            None => self.take_part(at, stream, piece, End::Nothing),
        }
    }

    fn take_part(&mut self, at: Timestamp, stream: Stream, part: &[u8], end: End) {
        let mut begun = std::mem::take(self.unfinished_of(stream));
        begun.extend_from_slice(part);
        let mut rest = begun.as_slice();
        // A long line is cut, but only when enough bytes are known to see whether the cut would split a secret.
        let ahead = if end == End::Nothing { self.mask.longest() } else { 0 };
        while rest.len() > LINE_BYTES + ahead {
            let cut = self.mask.cut(rest, LINE_BYTES).clamp(1, rest.len());
            let (part, more) = rest.split_at(cut);
            self.push(at, stream, part, true);
            rest = more;
        }
        if end == End::Nothing {
            let done = begun.len() - rest.len();
            begun.drain(..done);
        } else {
            self.push(at, stream, rest, end == End::Output);
            begun.clear();
        }
        *self.unfinished_of(stream) = begun;
    }

    /// Adds a line, or the part of one before a cut.
    fn push(&mut self, at: Timestamp, stream: Stream, bytes: &[u8], is_open: bool) {
        let text = self.mask.apply(String::from_utf8_lossy(bytes).into_owned());
        let line = Line { at, stream, text, is_open };
        if let Some(pass_on) = self.pass_on {
            return pass_on(&line);
        }
        let is_head = self.is_head(&line.text);
        let lines = if is_head { &mut self.head } else { &mut self.tail };
        lines.push_line(&line);
        // Removing lines from the front moves all bytes behind them, so it is not done for each line.
        if self.tail.text().len() > 2 * TAIL_BYTES || self.tail.stamps() > 2 * TAIL_STAMPS {
            self.shorten();
        }
    }

    /// Whether a line belongs to the first lines that are kept.
    fn is_head(&self, text: &str) -> bool {
        let is_full = self.head.text().len() + text.len() + 1 > HEAD_BYTES
            || self.head.stamps() >= HEAD_STAMPS;
        self.tail.is_empty() && !is_full
    }

    /// Cuts the lines that are neither first nor last ones.
    fn shorten(&mut self) {
        let lines = self.tail.shorten(TAIL_BYTES, TAIL_STAMPS);
        self.cut = self.cut.saturating_add(u64::try_from(lines).unwrap_or(u64::MAX));
    }

    fn so_far(&mut self) -> Output {
        self.shorten();
        let (head, tail) = (self.head.clone(), self.tail.clone());
        Output { head, cut: self.cut, tail, bytes: self.bytes }
    }

    /// The lines from number `seen` on.
    fn since(&mut self, seen: u64) -> News {
        self.shorten();
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let position = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let mut lines = self.head.since(position(seen));
        if self.cut > 0 && !lines.is_empty() {
            // The cut lines come after these, with the next news.
            return News { missed: 0, lines, is_last: false };
        }
        let before_tail = count(self.head.len()) + self.cut;
        let missed = if seen < before_tail { self.cut.min(before_tail - seen) } else { 0 };
        lines.append(&mut self.tail.since(position(seen.saturating_sub(before_tail))));
        News { missed, lines, is_last: self.is_closed }
    }
}

/// Reads an output line by line while it grows.
#[derive(Debug)]
pub struct Follower<L: std::ops::Deref<Target = Log>> {
    log: L,
    seen: u64,
}

impl<L: std::ops::Deref<Target = Log>> Follower<L> {
    /// Starts at the first line.
    pub fn new(log: L) -> Self {
        log.lock().followers += 1;
        Self { log, seen: 0 }
    }

    /// Waits for new lines. Cancel-safe.
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

    fn texts(lines: impl IntoIterator<Item = Line>) -> Vec<String> {
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn a_line_has_the_time_of_its_line_break_and_its_stream() {
        let log = Log::default();
        log.write(at(1), Stream::Stdout, b"one\ntw");
        log.write(at(2), Stream::Stderr, b"oops\n");
        log.write(at(3), Stream::Stdout, b"o\nrest");
        let output = log.close(at(4));
        let seen: Vec<_> = output.lines().map(|line| (line.at, line.stream, line.text)).collect();
        let expected = [
            (at(1), Stream::Stdout, "one"),
            (at(2), Stream::Stderr, "oops"),
            (at(3), Stream::Stdout, "two"),
            (at(4), Stream::Stdout, "rest"),
        ];
        assert_eq!(seen, expected.map(|(at, stream, text)| (at, stream, text.to_owned())));
        assert_eq!((output.bytes, output.cut), (17, 0));
        log.write(at(5), Stream::Stdout, b"too late\n");
        assert!(log.so_far().is_empty() || log.so_far().lines().count() == 0);
    }

    #[test]
    fn the_first_and_the_last_lines_are_kept() {
        let log = Log::default();
        for number in 0..100_000 {
            log.write(at(0), Stream::Stdout, format!("line {number}\n").as_bytes());
        }
        log.write(at(0), Stream::Stdout, &vec![b'x'; 3 * LINE_BYTES]);
        let output = log.close(at(1));
        assert_eq!(output.lines().next().unwrap().text, "line 0");
        assert_eq!(output.last_lines(1)[0].text.len(), LINE_BYTES);
        assert!(output.head.text().len() <= HEAD_BYTES && output.tail.text().len() <= TAIL_BYTES);
        let lines = u64::try_from(output.lines().count()).unwrap();
        assert_eq!(lines + output.cut, 100_003, "what is cut is counted");
    }

    #[test]
    fn as_much_text_is_kept_of_short_lines_as_of_long_ones() {
        let log = Log::default();
        let lines = |range: std::ops::RangeInclusive<u32>| {
            let lines: Vec<String> = range.map(|number| number.to_string()).collect();
            lines.join("\n") + "\n"
        };
        let all = lines(1..=20_000);
        for (number, piece) in all.as_bytes().chunks(1000).enumerate() {
            log.write(at(i64::try_from(number).unwrap()), Stream::Stdout, piece);
        }
        let output = log.close(at(1));
        let (first, last) = (lines(1..=3498), lines(20_001 - 8192..=20_000));
        assert_eq!((first.len(), last.len()), (HEAD_BYTES - 1, TAIL_BYTES));
        assert_eq!((output.head.text(), output.tail.text()), (&*first, &*last));
        assert_eq!(output.cut, 20_000 - 3498 - 8192);
    }

    #[test]
    fn the_number_of_time_stamps_is_bounded() {
        let log = Log::default();
        for number in 0..100_000 {
            log.write(at(number), Stream::Stdout, b"\n");
        }
        let output = log.close(at(1));
        assert_eq!((output.head.len(), output.tail.len()), (HEAD_STAMPS, TAIL_STAMPS));
        assert_eq!(output.cut, 100_000 - 16 * 1024);
    }

    #[test]
    fn a_secret_at_the_limit_of_a_line_is_masked() {
        for (before, end) in (LINE_BYTES - 12..LINE_BYTES + 3).zip(["\n", ""].into_iter().cycle()) {
            let log = Log::default();
            log.hide(["swordfish".to_owned()]);
            let line = format!("{}swordfish{}", "x".repeat(before), "y".repeat(20_000));
            for piece in format!("{line}{end}").as_bytes().chunks(1000) {
                log.write(at(0), Stream::Stdout, piece);
            }
            let text: String = log.close(at(0)).lines().map(|line| line.text).collect();
            assert_eq!(text, line.replace("swordfish", "***"), "after {before} bytes");
        }
    }

    #[test]
    fn a_large_output_is_saved_less_often() {
        let unsaved = Arc::new(Notify::new());
        let log = Log::notifying(Arc::clone(&unsaved));
        log.hide(["swordfish".to_owned()]);
        assert_eq!(log.unsaved_since(at(9)), None);
        log.write(at(10), Stream::Stdout, b"one\ntwo swordf");
        assert!(log.is_unsaved());
        assert_eq!(log.unsaved_since(at(10)), None, "its run may end soon");
        assert_eq!(log.unsaved_since(at(11)), Some(at(10)));
        assert_eq!(log.unsaved_since(at(5)), Some(at(10)), "the clock was set back");
        let output = log.to_save(at(11));
        assert_eq!(texts(output.lines()), ["one", "two "], "half a secret is not shown");
        log.saved(&output, at(11));
        assert_eq!((log.is_unsaved(), log.unsaved_since(at(100))), (false, None));
        log.write(at(11), Stream::Stdout, &vec![b'x'; 100_000]);
        log.write(at(11), Stream::Stdout, b"\n");
        let output = log.to_save(at(12));
        assert_eq!(log.unsaved_since(at(12)), Some(at(11)));
        log.saved(&output, at(12));
        log.write(at(12), Stream::Stdout, b"more\n");
        assert_eq!((log.unsaved_since(at(13)), log.unsaved_since(at(16))), (None, Some(at(12))));
        log.saved(&output, at(16));
        assert!(log.is_unsaved(), "more was written than was saved");
        log.close(at(17));
        assert!(!log.is_unsaved(), "the end of the run saves it");
    }

    #[test]
    fn a_secret_that_is_written_in_pieces_is_masked() {
        let log = Log::default();
        log.hide(["swordfish".to_owned(), "two words\nlines".to_owned(), String::new()]);
        log.write(at(0), Stream::Stdout, b"the word is sword");
        log.write(at(0), Stream::Stdout, b"fish!\nof two words\n");
        let output = log.close(at(0));
        assert_eq!(texts(output.lines()), ["the word is ***!", "of ***"]);
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
        assert_eq!(texts(follower.next().await.lines), ["before"]);
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
        assert_eq!(output.lines().count(), 4, "a follower does not remove the output");
    }

    #[test]
    fn lines_are_passed_on_whole_and_without_secrets_and_are_not_kept() {
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
    async fn a_slow_follower_gets_the_number_of_lines_that_it_missed() {
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
        assert_eq!((news.missed, texts(news.lines)), (0, vec!["and on".to_owned()]));
    }
}
