//! Making the jobs of the file what the file says, at a start and at a reload, slice by slice, so
//! that jobs fire on time in between. Each slice is one transaction. A crash between two of them
//! leaves jobs of the old file behind; the next start finds and changes them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::admission::Rules;
use super::handle::Handle;
use super::request::{Conflict, Difference, InvalidDeclaration, RequestError, weight};
use super::slices::{halves, slices};
use crate::job::{Job, JobId};
use crate::store::{Archive, ReviewedJob, StoreError};

/// Work of one slice, in jobs of usual size: a few milliseconds of the scheduler's time.
const SLICE_WEIGHT: usize = 64;
/// Jobs that are looked up at a time.
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
    /// Other files declare jobs of this one; nothing has changed.
    #[error("{first}{}", more(*.others))]
    Conflict {
        /// One of them.
        first: Conflict,
        /// How many there are beside it.
        others: usize,
    },
    /// The scheduler refused a slice.
    #[error(transparent)]
    Refused(#[from] RequestError),
}

fn more(others: usize) -> String {
    match others {
        0 => String::new(),
        others => format!(" (and {others} more jobs)"),
    }
}

/// What a file declares.
#[derive(Debug, Default)]
pub struct Declaration {
    /// Its jobs that are in order.
    pub jobs: Vec<Job>,
    /// Its jobs that are not.
    pub faults: Vec<InvalidDeclaration>,
    /// Whether one of those has no id of its own, so that nobody knows which job it is.
    pub has_nameless: bool,
}

/// What the jobs of a file are declared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// A start goes on with what is in order. An empty file is more often a mistake than meant, so that it removes nothing.
    /// Neither does one with a job whose id is not known.
    Start,
    /// A reload changes nothing if another file declares one of the jobs.
    Reload,
}

/// What declaring jobs has led to.
#[derive(Debug)]
pub struct DeclareReport {
    /// What has changed.
    pub difference: Difference,
    /// Jobs of the file that it does not declare any more, and that were kept.
    pub kept: usize,
    /// Jobs that the database refused, which were broken instead.
    pub refused: Vec<InvalidDeclaration>,
}

/// The jobs to review, page by page.
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

    /// The next page; an empty one after the last.
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

/// Has jobs judged by these rules, and makes the jobs of the file what it declares; says what has changed.
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
        others.retain(|job| !declared.contains(&job.id) && !job.is_declared_beside(&own));
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
            Err(RequestError::Rejected(why)) => match slice.as_slice() {
                [job] => {
                    let error = DeclareError::Rejected { id: job.id.clone(), why };
                    if occasion == Occasion::Reload {
                        // The jobs before it are declared, and it is named.
                        return Err(error);
                    }
                    let fault =
                        InvalidDeclaration { id: job.id.clone(), reason: error.to_string() };
                    break_declared(handle, vec![fault.clone()]).await?;
                    refused.push(fault);
                }
                _ => waiting.extend(halves(slice)),
            },
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Ok(DeclareReport { difference, kept, refused })
}

/// Breaks jobs whose declarations are faulty. One that the database refuses even so is not shown as broken.
async fn break_declared(
    handle: &Handle,
    faults: Vec<InvalidDeclaration>,
) -> Result<(), RequestError> {
    let mut waiting = vec![faults];
    while let Some(slice) = waiting.pop() {
        match handle.break_declared(slice.clone()).await {
            Err(RequestError::Rejected(_)) if slice.len() > 1 => waiting.extend(halves(slice)),
            Ok(()) | Err(RequestError::Rejected(_)) => {}
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(())
}

/// Refuses jobs that another file declares.
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
            .filter(|job| declared.contains(&job.id) && job.is_declared_beside(&rules.source));
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
