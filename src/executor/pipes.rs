//! The two pipes of a child process: what it writes to stdout and stderr, read as it comes.

use std::io::{self, ErrorKind};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::unix::pipe::Receiver;

use crate::output::Stream;

/// Bytes of one read.
const READ_BYTES: usize = 16 * 1024;
/// Reads that empty a pipe, which holds 64 KiB. A process that goes on writing is not read forever.
const READS_OF_A_PIPE: usize = 64 * 1024 / READ_BYTES;

/// Both pipes, each until it has ended.
#[derive(Debug)]
pub(super) struct OutputPipes {
    stdout: Option<Receiver>,
    stderr: Option<Receiver>,
    /// The stream that was read last: the other one is next, so that neither holds up the other.
    last: Stream,
    buffer: Vec<u8>,
}

impl OutputPipes {
    pub(super) fn new(stdout: Receiver, stderr: Receiver) -> Self {
        let (stdout, stderr, last) = (Some(stdout), Some(stderr), Stream::Stderr);
        Self { stdout, stderr, last, buffer: Vec::new() }
    }

    /// Waits for the next bytes; `None` if both pipes have ended. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<(Stream, &[u8])> {
        let (stream, count) = loop {
            if self.stdout.is_none() && self.stderr.is_none() {
                return None;
            }
            let stdout = readable(self.stdout.as_ref());
            let stderr = readable(self.stderr.as_ref());
            // What is written to both at once begins with stdout.
            let stream = if self.last == Stream::Stderr {
                tokio::select! {
                    biased;
                    () = stdout => Stream::Stdout,
                    () = stderr => Stream::Stderr,
                }
            } else {
                tokio::select! {
                    biased;
                    () = stderr => Stream::Stderr,
                    () = stdout => Stream::Stdout,
                }
            };
            self.last = stream;
            let count = self.read(stream, Receiver::try_read);
            if count > 0 {
                break (stream, count);
            }
        };
        Some((stream, self.buffer.get(..count).unwrap_or_default()))
    }

    /// Reads what the pipes hold now, even if the runtime has not yet heard of it.
    pub(super) fn drain(&mut self, sink: impl Fn(Stream, &[u8])) {
        if !self.has_bytes() {
            return;
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            for _ in 0..READS_OF_A_PIPE {
                let count = self.read(stream, |pipe, buffer| Ok(rustix::io::read(pipe, buffer)?));
                if count == 0 {
                    break;
                }
                sink(stream, self.buffer.get(..count).unwrap_or_default());
            }
        }
    }

    /// Takes the pipes that have not ended.
    pub(super) fn take_open(&mut self) -> impl Iterator<Item = Receiver> + use<> {
        [self.stdout.take(), self.stderr.take()].into_iter().flatten()
    }

    fn has_bytes(&self) -> bool {
        let first = self.stdout.as_ref().or(self.stderr.as_ref());
        let second = self.stderr.as_ref().or(first);
        let (Some(first), Some(second)) = (first, second) else { return false };
        let mut pipes = [first, second].map(|pipe| PollFd::new(pipe, PollFlags::IN));
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut pipes, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// Reads once, and returns the number of bytes. A pipe that has ended, or fails, is closed.
    fn read(
        &mut self,
        stream: Stream,
        read: impl FnOnce(&Receiver, &mut [u8]) -> io::Result<usize>,
    ) -> usize {
        let slot = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let Some(pipe) = slot else { return 0 };
        // A command that writes nothing needs no buffer.
        self.buffer.resize(READ_BYTES, 0);
        match read(pipe, &mut self.buffer) {
            Ok(count @ 1..) => count,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                0
            }
            Ok(0) | Err(_) => {
                *slot = None;
                0
            }
        }
    }
}

/// Waits until a pipe has bytes or has ended; forever if it is closed already. The read meets an error again.
async fn readable(pipe: Option<&Receiver>) {
    match pipe {
        Some(pipe) => drop(pipe.readable().await),
        None => std::future::pending().await,
    }
}
