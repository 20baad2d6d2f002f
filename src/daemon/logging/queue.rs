//! Lines of the log on their way to standard error. Who logs never waits: the queue has a bound, one thread empties
//! it, and lines that do not fit or cannot be written are counted. The count is logged once lines can be written again.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that wait to be written; a line beyond them is dropped.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes for a line beside its text, so that short lines have a bound too.
const LINE_COST: usize = 64;

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    bytes: usize,
    /// Lines that were dropped because the queue was full, and not told of yet.
    dropped: u64,
    is_writing: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    has_lines: Condvar,
    is_empty: Condvar,
}

/// The queue; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct LogQueue(Arc<Shared>);

impl LogQueue {
    /// A queue whose lines a thread writes to standard error, for as long as the process lives.
    pub(super) fn start() -> io::Result<Self> {
        let queue = Self::default();
        let own = queue.clone();
        let writing = move || own.write_all(&mut io::stderr(), &tell_lost);
        std::thread::Builder::new().name("punctual-log".to_owned()).spawn(writing)?;
        Ok(queue)
    }

    /// Adds a line, or drops it if the queue is full.
    pub(super) fn push(&self, line: &str) {
        let mut state = self.lock();
        if state.bytes + line.len() + LINE_COST > BYTES_MAX {
            state.dropped = state.dropped.saturating_add(1);
            return;
        }
        self.add(state, line);
    }

    /// Adds the last line of the process, even if the queue is full.
    pub(super) fn push_last(&self, line: &str) {
        self.add(self.lock(), line);
    }

    fn add(&self, mut state: MutexGuard<'_, State>, line: &str) {
        state.bytes += line.len() + LINE_COST;
        state.lines.push_back(line.to_owned());
        drop(state);
        self.0.has_lines.notify_one();
    }

    /// Waits until every line is written, but no longer than `limit`.
    pub(super) fn finish(&self, limit: Duration) {
        let is_pending = |state: &mut State| state.is_writing || !state.lines.is_empty();
        let waited = self.0.is_empty.wait_timeout_while(self.lock(), limit, is_pending);
        // Nobody reads: the lines are lost, and the end does not wait for them.
        drop(waited);
    }

    /// Writes lines as they come. `tell` logs how many were lost.
    fn write_all(&self, to: &mut (impl Write + AsFd), tell: &dyn Fn(u64)) {
        let mut out = Out::default();
        loop {
            let line = self.next();
            out.write(to, &line);
            let mut state = self.lock();
            // Not at each line that finds a place while the queue is full: that would fill it with reports.
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

    /// Waits for a line. The one before it has been written.
    fn next(&self) -> String {
        let mut state = self.lock();
        loop {
            state.is_writing = false;
            if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len() + LINE_COST;
                state.is_writing = true;
                return line;
            }
            self.0.is_empty.notify_all();
            state = self.0.has_lines.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell_lost(lines: u64) {
    tracing::warn!(lines, "lines of the log were lost, because they could not be written");
}

/// How writing goes.
#[derive(Debug, Default)]
struct Out {
    /// Whether the last line was written.
    works: bool,
    /// Whether a part of a line stands there without its end.
    is_torn: bool,
    /// Lines that could not be written, and were not told of yet.
    lost: u64,
}

impl Out {
    /// Writes a line. An error loses that line and nothing else: the disk may have room again for the next one.
    fn write(&mut self, to: &mut (impl Write + AsFd), line: &str) {
        let text = if self.is_torn { format!("\n{line}") } else { line.to_owned() };
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match to.write(rest) {
                Ok(written @ 1..) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Another process has made this file non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock && wait_for_room(to) => {}
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

/// Passes a whole line to the queue.
#[derive(Debug)]
pub(super) struct QueueWriter<'a>(&'a LogQueue);

impl Write for QueueWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(&String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = QueueWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        QueueWriter(self)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_line_that_does_not_fit_is_dropped_and_counted_when_lines_can_be_written_again() {
        let queue = LogQueue::default();
        let line = format!("{}\n", "x".repeat(1000));
        let sent = BYTES_MAX / 1000;
        (0..sent).for_each(|_| queue.push(&line));
        queue.finish(Duration::from_millis(1));
        let (reader, mut writer) = io::pipe().unwrap();
        let (told_in, told) = mpsc::channel();
        let own = queue.clone();
        std::thread::spawn(move || {
            own.write_all(&mut writer, &move |lost| told_in.send(lost).unwrap());
        });
        let mut read = BufReader::new(reader).lines();
        let kept = BYTES_MAX / (1001 + LINE_COST);
        assert!(read.by_ref().take(kept).all(|line| line.unwrap().len() == 1000));
        assert_eq!(told.recv().unwrap(), u64::try_from(sent - kept).unwrap());
        queue.push_last("last\n");
        queue.finish(Duration::from_mins(1));
        assert_eq!(read.next().unwrap().unwrap(), "last");
        assert!(told.try_recv().is_err(), "they are told once");
    }

    #[test]
    fn an_error_loses_a_line_and_the_next_one_begins_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = std::fs::File::create(&path).unwrap();
        let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut out = Out { is_torn: true, ..Out::default() };
        out.write(&mut full, "lost\n");
        assert!(!out.works && out.is_torn && out.lost == 1);
        out.write(&mut file, "kept\n");
        assert!(out.works && !out.is_torn);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "\nkept\n");
    }
}
