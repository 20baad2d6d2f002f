//! A store whose next write can be made to fail, and that can refuse a text.

use std::sync::{Arc, Mutex};

use punctual::run::{Run, RunId};
use punctual::store::{Change, Store, StoreError};

use super::MemoryStore;
use super::layered::{Layer, Layered};

/// When a write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written.
    Before,
    /// All is written, and the answer is lost.
    After,
}

/// A store whose next write can be made to fail.
pub type FaultyStore = Layered<Faults>;

/// The faults of a store.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    pub inner: MemoryStore,
    pub fault: Arc<Mutex<Option<Fault>>>,
    /// How many jobs each commit writes.
    pub commits: Arc<Mutex<Vec<usize>>>,
    /// A text that it refuses to write, as a database does that cannot encode it.
    pub refused: Arc<Mutex<Option<String>>>,
}

impl Faults {
    fn may_take(&self, text: &str) -> Result<(), StoreError> {
        let refused = self.refused.lock().unwrap();
        let is_refused = refused.as_ref().is_some_and(|refused| text.contains(refused));
        if is_refused { Err(StoreError::Rejected("a text".to_owned())) } else { Ok(()) }
    }
}

impl Layer for Faults {
    fn store(&self) -> &MemoryStore {
        &self.inner
    }

    async fn load_runs(&self, ids: &[RunId]) -> Result<Vec<Run>, StoreError> {
        self.may_take(&format!("{ids:?}"))?;
        self.inner.load_runs(ids).await
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let is_of_job = |change: &&Change| {
            matches!(change, Change::InsertJob(_) | Change::UpdateJob(_) | Change::DeleteJob { .. })
        };
        self.commits.lock().unwrap().push(changes.iter().filter(is_of_job).count());
        for change in &changes {
            self.may_take(&format!("{change:?}"))?;
        }
        let fault = self.fault.lock().unwrap().take();
        if fault != Some(Fault::Before) {
            self.inner.commit(changes).await?;
        }
        fault.map_or(Ok(()), |_| Err(StoreError::Unavailable("the disk is away".to_owned())))
    }
}
