//! A store that several processes share, each through a line of its own that can break: a call
//! fails before or after it did its work, and takes so long that others come in between. Every
//! write is shown to the ledger that knows the promises.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use punctual::clock::Timestamp;
use punctual::job::Job;
use punctual::store::{Change, Claim, ClusterView, Node, Store, StoreError};
use support::store::MemoryStore;
use support::store::faulty::Fault;
use support::store::layered::{Layer, Layered};

use crate::dice::Dice;
use crate::ledger::{Ledger, words};

/// Lines of the trace that are shown when a promise is broken, unless `SIM_TRACE` says how many.
const TRACE_SHOWN: usize = 120;

/// A text that the database cannot keep.
pub(crate) const POISON: &str = "poison";

/// What all processes of a world share, apart from the store.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dice: Dice,
    pub(crate) ledger: Ledger,
    /// Whether things still go wrong.
    pub(crate) is_wild: bool,
    /// A call fails once in this many times.
    pub(crate) faults: u64,
    /// A call lets others go first once in this many times.
    pub(crate) yields: u64,
    /// Nodes that were asked to stop.
    pub(crate) draining: BTreeSet<Arc<str>>,
    trace: Vec<String>,
}

impl Shared {
    pub(crate) fn new(dice: Dice, ledger: Ledger, faults: u64, yields: u64) -> Self {
        Self {
            dice,
            ledger,
            is_wild: true,
            faults,
            yields,
            draining: BTreeSet::new(),
            trace: Vec::new(),
        }
    }

    /// Remembers what happens.
    pub(crate) fn note(&mut self, event: impl FnOnce() -> String) {
        self.trace.push(event());
    }

    pub(crate) fn trace(&self) -> &[String] {
        &self.trace
    }

    pub(crate) fn last_events(&self) -> String {
        let shown = crate::number("SIM_TRACE").and_then(|lines| usize::try_from(lines).ok());
        let from = self.trace.len().saturating_sub(shown.unwrap_or(TRACE_SHOWN));
        self.trace.get(from..).unwrap_or_default().join("\n")
    }
}

/// The store, as one process reaches it.
pub(crate) type SimStore = Layered<Reach>;

/// What happens to the calls of one process.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    pub(crate) inner: MemoryStore,
    pub(crate) node: Arc<str>,
    pub(crate) shared: Arc<Mutex<Shared>>,
}

impl Reach {
    /// One call: others may come before and after, never in its midst.
    async fn watched<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, StoreError>>,
        then: impl FnOnce(&mut Shared, &T),
    ) -> Result<T, StoreError> {
        self.let_others_go_first().await;
        let fault = self.fault(what);
        let broken = || StoreError::Unavailable(format!("{what} failed"));
        if fault == Some(Fault::Before) {
            return Err(broken());
        }
        let result = call.await;
        match &result {
            Ok(value) => then(&mut self.shared.lock().unwrap(), value),
            Err(error) => {
                self.shared.lock().unwrap().note(|| format!("{} {what}: {error}", self.node));
            }
        }
        self.let_others_go_first().await;
        if fault == Some(Fault::After) { result.and_then(|_| Err(broken())) } else { result }
    }

    fn fault(&self, what: &str) -> Option<Fault> {
        let mut shared = self.shared.lock().unwrap();
        let faults = shared.faults;
        if !shared.is_wild || !shared.dice.once_in(faults) {
            return None;
        }
        let fault = shared.dice.pick(&[Fault::Before, Fault::After]);
        shared.note(|| format!("{} {what}: an error {fault:?}", self.node));
        Some(fault)
    }

    async fn let_others_go_first(&self) {
        let goes_last = {
            let mut shared = self.shared.lock().unwrap();
            let yields = shared.yields;
            shared.dice.once_in(yields)
        };
        if goes_last {
            Yield(false).await;
        }
    }
}

/// Is ready when it is asked for the second time.
struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Layer for Reach {
    fn store(&self) -> &MemoryStore {
        &self.inner
    }

    async fn call<T: Send>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.watched(name, call, |_, _| ()).await
    }

    /// Another process's hint says nothing that a call would not find.
    async fn wait_for_hint(&self) -> Result<(), StoreError> {
        self.inner.wait_for_hint().await
    }

    async fn claim_jobs(&self, claim: Claim<'_>) -> Result<Vec<Job>, StoreError> {
        let note = |shared: &mut Shared, jobs: &Vec<Job>| {
            let ids: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
            shared.note(|| format!("{} claims [{}]", self.node, ids.join(" ")));
            shared.ledger.claimed(&self.node, jobs);
        };
        self.watched("claim", self.inner.claim_jobs(claim), note).await
    }

    async fn release_jobs(
        &self,
        node: &str,
        executor: &str,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let learn = |shared: &mut Shared, (): &()| {
            shared.note(|| format!("{node} releases what is due until {until}"));
            shared.ledger.released(node, executor, until);
        };
        self.watched("release", self.inner.release_jobs(node, executor, until), learn).await
    }

    async fn renew_lease(
        &self,
        node: &str,
        started_at: Timestamp,
        now: Timestamp,
    ) -> Result<ClusterView, StoreError> {
        let mut knows = 0;
        let learn = |shared: &mut Shared, meeting: &ClusterView| {
            let count = meeting.nodes.len();
            shared.note(|| format!("{} meets {count}, new: {}", self.node, meeting.is_new));
            knows = shared.ledger.writes;
        };
        let meeting =
            self.watched("meet", self.inner.renew_lease(node, started_at, now), learn).await?;
        self.shared.lock().unwrap().ledger.met(&self.node, knows, now);
        Ok(meeting)
    }

    async fn remove_nodes(&self, dead: &[Node]) -> Result<(), StoreError> {
        let learn = |shared: &mut Shared, (): &()| {
            for node in dead {
                shared.note(|| format!("{} buries {}", self.node, node.name));
                shared.ledger.buried(&node.name);
            }
        };
        self.watched("bury", self.inner.remove_nodes(dead), learn).await
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        if changes.iter().any(|change| format!("{change:?}").contains(POISON)) {
            self.shared.lock().unwrap().note(|| format!("{} is refused a value", self.node));
            return Err(StoreError::Rejected("poison".to_owned()));
        }
        let written = changes.clone();
        let learn = |shared: &mut Shared, (): &()| {
            for change in &written {
                shared.note(|| format!("{} writes {}", self.node, words(change)));
            }
            shared.ledger.committed(&self.node, &written);
        };
        self.watched("commit", self.inner.commit(changes), learn).await
    }
}
