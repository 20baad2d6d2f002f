//! Making the jobs of the file what the file says, at a start and at a reload, slice by slice, so
//! that jobs fire on time in between. Each slice is one transaction. A crash between two of them
//! leaves jobs of the old file behind; the next start finds and changes them.

use std::collections::BTreeSet;

use super::admission::Rules;
use super::command::{Difference, Refusal, weight};
use super::handle::Handle;
use super::slices::{halves, slices};
use crate::job::{Job, JobId, Origin};
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

/// What a file without any jobs means for those that it declared before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emptied {
    /// They are kept: at a start an empty file is more often a mistake than meant.
    Keeps,
    /// They go, as one that is not in the file any more does.
    Removes,
}

/// What declaring jobs has led to.
#[derive(Debug)]
pub struct Declared {
    /// What has changed.
    pub difference: Difference,
    /// Jobs of the file that it does not declare any more, and that were kept.
    pub kept: usize,
}

/// Has jobs judged by these rules, and makes the jobs of the file these; says what has changed.
pub async fn declare(
    handle: &Handle,
    archive: &dyn Archive,
    rules: Rules,
    jobs: Vec<Job>,
    emptied: Emptied,
) -> Result<Declared, DeclareError> {
    let executors: Vec<String> = rules.executors.keys().cloned().collect();
    let declared: BTreeSet<JobId> = jobs.iter().map(|job| job.id.clone()).collect();
    handle.set_rules(rules).await?;
    let keeps = emptied == Emptied::Keeps && declared.is_empty();
    let (mut difference, mut kept) = (Difference::default(), 0);
    let mut after = String::new();
    loop {
        let page = archive.to_review(&executors, &after, PAGE).await?;
        let is_last = page.len() < PAGE;
        if let Some(last) = page.last() {
            last.as_str().clone_into(&mut after);
        }
        let mut others: Vec<JobId> = page.into_iter().filter(|id| !declared.contains(id)).collect();
        if keeps {
            let count = others.len();
            others = not_declared(archive, others).await?;
            kept += count - others.len();
        }
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
    Ok(Declared { difference, kept })
}

/// Those of the jobs that did not come from the file.
async fn not_declared(archive: &dyn Archive, ids: Vec<JobId>) -> Result<Vec<JobId>, StoreError> {
    let mut others = Vec::new();
    for id in ids {
        let job = archive.job(id.as_str()).await?;
        if job.is_none_or(|job| job.origin != Origin::File) {
            others.push(id);
        }
    }
    Ok(others)
}
