//! Reads the outputs of commands that have ended while a process that they left behind still holds them open. What is read
//! is dropped. Without a reader, writing would fail or block for that process.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::unix::pipe::Receiver;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Outputs that are drained at the same time. Any further one is closed, and writing to it fails.
const DRAINS_MAX: usize = 256;
/// Bytes of one read, and reads in a row before a pause: a process that writes without end is slowed down, and takes little
/// of the daemon's time.
const READ_BYTES: usize = 16 * 1024;
const READS_MAX: usize = 16;
const PAUSE: Duration = Duration::from_millis(20);

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
    let mut buffer = vec![0; READ_BYTES];
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
        tokio::time::sleep(PAUSE).await;
    }
}
