//! The outputs of commands that have ended, while a process that was left behind still holds them open: they are read
//! and dropped, so that what it writes neither fails nor blocks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::unix::pipe::Receiver;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Outputs that are read at a time. Beyond that they are closed, and writing to them fails.
const DRAINS_MAX: usize = 256;
/// Bytes of one read, and reads in a row: a process that writes without end is slowed down, and takes little of the
/// daemon's time.
const READ_BYTES: usize = 16 * 1024;
const READS_MAX: usize = 16;
const PAUSE: Duration = Duration::from_millis(20);

/// Reads outputs that nobody keeps. Clones share the places.
#[derive(Debug, Clone)]
pub(super) struct Drains {
    places: Arc<Semaphore>,
}

impl Default for Drains {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(DRAINS_MAX)) }
    }
}

impl Drains {
    /// Reads an output until nobody holds it open any more, or the daemon ends.
    pub(super) fn take(&self, pipe: Receiver, runtime: &Handle) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::warn!(
                limit = DRAINS_MAX,
                "too many outputs of ended commands are open; another one is closed"
            );
            return;
        };
        let draining = async move {
            let _place = place;
            if let Err(error) = drain(&pipe).await {
                tracing::debug!(%error, "an output that was left open cannot be read");
            }
        };
        // It ends with the pipe or with the runtime; nobody waits for it.
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
