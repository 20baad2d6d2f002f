//! Work that may block for long, such as reading a secret or looking a name up. It has threads of its own, in a bounded
//! number: a name server that does not answer must not take those of the whole daemon.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use reqwest::dns::{Name, Resolve, Resolving};
use tokio::sync::{Semaphore, oneshot};

use super::shortage::THREAD_PAUSE;

/// Threads that one kind of work takes at a time.
const THREADS: usize = 16;

/// One kind of work that may block. Clones share its threads.
#[derive(Debug, Clone)]
pub(in crate::executor) struct Blocking {
    places: Arc<Semaphore>,
}

impl Default for Blocking {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(THREADS)) }
    }
}

impl Blocking {
    /// Does the work as soon as there is a place and a thread for it; while the system has no thread to give, it waits.
    /// The work keeps its place until it is done, also when nobody waits for it any more. An error means that the work
    /// panicked.
    pub(in crate::executor) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let thread = free_thread().await;
        let (give, result) = oneshot::channel();
        let task = move || {
            let _place = place;
            // Nobody may wait for it any more.
            drop(give.send(work()));
        };
        // If the thread has ended all the same, there is no result.
        drop(thread.send(Box::new(task)));
        result.await.map_err(|_| "the work broke off".to_owned())
    }
}

type Task = Box<dyn FnOnce() + Send>;

/// A thread that does what it is sent, and then ends. It is tried again until there is one.
async fn free_thread() -> oneshot::Sender<Task> {
    let mut is_short = false;
    loop {
        let (give, take) = oneshot::channel::<Task>();
        let work = move || {
            if let Ok(task) = take.blocking_recv() {
                task();
            }
        };
        let thread = std::thread::Builder::new().name("punctual-block".to_owned());
        match thread.spawn(work) {
            Ok(_) => return give,
            Err(error) if !is_short => {
                tracing::warn!(%error, "no thread can be started; it is tried again");
                is_short = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(THREAD_PAUSE).await;
    }
}

impl Resolve for Blocking {
    fn resolve(&self, name: Name) -> Resolving {
        let blocking = self.clone();
        Box::pin(async move {
            // The port is set by the code that connects.
            let look_up = move || (name.as_str(), 0).to_socket_addrs();
            let found: Vec<SocketAddr> = blocking.run(look_up).await??.collect();
            let addresses: reqwest::dns::Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}
