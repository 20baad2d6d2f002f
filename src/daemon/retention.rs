//! Retention: removes the runs and the finished jobs that need not be kept. They are looked for through the store's
//! readers and removed by the scheduler in small batches, so that none of its steps takes long.

mod budget;
mod finished;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::watch;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::{Keep, Retention};
use crate::filter::{Prunable, RetentionClass, RunFilter};
use crate::run::{Run, RunId};
use crate::scheduler::handle::{Handle, WriteCounts};
use crate::scheduler::request::RequestError;
use crate::store::{Archive, RunPart, StoreError};

/// Runs, or jobs, that are looked up at a time.
const PAGE: usize = 1000;
/// How fast the scheduler is asked to remove.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Runs, or jobs, of one request: it bounds how long a step takes.
    batch: usize,
    /// Rest after each reading and each request, as a multiple of the time that it took.
    rest_factor: u32,
}

/// The usual pace: a few milliseconds of a step, and the store belongs to the jobs for four fifths of the time.
const CALM: Pace = Pace { batch: 100, rest_factor: 4 };
/// The pace while a limit on rows, bytes or jobs is exceeded. A request is as large as what a step takes at most, so
/// that clients which add jobs without pause do not add more than is removed.
const FAST: Pace = Pace { batch: 256, rest_factor: 0 };
/// The next look comes early when the ledger has grown by this part of its budget since the last one.
const GROWTH_PART: u64 = 10;
/// How often that is looked at, at most, while the scheduler works.
const GROWTH_PAUSE: Duration = Duration::from_secs(5);
/// How long after a start, in which there is enough to do, the first look comes.
const FIRST_AFTER: Duration = Duration::from_mins(1);

/// Why a look at the ledger ended early.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Refused(#[from] RequestError),
    #[error("{0} were deleted and are still there")]
    StillThere(String),
}

/// How many rows have gone.
#[derive(Debug, Default)]
struct Gone {
    runs: usize,
    outputs: usize,
    jobs: usize,
}

/// Removes what need not be kept.
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

    /// Looks again and again, until it is dropped.
    pub(super) async fn work(mut self) {
        let first_after = self.retention.borrow().interval.min(FIRST_AFTER);
        let mut written = WriteCounts::default();
        self.wait(first_after, written).await;
        let mut is_first = true;
        loop {
            let retention = *self.retention.borrow_and_update();
            written = self.written();
            let mut gone = Gone::default();
            match self.look(retention, is_first, &mut gone).await {
                Ok(()) => is_first = false,
                // What is left is found at the next look.
                Err(error) => {
                    tracing::warn!(%error, "not all old runs and finished jobs could be removed");
                }
            }
            let Gone { runs, outputs, jobs } = gone;
            if runs + outputs + jobs > 0 {
                tracing::info!(runs, outputs, jobs, "removed old runs, outputs and finished jobs");
            }
            self.wait(retention.interval, written).await;
        }
    }

    /// Waits for the next look: for this time, or until other settings hold, or until the ledger has grown much.
    async fn wait(&mut self, interval: Duration, before: WriteCounts) {
        let mut changed = self.retention.clone();
        let grown = pin!(self.grown(before));
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = grown => {}
            // Without a sender no other settings will come.
            Ok(()) = changed.changed() => {}
        }
    }

    /// What this process has written to the ledger so far.
    fn written(&self) -> WriteCounts {
        self.handle.status().written
    }

    /// Returns when the ledger has grown by a part of its budget.
    async fn grown(&self, before: WriteCounts) {
        let mut steps = self.handle.steps();
        loop {
            if steps.changed().await.is_err() {
                // The scheduler has ended, and with it all growth.
                return std::future::pending().await;
            }
            tokio::time::sleep(GROWTH_PAUSE).await;
            let (budget, now) = (self.retention.borrow().budget, steps.borrow_and_update().written);
            if now.runs - before.runs >= budget.runs / GROWTH_PART
                || now.bytes - before.bytes >= budget.bytes / GROWTH_PART
            {
                return;
            }
        }
    }

    /// Removes all that need not be kept now. The first look also removes what a daemon that died has not.
    async fn look(
        &self,
        retention: Retention,
        is_first: bool,
        gone: &mut Gone,
    ) -> Result<(), Interrupted> {
        self.prune(retention, gone).await?;
        // Side by side: none of them waits for the other while limits are exceeded.
        let (runs, jobs) = tokio::join!(
            self.keep_budget(retention.budget),
            self.remove_finished(retention.finished, is_first)
        );
        gone.runs += runs?;
        gone.jobs += jobs?;
        Ok(())
    }

    /// Removes all runs and outputs that need not be kept now.
    async fn prune(&self, retention: Retention, gone: &mut Gone) -> Result<(), Interrupted> {
        let now = SystemClock.now();
        let kept = RetentionClass::ALL.map(|kind| (kind, keep(&retention, kind)));
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

    /// Removes runs of a kind that ended before an instant; without a kind, the outputs of all.
    async fn in_pages(
        &self,
        kind: Option<RetentionClass>,
        before: Timestamp,
    ) -> Result<usize, Interrupted> {
        let parts: &[RunPart] = if kind.is_some() { &RunPart::ALL } else { &[RunPart::Outputs] };
        let (mut after, mut count) = (String::new(), 0);
        let ids_tell_time = self.ids_tell_time().await?;
        loop {
            let after_id = after.as_str();
            let page = match kind {
                Some(kind) => Prunable::Ended { ids_tell_time, kind, before, after: after_id },
                None => Prunable::WithOutput { ids_tell_time, before, after: after_id },
            };
            let runs = rested(self.archive.prunable(page, PAGE)).await?;
            let last = runs.last().map(ToString::to_string);
            let is_last = runs.len() < PAGE;
            count += runs.len();
            self.let_go(runs, parts, CALM).await?;
            match last {
                Some(last) if !is_last => after = last,
                _ => return Ok(count),
            }
        }
    }

    /// Whether the newest run was made by a clock that was not ahead: ids never go back.
    async fn ids_tell_time(&self) -> Result<bool, StoreError> {
        let newest = self.archive.runs(&RunFilter { limit: 1, ..RunFilter::default() }).await?;
        let soon = SystemClock.now().checked_add_signed(TimeDelta::hours(1));
        let is_ahead = |run: &Run| soon.is_some_and(|soon| run.id > RunId::first_at(soon));
        Ok(!newest.rows.iter().any(is_ahead))
    }

    /// Removes the runs of a job that are not among the newest of their kind.
    async fn surplus(
        &self,
        job_id: &str,
        kind: RetentionClass,
        keep: usize,
    ) -> Result<usize, Interrupted> {
        let first = Prunable::FirstBeyond { job_id, kind, keep };
        let Some(first) = rested(self.archive.prunable(first, 1)).await?.pop() else {
            return Ok(0);
        };
        let surplus = Prunable::UpTo { job_id, kind, last: &first.0 };
        self.remove_all(surplus, CALM, || format!("runs of job \"{job_id}\"")).await
    }

    /// Removes runs page by page until none is found any more, and says how many these were. `what` names them.
    async fn remove_all(
        &self,
        which: Prunable<'_>,
        pace: Pace,
        what: impl FnOnce() -> String,
    ) -> Result<usize, Interrupted> {
        let (mut count, mut former) = (0, Vec::new());
        loop {
            let runs = rested_by(pace, self.archive.prunable(which, PAGE)).await?;
            // Each page is what is left, so one that comes again would come for ever.
            if !runs.is_empty() && runs == former {
                return Err(Interrupted::StillThere(what()));
            }
            count += runs.len();
            self.let_go(runs.clone(), &RunPart::ALL, pace).await?;
            if runs.len() < PAGE {
                return Ok(count);
            }
            former = runs;
        }
    }

    /// Removes runs, batch by batch.
    async fn let_go(
        &self,
        runs: Vec<RunId>,
        parts: &'static [RunPart],
        pace: Pace,
    ) -> Result<(), RequestError> {
        for batch in runs.chunks(pace.batch) {
            rested_by(pace, self.handle.prune(batch.to_vec(), parts)).await?;
        }
        Ok(())
    }
}

/// What is kept of a kind of rows.
fn keep(retention: &Retention, kind: RetentionClass) -> Keep {
    match kind {
        RetentionClass::Runs => retention.runs,
        RetentionClass::Errors => retention.errors,
        RetentionClass::Hooks => retention.hooks,
        RetentionClass::Skipped => retention.skipped,
    }
}

/// Does something, and rests for a multiple of the time that it took.
async fn rested<T>(work: impl Future<Output = T>) -> T {
    rested_by(CALM, work).await
}

async fn rested_by<T>(pace: Pace, work: impl Future<Output = T>) -> T {
    let begin = tokio::time::Instant::now();
    let done = work.await;
    tokio::time::sleep(begin.elapsed() * pace.rest_factor).await;
    done
}
