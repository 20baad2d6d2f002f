//! What a worker process prints: its standard output and error, read as they come.

use tokio::io::Interest;
use tokio::net::unix::pipe;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::output::Stream;

/// Bytes of one read.
const READ_BYTES: usize = 8 * 1024;
/// What a pipe holds, in reads: so much may have been printed before the end of a call and not been read.
const READS_OF_A_PIPE: usize = 64 * 1024 / READ_BYTES;

/// Both pipes. One that has ended is none.
#[derive(Debug)]
pub(super) struct Outputs {
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    buffer: Vec<u8>,
}

impl Outputs {
    pub(super) fn new(stdout: pipe::Receiver, stderr: pipe::Receiver) -> Self {
        Self { stdout: Some(stdout), stderr: Some(stderr), buffer: vec![0; READ_BYTES] }
    }

    /// The next piece, once there is one. It is cancel-safe.
    pub(super) async fn next(&mut self) -> (Stream, &[u8]) {
        let (stream, count) = loop {
            let stream = tokio::select! {
                () = readable(self.stdout.as_ref()) => Stream::Stdout,
                () = readable(self.stderr.as_ref()) => Stream::Stderr,
            };
            let count = self.read(stream, pipe::Receiver::try_read);
            if count > 0 {
                break (stream, count);
            }
        };
        (stream, self.buffer.get(..count).unwrap_or_default())
    }

    /// Takes what is there already, whatever the runtime has been told of it.
    pub(super) fn take_waiting(&mut self, sink: impl Fn(Stream, &[u8])) {
        if self.has_waiting() {
            self.drain(Stream::Stdout, &sink);
            self.drain(Stream::Stderr, &sink);
        }
    }

    fn drain(&mut self, stream: Stream, sink: impl Fn(Stream, &[u8])) {
        for _ in 0..READS_OF_A_PIPE {
            let count = self.read(stream, |pipe, buffer| Ok(rustix::io::read(pipe, buffer)?));
            if count == 0 {
                return;
            }
            sink(stream, self.buffer.get(..count).unwrap_or_default());
        }
    }

    fn has_waiting(&self) -> bool {
        let first = self.stdout.as_ref().or(self.stderr.as_ref());
        let second = self.stderr.as_ref().or(first);
        let (Some(first), Some(second)) = (first, second) else { return false };
        let mut pipes = [first, second].map(|pipe| PollFd::new(pipe, PollFlags::IN));
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut pipes, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// Reads once; how many bytes there were. A pipe that has ended, or cannot be read, is closed.
    fn read(
        &mut self,
        stream: Stream,
        read: impl FnOnce(&pipe::Receiver, &mut [u8]) -> std::io::Result<usize>,
    ) -> usize {
        let place = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let Some(pipe) = place else { return 0 };
        match read(pipe, &mut self.buffer) {
            Ok(count @ 1..) => count,
            Err(error) if is_passing(&error) => 0,
            Ok(0) | Err(_) => {
                *place = None;
                0
            }
        }
    }
}

fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted)
}

async fn readable(pipe: Option<&pipe::Receiver>) {
    match pipe {
        // An error is met again by the read.
        Some(pipe) => drop(pipe.ready(Interest::READABLE).await),
        None => std::future::pending().await,
    }
}
