//! Threads for work that may block for long, such as reading a secret or resolving a host name. Their number is bounded:
//! a name server that does not answer must not use up the threads of the daemon.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use reqwest::dns::{Name, Resolve, Resolving};
use tokio::sync::{Semaphore, oneshot};

use super::shortage::THREAD_PAUSE;

/// Threads of one [`BlockingThreads`].
const THREADS: usize = 16;

/// The threads for one kind of blocking work. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct BlockingThreads {
    permits: Arc<Semaphore>,
}

impl Default for BlockingThreads {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(THREADS)) }
    }
}

impl BlockingThreads {
    /// Runs the work on a thread, and waits until a thread is free or can be started. The work runs to its end and
    /// occupies its thread even if the returned future is dropped. An error means that the work panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let thread = free_thread().await;
        let (give, result) = oneshot::channel();
        let task = move || {
            let _permit = permit;
            // The receiver is gone if the future was dropped.
            drop(give.send(work()));
        };
        // If the thread has ended, `result` is an error.
        drop(thread.send(Box::new(task)));
        result.await.map_err(|_| "the work panicked".to_owned())
    }
}

type BlockingWork = Box<dyn FnOnce() + Send>;

/// Starts a thread that does the work which it is sent, and then ends. It tries again until the system has a thread.
async fn free_thread() -> oneshot::Sender<BlockingWork> {
    let mut is_short = false;
    loop {
        let (give, take) = oneshot::channel::<BlockingWork>();
        let work = move || {
            if let Ok(task) = take.blocking_recv() {
                task();
            }
        };
        let thread = std::thread::Builder::new().name("punctual-block".to_owned());
        match thread.spawn(work) {
            Ok(_) => return give,
            Err(error) if !is_short => {
                tracing::warn!(%error, "no thread could be started; trying again");
                is_short = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(THREAD_PAUSE).await;
    }
}

impl Resolve for BlockingThreads {
    fn resolve(&self, name: Name) -> Resolving {
        let blocking = self.clone();
        Box::pin(async move {
            // The connecting code sets the port.
            let look_up = move || (name.as_str(), 0).to_socket_addrs();
            let found: Vec<SocketAddr> = blocking.run(look_up).await??.collect();
            let addresses: reqwest::dns::Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}
