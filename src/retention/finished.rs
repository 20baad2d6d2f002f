//! Removes finished jobs: each one when its time has passed or too many are kept, unless its `on_finish` is "keep".

use chrono::TimeDelta;

use super::pace::{CALM, FAST, PAGE, SweepError};
use super::policy::KeepFinished;
use crate::clock::Timestamp;
use crate::filter::FinishedJobs;
use crate::job::{Job, JobId, JobState, OnFinish, Origin};
use crate::scheduler::handle::Handle;
use crate::store::Archive;

/// Removes the finished jobs that need not be kept, and returns their number. With `all`, it also looks for jobs that
/// should have been removed as soon as they finished: a daemon that died may have left them.
pub(super) async fn remove(
    archive: &dyn Archive,
    handle: &Handle,
    keep: KeepFinished,
    all: bool,
    now: Timestamp,
) -> Result<usize, SweepError> {
    let aged = now.checked_sub_signed(keep.age).unwrap_or(Timestamp::MIN_UTC);
    // Jobs that finished at the same instant are removed together.
    let beyond = archive.finished_beyond(keep.jobs).await?;
    let beyond = beyond.and_then(|at| at.checked_add_signed(TimeDelta::microseconds(1)));
    let (before, pace) = match beyond.filter(|beyond| *beyond > aged) {
        Some(beyond) => (beyond, FAST),
        None => (aged, CALM),
    };
    let is_removable = |job: &Job| match job.policy.on_finish {
        // A row that cannot be read is shown as broken.
        _ if job.state != JobState::Finished => false,
        // A declared job is removed when the file no longer declares it.
        _ if job.origin == Origin::File => false,
        Some(OnFinish::Keep) => false,
        Some(OnFinish::Remove) => true,
        None => job.updated_at < before,
    };
    let (mut after, mut count) = ((Timestamp::UNIX_EPOCH, String::new()), 0);
    loop {
        let wanted = FinishedJobs {
            before: if all { now } else { before },
            after: (after.0, &after.1),
            limit: PAGE,
        };
        let jobs = pace.run(archive.finished_jobs(wanted)).await?;
        let removable = jobs.iter().filter(|job| is_removable(job));
        let removable: Vec<JobId> = removable.map(|job| job.id.clone()).collect();
        count += removable.len();
        for batch in removable.chunks(pace.batch) {
            pace.run(handle.remove_finished(batch.to_vec())).await?;
        }
        // Jobs that cannot be read are missing from a page, so only an empty page is the last one.
        match jobs.last() {
            Some(last) => after = (last.updated_at, last.id.to_string()),
            None => return Ok(count),
        }
    }
}
