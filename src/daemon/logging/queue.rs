//! The queue of log entries. Logging never waits: the queue is bounded, one thread writes its entries to journald or
//! stderr, and entries that do not fit or cannot be written are counted. The count is logged as soon as entries can be
//! written again.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tracing::Level;

use super::entry::{LogEntry, LogFormat};
use super::journal::Journal;

/// Maximum size of the queue in bytes. An entry that would exceed it is dropped.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// The part of the queue that is reserved for warnings and errors, so that a flood of other entries cannot displace them.
const RESERVE: usize = BYTES_MAX / 8;

#[derive(Debug, Default)]
struct QueueState {
    entries: VecDeque<LogEntry>,
    bytes: usize,
    /// Entries dropped because the queue was full, since their number was last logged.
    dropped: u64,
    is_writing: bool,
}

#[derive(Debug, Default)]
struct QueueInner {
    state: Mutex<QueueState>,
    has_entries: Condvar,
    is_empty: Condvar,
}

/// The queue. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct LogQueue(Arc<QueueInner>);

impl LogQueue {
    /// Makes a queue, and starts the thread that writes its entries until the process ends.
    pub(super) fn start(format: LogFormat) -> io::Result<Self> {
        let queue = Self::default();
        let own = queue.clone();
        let journal = if format == LogFormat::Journal { Journal::new().ok() } else { None };
        let writer = LogWriter::new(io::stderr(), format, journal);
        let writing = move || own.write_all(writer, &log_lost);
        std::thread::Builder::new().name("punctual-log".to_owned()).spawn(writing)?;
        Ok(queue)
    }

    /// Adds an entry, or drops it if the queue is full.
    pub(super) fn push(&self, entry: LogEntry) {
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
    pub(super) fn push_last(&self, entry: LogEntry) {
        let bytes = entry.bytes();
        self.add(self.lock(), entry, bytes);
    }

    fn add(&self, mut state: MutexGuard<'_, QueueState>, entry: LogEntry, bytes: usize) {
        state.bytes += bytes;
        state.entries.push_back(entry);
        drop(state);
        self.0.has_entries.notify_one();
    }

    /// Waits until every entry is written, but no longer than `limit`.
    pub(super) fn finish(&self, limit: Duration) {
        let is_pending = |state: &mut QueueState| state.is_writing || !state.entries.is_empty();
        let waited = self.0.is_empty.wait_timeout_while(self.lock(), limit, is_pending);
        // After a timeout nobody reads the log, so the rest of the entries is lost.
        drop(waited);
    }

    /// Writes entries as they come. `log_lost` logs how many were lost. Never returns.
    fn write_all(&self, mut writer: LogWriter<impl Write + AsFd>, log_lost: &dyn Fn(u64)) {
        loop {
            writer.write(&self.next());
            let mut state = self.lock();
            // While the queue is nearly full, a report for each entry that fits would fill it again.
            let has_room = state.bytes <= BYTES_MAX / 2;
            let dropped =
                if has_room && writer.works { std::mem::take(&mut state.dropped) } else { 0 };
            drop(state);
            let lost = dropped + if writer.works { std::mem::take(&mut writer.lost) } else { 0 };
            if lost > 0 {
                log_lost(lost);
            }
        }
    }

    /// Waits for the next entry. The previous one counts as written.
    fn next(&self) -> LogEntry {
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

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_lost(lines: u64) {
    tracing::warn!(lines, "lines of the log were lost because they could not be written");
}

/// Writes entries, and remembers whether that works.
#[derive(Debug)]
struct LogWriter<W> {
    /// stderr, for everything that journald does not accept as a datagram.
    stream: W,
    format: LogFormat,
    journal: Option<Journal>,
    /// True if the last entry was written.
    works: bool,
    /// True if the stream ends in an incomplete line.
    is_torn: bool,
    /// Entries that could not be written, since their number was last logged.
    lost: u64,
}

impl<W: Write + AsFd> LogWriter<W> {
    fn new(stream: W, format: LogFormat, journal: Option<Journal>) -> Self {
        Self { stream, format, journal, works: false, is_torn: false, lost: 0 }
    }

    fn write(&mut self, entry: &LogEntry) {
        if self.journal.as_ref().is_some_and(|journal| journal.send(entry)) {
            self.works = true;
        } else {
            self.write_line(&entry.line(self.format));
        }
    }

    /// Writes a line. An error loses only this line: the disk may have room for the next one.
    fn write_line(&mut self, line: &str) {
        let text = if self.is_torn { format!("\n{line}") } else { line.to_owned() };
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(written @ 1..) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Another process has made the file non-blocking.
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

/// Waits until the stream is writable. Returns false if waiting is not possible.
fn wait_for_room(to: &impl AsFd) -> bool {
    let polled = poll(&mut [PollFd::new(to, PollFlags::OUT)], None);
    polled.is_ok() || polled == Err(Errno::INTR)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::sync::mpsc;

    use super::*;

    fn entry(level: Level, text: &str) -> LogEntry {
        LogEntry::from_text(text, level)
    }

    #[test]
    fn entries_that_do_not_fit_are_counted_when_entries_can_be_written_again() {
        let queue = LogQueue::default();
        let error = entry(Level::ERROR, &"x".repeat(1000));
        let sent = BYTES_MAX / 1000;
        (0..sent).for_each(|_| queue.push(error.clone()));
        queue.finish(Duration::from_millis(1));
        let (reader, writer) = io::pipe().unwrap();
        let (lost_sender, lost) = mpsc::channel();
        let own = queue.clone();
        std::thread::spawn(move || {
            let writer = LogWriter::new(writer, LogFormat::Plain, None);
            own.write_all(writer, &move |lost| lost_sender.send(lost).unwrap());
        });
        let mut read = BufReader::new(reader).lines();
        let kept = BYTES_MAX / error.bytes();
        assert!(read.by_ref().take(kept).all(|line| line.unwrap().len() == 1000));
        assert_eq!(lost.recv().unwrap(), u64::try_from(sent - kept).unwrap());
        queue.push_last(entry(Level::ERROR, "last"));
        queue.finish(Duration::from_mins(1));
        assert_eq!(read.next().unwrap().unwrap(), "last");
        assert!(lost.try_recv().is_err(), "the count is logged once");
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
        let mut writer =
            LogWriter { is_torn: true, ..LogWriter::new(full, LogFormat::Plain, None) };
        writer.write(&entry(Level::WARN, "lost"));
        assert!(!writer.works && writer.is_torn && writer.lost == 1);
        writer.stream = file;
        writer.write(&entry(Level::WARN, "kept"));
        assert!(writer.works && !writer.is_torn);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "\nkept\n");
    }
}
