//! Letting go of what of the ledger need not be kept: looked for through the store's readers, and
//! then handed to the scheduler in small batches, so that no step of it takes longer for that.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::Retention;
use crate::filter::{Kind, Prunable};
use crate::run::RunId;
use crate::scheduler::command::Refusal;
use crate::scheduler::handle::Handle;
use crate::store::{Archive, Part, StoreError};

/// Runs, or jobs, that are looked up at a time.
const PAGE: usize = 1000;
/// Runs that one step of the scheduler lets go: a few milliseconds of its time.
const BATCH: usize = 100;
/// Rest after each reading and each batch, as a multiple of the time that it took: the store belongs to the jobs for
/// four fifths of the time.
const REST_FACTOR: u32 = 4;
/// How long after a start, in which there is enough to do, the first look comes.
const FIRST_AFTER: Duration = Duration::from_mins(1);

/// Why a look at the ledger was broken off.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("what was let go of job \"{0}\" is still there")]
    StillThere(String),
}

/// How many rows have gone.
#[derive(Debug, Default)]
struct Gone {
    runs: usize,
    outputs: usize,
}

/// Who lets go of what need not be kept.
#[derive(Debug)]
pub(super) struct Pruner {
    archive: Arc<dyn Archive>,
    handle: Handle,
    /// What is to be kept; each look goes by what it then is.
    retention: watch::Receiver<Retention>,
}

impl Pruner {
    /// One that looks into this archive, and asks that scheduler.
    pub(super) fn new(
        archive: Arc<dyn Archive>,
        handle: Handle,
        retention: watch::Receiver<Retention>,
    ) -> Self {
        Self { archive, handle, retention }
    }

    /// Looks again and again, for as long as it is let.
    pub(super) async fn work(self) {
        let interval = || self.retention.borrow().interval;
        tokio::time::sleep(interval().min(FIRST_AFTER)).await;
        loop {
            let retention = *self.retention.borrow();
            let mut gone = Gone::default();
            match self.prune(retention, &mut gone).await {
                Ok(()) if gone.runs + gone.outputs == 0 => {}
                Ok(()) => {
                    tracing::info!(
                        runs = gone.runs,
                        outputs = gone.outputs,
                        "old rows of the ledger are gone"
                    );
                }
                // What is left is found at the next look.
                Err(error) => tracing::warn!(%error, "old rows of the ledger stay for now"),
            }
            tokio::time::sleep(interval()).await;
        }
    }

    /// Lets go of all that need not be kept now.
    async fn prune(&self, retention: Retention, gone: &mut Gone) -> Result<(), Interrupted> {
        let now = SystemClock.now();
        let kept = [(Kind::Others, retention.runs), (Kind::Errors, retention.errors)];
        for (kind, keep) in kept {
            let Some(before) = now.checked_sub_signed(keep.age) else { continue };
            gone.runs += self.in_pages(Some(kind), before).await?;
        }
        if let Some(before) = retention.output_age.and_then(|age| now.checked_sub_signed(age)) {
            gone.outputs += self.in_pages(None, before).await?;
        }
        let fewest = kept.map(|(_, keep)| keep.per_job).into_iter().min().unwrap_or(usize::MAX);
        let mut after = String::new();
        loop {
            let jobs = rested(self.archive.crowded_jobs(fewest, &after, PAGE)).await?;
            let kinds = |job_id| kept.map(|(kind, keep)| (job_id, kind, keep.per_job));
            for (job_id, kind, keep) in jobs.iter().flat_map(kinds) {
                gone.runs += self.surplus(job_id, kind, keep).await?;
            }
            match jobs.last() {
                Some(last) if jobs.len() == PAGE => after.clone_from(last),
                _ => return Ok(()),
            }
        }
    }

    /// Lets go of runs of a kind that ended before an instant; of none, of the outputs of all.
    async fn in_pages(&self, kind: Option<Kind>, before: Timestamp) -> Result<usize, Interrupted> {
        let parts: &[Part] = if kind.is_some() { &Part::ALL } else { &[Part::Outputs] };
        let (mut after, mut count) = (String::new(), 0);
        loop {
            let page = match kind {
                Some(kind) => Prunable::Ended { kind, before, after: &after },
                None => Prunable::WithOutput { before, after: &after },
            };
            let runs = rested(self.archive.prunable(page, PAGE)).await?;
            let last = runs.last().map(ToString::to_string);
            let is_last = runs.len() < PAGE;
            count += runs.len();
            self.let_go(runs, parts).await?;
            match last {
                Some(last) if !is_last => after = last,
                _ => return Ok(count),
            }
        }
    }

    /// Lets go of the runs of a job that are not among the newest of their kind.
    async fn surplus(&self, job_id: &str, kind: Kind, keep: usize) -> Result<usize, Interrupted> {
        let first = Prunable::FirstBeyond { job_id, kind, keep };
        let Some(first) = rested(self.archive.prunable(first, 1)).await?.pop() else {
            return Ok(0);
        };
        let (mut count, mut former) = (0, Vec::new());
        loop {
            let page = Prunable::UpTo { job_id, kind, last: &first.0 };
            let runs = rested(self.archive.prunable(page, PAGE)).await?;
            // Each page is what is left, so one that comes again would come for ever.
            if !runs.is_empty() && runs == former {
                return Err(Interrupted::StillThere(job_id.to_owned()));
            }
            count += runs.len();
            self.let_go(runs.clone(), &Part::ALL).await?;
            if runs.len() < PAGE {
                return Ok(count);
            }
            former = runs;
        }
    }

    /// Lets go of runs, batch by batch.
    async fn let_go(&self, runs: Vec<RunId>, parts: &'static [Part]) -> Result<(), Refusal> {
        for batch in runs.chunks(BATCH) {
            rested(self.handle.prune(batch.to_vec(), parts)).await?;
        }
        Ok(())
    }
}

/// Does something, and rests for a multiple of the time that it took.
async fn rested<T>(work: impl Future<Output = T>) -> T {
    let begin = tokio::time::Instant::now();
    let done = work.await;
    tokio::time::sleep(begin.elapsed() * REST_FACTOR).await;
    done
}
