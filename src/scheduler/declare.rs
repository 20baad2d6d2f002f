//! Declares the jobs of the file, at a start and at a reload: it adds and changes those that the file declares, and removes
//! those that it no longer does.
//!
//! This is done slice by slice, so that jobs fire on time in between. Each slice is one transaction. A crash between two of
//! them leaves jobs of the old file behind, and the next start corrects them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::handle::Handle;
use super::request::{Conflict, Difference, InvalidDeclaration, RequestError, weight};
use super::slices::{refused_item, slices};
use crate::job::admission::Rules;
use crate::job::{Job, JobId};
use crate::store::{Archive, ReviewedJob, StoreError};

/// Work of one slice, in jobs of usual size: a few milliseconds of the scheduler's time.
const SLICE_WEIGHT: usize = 64;
/// Stored jobs that are read at a time.
const PAGE: usize = 1000;

/// Why the jobs of the file were not all declared.
#[derive(Debug, thiserror::Error)]
pub enum DeclareError {
    /// The stored jobs could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("job \"{id}\": the database refuses a value of it: {why}")]
    Rejected { id: JobId, why: String },
    /// Other files declare jobs of this one; nothing has changed.
    #[error("{first}{}", more(*.others))]
    Conflict {
        first: Conflict,
        /// How many conflicts there are besides the first.
        others: usize,
    },
    #[error(transparent)]
    Refused(#[from] RequestError),
}

fn more(others: usize) -> String {
    match others {
        0 => String::new(),
        others => format!(" (and {others} more jobs)"),
    }
}

#[derive(Debug, Default)]
pub struct Declaration {
    pub jobs: Vec<Job>,
    pub faults: Vec<InvalidDeclaration>,
    /// Whether an invalid declaration has no id, so that it is unknown which job it declares.
    pub has_nameless: bool,
}

/// When the jobs of a file are declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// A start uses the valid declarations. A file that declares nothing is more often a mistake than meant, so it removes
    /// nothing. Neither does a file with a job whose id is unknown.
    Start,
    /// A reload changes nothing if another file declares one of the jobs.
    Reload,
}

#[derive(Debug)]
pub struct DeclareReport {
    pub difference: Difference,
    /// How many jobs the file no longer declares, but were kept.
    pub kept: usize,
    /// Jobs that the database refused, and that were broken instead.
    pub refused: Vec<InvalidDeclaration>,
}

/// Reads the stored jobs to review, page by page.
struct Reviews<'a> {
    archive: &'a dyn Archive,
    executors: Vec<String>,
    after: String,
    is_over: bool,
}

impl<'a> Reviews<'a> {
    fn new(archive: &'a dyn Archive, rules: &Rules) -> Self {
        let executors = rules.executors.keys().cloned().collect();
        Self { archive, executors, after: String::new(), is_over: false }
    }

    /// The next page; empty after the last one.
    async fn next(&mut self) -> Result<Vec<ReviewedJob>, StoreError> {
        if self.is_over {
            return Ok(Vec::new());
        }
        let page = self.archive.jobs_to_review(&self.executors, &self.after, PAGE).await?;
        self.is_over = page.len() < PAGE;
        if let Some(last) = page.last() {
            last.id.as_str().clone_into(&mut self.after);
        }
        Ok(page)
    }
}

/// Sets the rules of the scheduler, and declares the jobs of the file.
pub async fn declare(
    handle: &Handle,
    archive: &dyn Archive,
    rules: Rules,
    declaration: Declaration,
    occasion: Occasion,
) -> Result<DeclareReport, DeclareError> {
    let Declaration { jobs, faults, has_nameless } = declaration;
    let ids = jobs.iter().map(|job| &job.id).chain(faults.iter().map(|fault| &fault.id));
    let declared: BTreeSet<JobId> = ids.cloned().collect();
    if occasion == Occasion::Reload {
        refuse_conflicts(archive, &rules, &declared).await?;
    }
    let own = Arc::clone(&rules.source);
    let mut reviews = Reviews::new(archive, &rules);
    handle.set_rules(rules).await?;
    let keeps = occasion == Occasion::Start && (declared.is_empty() || has_nameless);
    let (mut difference, mut kept) = (Difference::default(), 0);
    loop {
        let page = reviews.next().await?;
        if page.is_empty() {
            break;
        }
        let mut others = page;
        others.retain(|job| !declared.contains(&job.id) && !job.is_declared_elsewhere(&own));
        if keeps {
            let count = others.len();
            others.retain(|job| !job.is_declared);
            kept += count - others.len();
        }
        let others = others.into_iter().map(|job| job.id).collect();
        for slice in slices(others, SLICE_WEIGHT, |_| 1) {
            difference.extend(handle.review(slice).await?);
        }
    }
    for slice in slices(faults, SLICE_WEIGHT, |_| 1) {
        break_declared(handle, slice).await?;
    }
    let mut refused = Vec::new();
    let mut waiting = slices(jobs, SLICE_WEIGHT, weight);
    waiting.reverse();
    while let Some(slice) = waiting.pop() {
        match handle.declare(slice.clone()).await {
            Ok(more) => difference.extend(more),
            Err(RequestError::Rejected(why)) => {
                let Some(job) = refused_item(slice, &mut waiting) else { continue };
                let error = DeclareError::Rejected { id: job.id.clone(), why };
                if occasion == Occasion::Reload {
                    // The jobs before it are declared, and the error names it.
                    return Err(error);
                }
                let fault = InvalidDeclaration { id: job.id, reason: error.to_string() };
                break_declared(handle, vec![fault.clone()]).await?;
                refused.push(fault);
            }
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Ok(DeclareReport { difference, kept, refused })
}

/// Breaks jobs with an invalid declaration. A job that the database refuses even then is not shown as broken.
async fn break_declared(
    handle: &Handle,
    faults: Vec<InvalidDeclaration>,
) -> Result<(), RequestError> {
    let mut waiting = vec![faults];
    while let Some(slice) = waiting.pop() {
        match handle.break_declared(slice.clone()).await {
            Ok(()) => {}
            Err(RequestError::Rejected(_)) => drop(refused_item(slice, &mut waiting)),
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(())
}

/// Returns an error if another file declares one of the jobs.
async fn refuse_conflicts(
    archive: &dyn Archive,
    rules: &Rules,
    declared: &BTreeSet<JobId>,
) -> Result<(), DeclareError> {
    let (mut first, mut count) = (None, 0_usize);
    let mut reviews = Reviews::new(archive, rules);
    loop {
        let page = reviews.next().await?;
        if page.is_empty() {
            break;
        }
        let conflicts = page
            .into_iter()
            .filter(|job| declared.contains(&job.id) && job.is_declared_elsewhere(&rules.source));
        for job in conflicts {
            count += 1;
            first.get_or_insert(Conflict {
                id: job.id.to_string(),
                other: job.source.unwrap_or_default(),
                own: rules.source.to_string(),
            });
        }
    }
    first.map_or(Ok(()), |first| Err(DeclareError::Conflict { first, others: count - 1 }))
}
