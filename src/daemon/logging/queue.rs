//! Entries of the log on their way to journald or standard error. Logging never waits: the queue has a bound, one thread
//! empties it, and entries that do not fit or cannot be written are counted. The count is logged once entries can be
//! written again.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tracing::Level;

use super::entry::{Entry, Reader};
use super::journal::Journal;

/// Bytes of entries that wait to be written; an entry beyond them is dropped.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// The part of these bytes that only warnings and errors may use, so that a flood of other entries does not crowd them
/// out.
const RESERVE: usize = BYTES_MAX / 8;

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Entries that were dropped because the queue was full, and whose number was not logged yet.
    dropped: u64,
    is_writing: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    has_entries: Condvar,
    is_empty: Condvar,
}

/// The queue; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct LogQueue(Arc<Shared>);

impl LogQueue {
    /// A queue whose entries a thread writes for this reader, for as long as the process lives.
    pub(super) fn start(reader: Reader) -> io::Result<Self> {
        let queue = Self::default();
        let own = queue.clone();
        let journal = if reader == Reader::Journal { Journal::new().ok() } else { None };
        let writing = move || own.write_all(Out::new(io::stderr(), reader, journal), &tell_lost);
        std::thread::Builder::new().name("punctual-log".to_owned()).spawn(writing)?;
        Ok(queue)
    }

    /// Adds an entry, or drops it if the queue is full.
    pub(super) fn push(&self, entry: Entry) {
        let bytes = entry.bytes();
        let limit = if entry.level <= Level::WARN { BYTES_MAX } else { BYTES_MAX - RESERVE };
        let mut state = self.lock();
        if state.bytes + bytes > limit {
            state.dropped = state.dropped.saturating_add(1);
            return;
        }
        self.add(state, entry, bytes);
    }

    /// Adds the last entry of the process, even if the queue is full.
    pub(super) fn push_last(&self, entry: Entry) {
        let bytes = entry.bytes();
        self.add(self.lock(), entry, bytes);
    }

    fn add(&self, mut state: MutexGuard<'_, State>, entry: Entry, bytes: usize) {
        state.bytes += bytes;
        state.entries.push_back(entry);
        drop(state);
        self.0.has_entries.notify_one();
    }

    /// Waits until every entry is written, but no longer than `limit`.
    pub(super) fn finish(&self, limit: Duration) {
        let is_pending = |state: &mut State| state.is_writing || !state.entries.is_empty();
        let waited = self.0.is_empty.wait_timeout_while(self.lock(), limit, is_pending);
        // Nobody reads: the entries are lost, and the end does not wait for them.
        drop(waited);
    }

    /// Writes entries as they come. `tell` logs how many were lost.
    fn write_all(&self, mut out: Out<impl Write + AsFd>, tell: &dyn Fn(u64)) {
        loop {
            out.write(&self.next());
            let mut state = self.lock();
            // Not at each entry that finds a place while the queue is full: that would fill it with reports.
            let has_room = state.bytes <= BYTES_MAX / 2;
            let dropped =
                if has_room && out.works { std::mem::take(&mut state.dropped) } else { 0 };
            drop(state);
            let lost = dropped + if out.works { std::mem::take(&mut out.lost) } else { 0 };
            if lost > 0 {
                tell(lost);
            }
        }
    }

    /// Waits for an entry. The one before it has been written.
    fn next(&self) -> Entry {
        let mut state = self.lock();
        loop {
            state.is_writing = false;
            if let Some(entry) = state.entries.pop_front() {
                state.bytes -= entry.bytes();
                state.is_writing = true;
                return entry;
            }
            self.0.is_empty.notify_all();
            state = self.0.has_entries.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell_lost(lines: u64) {
    tracing::warn!(lines, "lines of the log were lost, because they could not be written");
}

/// Where entries are written, and how that goes.
#[derive(Debug)]
struct Out<W> {
    /// Standard error: for everything that journald does not take as a datagram.
    stream: W,
    reader: Reader,
    journal: Option<Journal>,
    /// Whether the last entry was written.
    works: bool,
    /// Whether a part of a line stands there without its end.
    is_torn: bool,
    /// Entries that could not be written, and whose number was not logged yet.
    lost: u64,
}

impl<W: Write + AsFd> Out<W> {
    fn new(stream: W, reader: Reader, journal: Option<Journal>) -> Self {
        Self { stream, reader, journal, works: false, is_torn: false, lost: 0 }
    }

    fn write(&mut self, entry: &Entry) {
        if self.journal.as_ref().is_some_and(|journal| journal.send(entry)) {
            self.works = true;
        } else {
            self.write_line(&entry.line(self.reader));
        }
    }

    /// Writes a line. An error loses that line and nothing else: the disk may have room again for the next one.
    fn write_line(&mut self, line: &str) {
        let text = if self.is_torn { format!("\n{line}") } else { line.to_owned() };
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(written @ 1..) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Another process has made this file non-blocking.
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock && wait_for_room(&self.stream) => {}
                Ok(0) | Err(_) => break,
            }
        }
        self.works = rest.is_empty();
        if self.works {
            self.is_torn = false;
        } else {
            self.is_torn |= rest.len() < text.len();
            self.lost = self.lost.saturating_add(1);
        }
    }
}

/// Waits until something can be written. False if that cannot be waited for.
fn wait_for_room(to: &impl AsFd) -> bool {
    let polled = poll(&mut [PollFd::new(to, PollFlags::OUT)], None);
    polled.is_ok() || polled == Err(Errno::INTR)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::sync::mpsc;

    use super::*;

    fn entry(level: Level, text: &str) -> Entry {
        Entry::of_text(text, level)
    }

    #[test]
    fn an_entry_that_does_not_fit_is_dropped_and_counted_when_entries_can_be_written_again() {
        let queue = LogQueue::default();
        let error = entry(Level::ERROR, &"x".repeat(1000));
        let sent = BYTES_MAX / 1000;
        (0..sent).for_each(|_| queue.push(error.clone()));
        queue.finish(Duration::from_millis(1));
        let (reader, writer) = io::pipe().unwrap();
        let (told_in, told) = mpsc::channel();
        let own = queue.clone();
        std::thread::spawn(move || {
            let out = Out::new(writer, Reader::Plain, None);
            own.write_all(out, &move |lost| told_in.send(lost).unwrap());
        });
        let mut read = BufReader::new(reader).lines();
        let kept = BYTES_MAX / error.bytes();
        assert!(read.by_ref().take(kept).all(|line| line.unwrap().len() == 1000));
        assert_eq!(told.recv().unwrap(), u64::try_from(sent - kept).unwrap());
        queue.push_last(entry(Level::ERROR, "last"));
        queue.finish(Duration::from_mins(1));
        assert_eq!(read.next().unwrap().unwrap(), "last");
        assert!(told.try_recv().is_err(), "they are told once");
    }

    #[test]
    fn a_flood_of_other_entries_leaves_room_for_warnings() {
        let queue = LogQueue::default();
        let (info, warn) = (entry(Level::INFO, &"x".repeat(1000)), entry(Level::WARN, "warning"));
        (0..BYTES_MAX / 1000).for_each(|_| queue.push(info.clone()));
        queue.push(warn.clone());
        let state = queue.lock();
        assert!(state.dropped > 0 && state.entries.back() == Some(&warn));
    }

    #[test]
    fn an_error_loses_a_line_and_the_next_one_begins_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = std::fs::File::create(&path).unwrap();
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut out = Out { is_torn: true, ..Out::new(full, Reader::Plain, None) };
        out.write(&entry(Level::WARN, "lost"));
        assert!(!out.works && out.is_torn && out.lost == 1);
        out.stream = file;
        out.write(&entry(Level::WARN, "kept"));
        assert!(out.works && !out.is_torn);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "\nkept\n");
    }
}
