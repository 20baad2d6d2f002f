//! Readers of a SQLite store: a few threads, each with its own connection, that never wait for the writer. They are started
//! with the store, so that no read has to start a thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::connection::{connect, failure, rows};
use super::file::DatabaseFile;
use crate::store::StoreError;
use crate::store::sql::query::Query;
use crate::store::sql::value::SqlRow;

/// The number of threads. More of them would only wait for each other inside SQLite.
const READERS: usize = 4;

/// The threads, and the queue of their requests.
#[derive(Debug)]
pub(super) struct Readers {
    permits: Arc<Semaphore>,
    /// None when they are closed.
    requests: Mutex<Option<SyncSender<ReadRequest>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct ReadRequest {
    query: Query,
    reply: oneshot::Sender<Result<Vec<SqlRow>, StoreError>>,
    /// Released when the read is over, however it ends.
    permit: OwnedSemaphorePermit,
}

impl Readers {
    /// Starts the threads. Each opens its connection for its first read.
    pub(super) fn start(file: &Arc<DatabaseFile>) -> Result<Self, StoreError> {
        let (sender, receiver) = sync_channel(READERS);
        let receiver = Arc::new(Mutex::new(receiver));
        let start = |_| {
            let (file, receiver) = (Arc::clone(file), Arc::clone(&receiver));
            let builder = thread::Builder::new().name("store-reader".to_owned());
            builder.spawn(move || serve(&file, &receiver)).map_err(|error| {
                StoreError::Unavailable(format!("a thread for readers cannot be started: {error}"))
            })
        };
        let threads = (0..READERS).map(start).collect::<Result<_, StoreError>>()?;
        Ok(Self {
            permits: Arc::new(Semaphore::new(READERS)),
            requests: Mutex::new(Some(sender)),
            threads: Mutex::new(threads),
        })
    }

    /// Reads rows, and sees what was committed before.
    pub(super) async fn read(&self, query: Query) -> Result<Vec<SqlRow>, StoreError> {
        let closed = || StoreError::Unavailable("the store is closed".to_owned());
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        // The semaphore has as many permits as the queue has slots, so the queue is never full.
        self.requests()
            .as_ref()
            .and_then(|requests| requests.try_send(ReadRequest { query, reply, permit }).ok())
            .ok_or_else(closed)?;
        answer.await.map_err(|_| closed())?
    }

    fn requests(&self) -> std::sync::MutexGuard<'_, Option<SyncSender<ReadRequest>>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the threads and closes their connections, after the reads that are under way.
    pub(super) fn close(&self) {
        self.permits.close();
        drop(self.requests().take());
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::warn!("a thread for readers ended by a panic");
            }
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.close();
    }
}

/// Answers requests until the queue is closed.
fn serve(file: &DatabaseFile, requests: &Mutex<Receiver<ReadRequest>>) {
    let mut connection = None;
    loop {
        let request = requests.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(ReadRequest { query, reply, permit }) = request else { return };
        if reply.is_closed() {
            continue;
        }
        let answer = catch_unwind(AssertUnwindSafe(|| read(file, &mut connection, &query)));
        let panicked =
            |_| Err(StoreError::Unavailable("the reading of the store panicked".to_owned()));
        let answer = answer.unwrap_or_else(panicked);
        drop(permit);
        // The caller may have stopped waiting.
        drop(reply.send(answer));
    }
}

/// Reads rows on the connection of this thread. A connection that has failed is not used again.
fn read(
    file: &DatabaseFile,
    connection: &mut Option<Connection>,
    query: &Query,
) -> Result<Vec<SqlRow>, StoreError> {
    let open = if let Some(open) = connection.take() {
        open
    } else {
        file.verify()?;
        connect(file.path(), OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failure)?
    };
    let rows = rows(&open, query)?;
    file.verify()?;
    *connection = Some(open);
    Ok(rows)
}
