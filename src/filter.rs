//! Which rows a reader wants: jobs, or rows of the ledger, page by page.

use crate::clock::Timestamp;

/// Rows of one page, at most.
pub const PAGE_LIMIT: usize = 1000;

/// Which jobs to list, in the order of their ids.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only in this state.
    pub state: Option<String>,
    /// Only with this tag.
    pub tag: Option<String>,
    /// Only ids that begin so.
    pub prefix: Option<String>,
    /// Only ids after this one.
    pub after: Option<String>,
    /// Rows of the page.
    pub limit: usize,
}

/// Which runs to list, the newest first.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Only of this job.
    pub job_id: Option<String>,
    /// Only in this state.
    pub state: Option<String>,
    /// Only of this occurrence, or of a span that it is in.
    pub occurrence: Option<Timestamp>,
    /// Only made at or after this instant.
    pub since: Option<Timestamp>,
    /// Only ids before this one.
    pub before: Option<String>,
    /// Rows of the page.
    pub limit: usize,
}
