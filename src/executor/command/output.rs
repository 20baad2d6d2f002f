//! The output of a command: read into the log of its run while it is written, and drained after the command has ended if
//! a process that it left behind still holds it open.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::unix::pipe::Receiver;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::executor::pipes::OutputPipes;
use crate::output::Stream;
use crate::task::log::Log;

/// How long output is still read after the command has ended: a process that it left behind may hold the pipe open
/// forever.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);
/// Reads in a row before other tasks get their turn.
const READS_MAX: usize = 16;

/// Outputs that are drained at the same time. Any further one is closed, and writing to it fails.
const DRAINS_MAX: usize = 256;
/// Bytes of one read, and the pause after [`READS_MAX`] reads in a row: a process that writes without end is slowed down, and
/// takes little of the daemon's time.
const DRAIN_BYTES: usize = 16 * 1024;
const DRAIN_PAUSE: Duration = Duration::from_millis(20);

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

/// Reads outputs and drops what is read. Without a reader, writing would fail or block for the process that holds them open.
/// Clones share the limit.
#[derive(Debug, Clone)]
pub(super) struct Drains {
    slots: Arc<Semaphore>,
}

impl Default for Drains {
    fn default() -> Self {
        Self { slots: Arc::new(Semaphore::new(DRAINS_MAX)) }
    }
}

impl Drains {
    /// Reads an output until no process holds it open any more, or the daemon ends.
    pub(super) fn take(&self, pipe: Receiver, runtime: &Handle) {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            tracing::warn!(
                limit = DRAINS_MAX,
                "too many outputs of ended commands are still open, so another one is closed"
            );
            return;
        };
        let draining = async move {
            let _slot = slot;
            if let Err(error) = drain(&pipe).await {
                tracing::debug!(%error, "an output that was left open cannot be read");
            }
        };
        // The task ends with the pipe or with the runtime, so nothing waits for it.
        drop(runtime.spawn(draining));
    }
}

async fn drain(pipe: &Receiver) -> io::Result<()> {
    let mut buffer = vec![0; DRAIN_BYTES];
    loop {
        pipe.readable().await?;
        for _ in 0..READS_MAX {
            match pipe.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        tokio::time::sleep(DRAIN_PAUSE).await;
    }
}
