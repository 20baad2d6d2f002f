//! Reads stdout and stderr of a command into the log of its run, while they are written.

use std::time::Duration;

use tokio::net::unix::pipe::Receiver;

use crate::clock::Clock;
use crate::executor::pipes::OutputPipes;
use crate::output::Stream;
use crate::task::log::Log;

/// How long output is still read after the command has ended: a process that it left behind may hold the pipe open
/// forever.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);
/// Reads in a row before other tasks get their turn.
const READS_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct CommandOutput<'a> {
    pipes: OutputPipes,
    log: &'a Log,
    clock: &'a dyn Clock,
}

impl<'a> CommandOutput<'a> {
    pub(super) fn new([stdout, stderr]: [Receiver; 2], log: &'a Log, clock: &'a dyn Clock) -> Self {
        Self { pipes: OutputPipes::new(stdout, stderr), log, clock }
    }

    /// Adds a line of the daemon itself to stderr.
    pub(super) fn note(&self, line: &str) {
        self.log.write(self.clock.now(), Stream::Stderr, format!("{line}\n").as_bytes());
    }

    /// Reads until both pipes have ended. Cancel-safe.
    pub(super) async fn read_all(&mut self) {
        let mut reads = 0;
        while let Some((stream, bytes)) = self.pipes.next().await {
            self.log.write(self.clock.now(), stream, bytes);
            reads += 1;
            if reads % READS_MAX == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Reads what is left after the end of the command, for [`OUTPUT_GRACE`] at most.
    pub(super) async fn read_rest(&mut self) {
        if tokio::time::timeout(OUTPUT_GRACE, self.read_all()).await.is_err() {
            tracing::debug!("a command has ended while another process holds its output open");
        }
    }

    /// Takes the pipes that another process still holds open.
    pub(super) fn take_open(&mut self) -> impl Iterator<Item = Receiver> + use<> {
        self.pipes.take_open()
    }
}
