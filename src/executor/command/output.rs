//! Reads stdout and stderr of a command into the log of its run, while they are written.

use std::io;
use std::time::Duration;

use tokio::net::unix::pipe::Receiver;

use crate::clock::Clock;
use crate::output::Stream;
use crate::task::log::Log;

/// How long output is still read after the command has ended: a process that it left behind may hold the pipe open
/// for ever.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);
/// Bytes of one read.
const READ_BYTES: usize = 16 * 1024;
/// Reads in a row, before others get their turn.
const READS_MAX: usize = 16;

/// Both outputs of a command, each for as long as it is open.
#[derive(Debug)]
pub(super) struct Outputs<'a> {
    stdout: Option<Receiver>,
    stderr: Option<Receiver>,
    /// The one that was read last.
    last: Stream,
    log: &'a Log,
    clock: &'a dyn Clock,
}

impl<'a> Outputs<'a> {
    pub(super) fn new(pipes: [Receiver; 2], log: &'a Log, clock: &'a dyn Clock) -> Self {
        let [stdout, stderr] = pipes.map(Some);
        Self { stdout, stderr, last: Stream::Stderr, log, clock }
    }

    /// Adds a line of the daemon's own to what the command has written as errors.
    pub(super) fn note(&self, line: &str) {
        self.log.write(self.clock.now(), Stream::Stderr, format!("{line}\n").as_bytes());
    }

    /// Reads until both have ended. It is cancel-safe.
    pub(super) async fn read_all(&mut self) {
        let mut reads = 0;
        while let Some(stream) = self.readable().await {
            self.take(stream);
            reads += 1;
            if reads % READS_MAX == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Reads what is left after the end of the command, and then no more.
    pub(super) async fn read_rest(&mut self) {
        if tokio::time::timeout(OUTPUT_GRACE, self.read_all()).await.is_err() {
            tracing::debug!("a command has ended while another process holds its output open");
        }
    }

    /// Those that another process still holds open.
    pub(super) fn still_open(&mut self) -> impl Iterator<Item = Receiver> + use<> {
        [self.stdout.take(), self.stderr.take()].into_iter().flatten()
    }

    /// Waits until there is something in one of them; none if both have ended. An error is found again by the read.
    async fn readable(&self) -> Option<Stream> {
        let stream = match (&self.stdout, &self.stderr) {
            // In turns, so that neither holds up the other. What is written to both at once begins with the first.
            (Some(stdout), Some(stderr)) if self.last == Stream::Stderr => tokio::select! {
                biased;
                _ = stdout.readable() => Stream::Stdout,
                _ = stderr.readable() => Stream::Stderr,
            },
            (Some(stdout), Some(stderr)) => tokio::select! {
                biased;
                _ = stderr.readable() => Stream::Stderr,
                _ = stdout.readable() => Stream::Stdout,
            },
            (Some(stdout), None) => {
                stdout.readable().await.map_or(Stream::Stdout, |()| Stream::Stdout)
            }
            (None, Some(stderr)) => {
                stderr.readable().await.map_or(Stream::Stderr, |()| Stream::Stderr)
            }
            (None, None) => return None,
        };
        Some(stream)
    }

    fn take(&mut self, stream: Stream) {
        self.last = stream;
        let pipe = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let mut buffer = [0; READ_BYTES];
        match pipe.as_ref().map(|pipe| pipe.try_read(&mut buffer)) {
            Some(Ok(count @ 1..)) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                self.log.write(self.clock.now(), stream, bytes);
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Some(Ok(0) | Err(_)) | None => *pipe = None,
        }
    }
}
