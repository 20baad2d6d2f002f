//! Making the jobs of the file what the file says, at a start and at a reload, slice by slice, so
//! that jobs fire on time in between. Each slice is one transaction. A crash between two of them
//! leaves jobs of the old file behind; the next start finds and changes them.

use std::collections::BTreeSet;

use super::admission::Rules;
use super::command::{Difference, Refusal, weight};
use super::handle::Handle;
use super::slices::{halves, slices};
use crate::job::{Job, JobId};
use crate::store::{Archive, StoreError};

/// Work of one slice, in jobs of usual size: a few milliseconds of the scheduler's time.
const SLICE_WEIGHT: usize = 64;
/// Ids that are looked up at a time.
const PAGE: usize = 1000;

/// Why the jobs of the file were not all declared.
#[derive(Debug, thiserror::Error)]
pub enum DeclareError {
    /// The jobs that there are could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database refuses a value of a job.
    #[error("job \"{id}\": the database refuses a value of it: {why}")]
    Rejected {
        /// The job.
        id: JobId,
        /// What the database says.
        why: String,
    },
    /// The scheduler refused a slice.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Has jobs judged by these rules, and makes the jobs of the file these; says what has changed.
pub async fn declare(
    handle: &Handle,
    archive: &dyn Archive,
    rules: Rules,
    jobs: Vec<Job>,
) -> Result<Difference, DeclareError> {
    let executors: Vec<String> = rules.executors.keys().cloned().collect();
    let declared: BTreeSet<JobId> = jobs.iter().map(|job| job.id.clone()).collect();
    handle.set_rules(rules).await?;
    let mut difference = Difference::default();
    let mut after = String::new();
    loop {
        let page = archive.to_review(&executors, &after, PAGE).await?;
        let is_last = page.len() < PAGE;
        if let Some(last) = page.last() {
            last.as_str().clone_into(&mut after);
        }
        let others = page.into_iter().filter(|id| !declared.contains(id)).collect();
        for slice in slices(others, SLICE_WEIGHT, |_| 1) {
            difference.extend(handle.review(slice).await?);
        }
        if is_last {
            break;
        }
    }
    let mut waiting = slices(jobs, SLICE_WEIGHT, weight);
    waiting.reverse();
    while let Some(slice) = waiting.pop() {
        match handle.declare(slice.clone()).await {
            Ok(more) => difference.extend(more),
            Err(Refusal::Rejected(why)) => match slice.as_slice() {
                // The jobs before it are declared, and it is named.
                [job] => return Err(DeclareError::Rejected { id: job.id.clone(), why }),
                _ => waiting.extend(halves(slice)),
            },
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Ok(difference)
}
