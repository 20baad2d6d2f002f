//! Finished jobs: each is removed when its time has passed or too many are kept, unless its `on_finish` says "keep".

use chrono::TimeDelta;

use super::{CALM, FAST, Interrupted, PAGE, Pace, Pruner, rested_by};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::KeepFinished;
use crate::filter::FinishedJobs;
use crate::job::{Job, JobId, JobState, OnFinish, Origin};
use crate::scheduler::request::RequestError;

impl Pruner {
    /// Removes the finished jobs that need not be kept, and says how many these were. With `all`, jobs that are to be
    /// removed at once are looked for, too: a daemon that died may have left them.
    pub(super) async fn remove_finished(
        &self,
        keep: KeepFinished,
        all: bool,
    ) -> Result<usize, Interrupted> {
        let now = SystemClock.now();
        let aged = now.checked_sub_signed(keep.age).unwrap_or(Timestamp::MIN_UTC);
        // Jobs that finished at the same instant go together.
        let beyond = self.archive.finished_beyond(keep.jobs).await?;
        let beyond = beyond.and_then(|at| at.checked_add_signed(TimeDelta::microseconds(1)));
        let (before, pace) = match beyond.filter(|beyond| *beyond > aged) {
            Some(beyond) => (beyond, FAST),
            None => (aged, CALM),
        };
        let is_removable = |job: &Job| match job.policy.on_finish {
            // It is shown as broken, since its row is not understood.
            _ if job.state != JobState::Finished => false,
            // A job of the file goes when the file no longer declares it.
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
            let jobs = rested_by(pace, self.archive.finished_jobs(wanted)).await?;
            let removable = jobs.iter().filter(|job| is_removable(job));
            let removable: Vec<JobId> = removable.map(|job| job.id.clone()).collect();
            count += removable.len();
            self.remove(removable, pace).await?;
            // A page may lack jobs that cannot be read, so only an empty one is the last.
            match jobs.last() {
                Some(last) => after = (last.updated_at, last.id.to_string()),
                None => return Ok(count),
            }
        }
    }

    /// Removes finished jobs, batch by batch.
    async fn remove(&self, jobs: Vec<JobId>, pace: Pace) -> Result<(), RequestError> {
        for batch in jobs.chunks(pace.batch) {
            rested_by(pace, self.handle.remove_finished(batch.to_vec())).await?;
        }
        Ok(())
    }
}
