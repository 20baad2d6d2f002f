//! How fast rows are removed, so that the store has time for the jobs.

use crate::scheduler::request::RequestError;
use crate::store::StoreError;

/// Number of runs or jobs that one query returns.
pub(super) const PAGE: usize = 1000;

/// How fast the store is read and the scheduler is asked to remove rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Runs or jobs per request. This bounds how long a step of the scheduler takes.
    pub(super) batch: usize,
    /// Rest after each query and each request, as a multiple of the time that it took.
    rest_factor: u32,
}

/// The usual pace: a request costs a few milliseconds of a step, and four fifths of the time belong to the jobs.
pub(super) const CALM: Pace = Pace { batch: 100, rest_factor: 4 };
/// The pace while a limit on rows, bytes or jobs is exceeded. A batch is as large as what one step accepts from clients,
/// so that clients which add jobs without pause do not add more than is removed.
pub(super) const FAST: Pace = Pace { batch: 256, rest_factor: 0 };

impl Pace {
    /// Awaits a query or a request, and then rests.
    pub(super) async fn run<T>(self, work: impl Future<Output = T>) -> T {
        let begin = tokio::time::Instant::now();
        let done = work.await;
        tokio::time::sleep(begin.elapsed() * self.rest_factor).await;
        done
    }
}

/// Why a sweep ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Refused(#[from] RequestError),
    #[error("{0} were deleted and are still there")]
    StillThere(String),
}
