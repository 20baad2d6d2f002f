//! What can be asked of the scheduler, and what it answers.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::admission::Rules;
use crate::clock::Timestamp;
use crate::job::{Job, JobId};
use crate::run::{Run, RunId};
use crate::store::Part;

/// What an added job does to one of the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is refused.
    Refuse,
    /// It redefines it; the schedule goes on if the trigger is the same.
    Redefine,
    /// It redefines it, and says when it fires next.
    Reschedule,
}

/// A job to add.
#[derive(Debug, Clone)]
pub struct Addition {
    /// The job, admitted.
    pub job: Box<Job>,
    /// What happens if there is a job of that id.
    pub existing: Existing,
}

/// What adding a job did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// There was none of that id.
    New,
    /// The one of that id is redefined.
    Replaced,
}

/// A request that changes something.
#[derive(Debug, Clone)]
pub enum Request {
    /// Add a job.
    Add(Addition),
    /// Add jobs, in one transaction; one that is refused does not hold up the others.
    AddAll(Vec<Addition>),
    /// Remove a job. A run of it that was started goes on.
    Remove(JobId),
    /// Fire no more until resumed.
    Pause(JobId),
    /// Fire again, from now on.
    Resume(JobId),
    /// Run now, beside the schedule.
    Run(JobId),
    /// End a run before it ends by itself.
    Cancel {
        /// Which one.
        run: RunId,
        /// Why, for the ledger.
        reason: Option<String>,
    },
    /// Fire no job at all until resumed.
    PauseAll,
    /// Fire again; what fell due meanwhile is late.
    ResumeAll,
    /// Keep no longer what there is of runs that have ended, or these parts of them.
    Prune {
        /// Which runs.
        runs: Vec<RunId>,
        /// What of each.
        parts: &'static [Part],
    },
    /// Judge by new rules, and make the jobs of the file these.
    Reload {
        /// The rules from now on.
        rules: Box<Rules>,
        /// The jobs that the file declares.
        jobs: Vec<Job>,
    },
}

impl Request {
    /// Whether it pauses or resumes the scheduler as a whole.
    pub(super) fn is_of_all(&self) -> bool {
        matches!(self, Self::PauseAll | Self::ResumeAll)
    }

    /// The rules that hold from it on, if it brings some.
    pub(super) fn new_rules(&self) -> Option<&Rules> {
        match self {
            Self::Reload { rules, .. } => Some(rules),
            Self::Add(_)
            | Self::AddAll(_)
            | Self::Remove(_)
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Run(_)
            | Self::Cancel { .. }
            | Self::PauseAll
            | Self::ResumeAll
            | Self::Prune { .. } => None,
        }
    }

    /// The run that it speaks of.
    pub(super) fn run(&self) -> Option<&RunId> {
        match self {
            Self::Cancel { run, .. } => Some(run),
            Self::Add(_)
            | Self::AddAll(_)
            | Self::Remove(_)
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Run(_)
            | Self::PauseAll
            | Self::ResumeAll
            | Self::Reload { .. } => None,
        }
    }

    /// The jobs that it speaks of by their ids.
    pub(super) fn jobs(&self) -> Vec<&JobId> {
        match self {
            Self::Add(addition) => vec![&addition.job.id],
            Self::AddAll(additions) => additions.iter().map(|addition| &addition.job.id).collect(),
            Self::Remove(id) | Self::Pause(id) | Self::Resume(id) | Self::Run(id) => vec![id],
            Self::Cancel { .. } | Self::PauseAll | Self::ResumeAll | Self::Prune { .. } => {
                Vec::new()
            }
