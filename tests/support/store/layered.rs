//! A layer over the store in memory, for tests in which calls fail or are watched.
//!
//! A test implements [`Layer`] and overrides the calls that it is about. All others go straight to the store. The methods
//! of [`Store`] are listed here once.

use std::fmt::Debug;
use std::sync::Arc;

use punctual::clock::Timestamp;
use punctual::job::{Job, JobId, Pause};
use punctual::output::Output;
use punctual::run::{Run, RunId, SkipReason};
use punctual::store::{
    Change, Claim, ClusterView, Holder, InFlightCount, Node, ScheduledJob, Store, StoreError,
};

use super::MemoryStore;

/// Defines [`Layer`] with these methods, and the store that calls them.
macro_rules! layer {
    ($($name:ident($($argument:ident: $given:ty),*) -> $result:ty;)*) => {
        /// What happens to the calls of a store.
        pub trait Layer: Debug + Send + Sync + 'static {
            /// The store below.
            fn store(&self) -> &MemoryStore;

            /// Makes a call of this name. It is here for layers that treat all calls alike.
            fn call<T: Send>(
                &self,
                _name: &'static str,
                call: impl Future<Output = Result<T, StoreError>> + Send,
            ) -> impl Future<Output = Result<T, StoreError>> + Send {
                call
            }

            $(
                fn $name(
                    &self,
                    $($argument: $given),*
                ) -> impl Future<Output = Result<$result, StoreError>> + Send {
                    self.call(stringify!($name), self.store().$name($($argument),*))
                }
            )*
        }

        impl<L: Layer> Store for Layered<L> {
            fn is_shared(&self) -> bool {
                self.0.store().is_shared()
            }

            $(
                fn $name(
                    &self,
                    $($argument: $given),*
                ) -> impl Future<Output = Result<$result, StoreError>> + Send {
                    self.0.$name($($argument),*)
                }
            )*
        }
    };
}

/// The store in memory under a layer.
#[derive(Debug, Clone, Default)]
pub struct Layered<L>(pub L);

layer! {
    load_jobs(ids: &[JobId]) -> Vec<Job>;
    claim_jobs(claim: Claim<'_>) -> Vec<Job>;
    release_jobs(node: &str, executor: &str, until: Timestamp) -> ();
    runs_in_flight(holder: Holder<'_>) -> Vec<Run>;
    load_runs(ids: &[RunId]) -> Vec<Run>;
    latest_skips(jobs: &[Arc<Job>], reason: SkipReason) -> Vec<Run>;
    load_output(run_id: &RunId, attempt: u32) -> Option<Output>;
    count_in_flight_elsewhere(node: &str) -> Vec<(JobId, InFlightCount)>;
    renew_lease(node: &str, started_at: Timestamp, now: Timestamp) -> ClusterView;
    remove_nodes(dead: &[Node]) -> ();
    pause() -> Option<Pause>;
    recorded_time() -> Option<Timestamp>;
    newest_run() -> Option<Run>;
    scheduled_jobs(after: Option<&JobId>, limit: usize) -> Vec<ScheduledJob>;
    wait_for_hint() -> ();
    commit(changes: Vec<Change>) -> ();
}
