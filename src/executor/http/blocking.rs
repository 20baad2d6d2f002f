//! What may block for long, with a bound: secrets that are read and names that are looked up. The threads for such work
//! are the whole daemon's, and a name server that does not answer must not take all of them.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use reqwest::dns::{Name, Resolve, Resolving};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Threads that one kind of work takes at a time.
const THREADS: usize = 16;

/// One kind of work that may block. Clones share its threads.
#[derive(Debug, Clone)]
pub(in crate::executor) struct Blocking {
    runtime: Handle,
    places: Arc<Semaphore>,
}

impl Blocking {
    /// Work that takes threads of this runtime.
    pub(in crate::executor) fn new(runtime: Handle) -> Self {
        Self { runtime, places: Arc::new(Semaphore::new(THREADS)) }
    }

    /// Does the work as soon as there is a thread for it. It keeps its place until it is done, also when nobody waits for
    /// it any more.
    pub(in crate::executor) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let working = self.runtime.spawn_blocking(move || {
            let _place = place;
            work()
        });
        working.await.map_err(|error| format!("a thread was not to be had: {error}"))
    }
}

impl Resolve for Blocking {
    fn resolve(&self, name: Name) -> Resolving {
        let blocking = self.clone();
        Box::pin(async move {
            // The port is set by whoever connects.
            let look_up = move || (name.as_str(), 0).to_socket_addrs();
            let found: Vec<SocketAddr> = blocking.run(look_up).await??.collect();
            let addresses: reqwest::dns::Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}
