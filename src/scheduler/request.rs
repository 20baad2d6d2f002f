//! What can be asked of the scheduler, and what it answers.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::admission::Rules;
use crate::clock::Timestamp;
use crate::job::{Job, JobId};
use crate::run::{Run, RunId};
use crate::store::RunPart;

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

/// A job of the file whose declaration is faulty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidDeclaration {
    /// Its id; where the file gives it none, its number in the file stands in for it.
    pub id: JobId,
    /// What is wrong with it, and where.
    pub reason: String,
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
        parts: &'static [RunPart],
    },
    /// Remove those of these jobs that are finished and have no run in flight. Others stay as they are.
    RemoveFinished(Vec<JobId>),
    /// Judge by these rules from now on.
    SetRules(Box<Rules>),
    /// Look again at jobs that the file does not declare: one that it declared before is removed, one that another file
    /// declares is left alone, any other one is judged by the rules.
    Review(Vec<JobId>),
    /// Make these jobs of the file what the file says. One that another file declares is left alone, and named.
    Declare(Vec<Job>),
    /// Break jobs of the file whose declarations are faulty: they keep their definitions, and do not fire. One that this
    /// file did not declare before, but that exists, is left alone.
    BreakDeclared(Vec<InvalidDeclaration>),
    /// Fire from now on: the jobs of the file are declared.
    Begin,
}

/// Bytes of a job that cost as much time as one job more.
const BYTES_PER_WEIGHT: usize = 8 * 1024;

/// How much work one job makes for a step, in jobs of usual size.
pub(super) fn weight(job: &Job) -> usize {
    1 + job.bytes / BYTES_PER_WEIGHT
}

impl Request {
    /// Whether it pauses or resumes the scheduler as a whole.
    pub(super) fn pauses_scheduler(&self) -> bool {
        matches!(self, Self::PauseAll | Self::ResumeAll)
    }

    /// How much work it makes for a step, in jobs of usual size.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Add(addition) => weight(&addition.job),
            Self::AddAll(additions) => additions.iter().map(|addition| weight(&addition.job)).sum(),
            Self::Declare(jobs) => jobs.iter().map(weight).sum(),
            Self::RemoveFinished(ids) | Self::Review(ids) => ids.len(),
            Self::BreakDeclared(faults) => faults.len(),
            Self::Prune { runs, .. } => runs.len(),
            Self::Remove(_)
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Run(_)
            | Self::Cancel { .. }
            | Self::PauseAll
            | Self::ResumeAll
            | Self::SetRules(_)
            | Self::Begin => 1,
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
            | Self::Prune { .. }
            | Self::RemoveFinished(_)
            | Self::SetRules(_)
            | Self::Review(_)
            | Self::Declare(_)
            | Self::BreakDeclared(_)
            | Self::Begin => None,
        }
    }

    /// The jobs that it speaks of by their ids.
    pub(super) fn jobs(&self) -> Vec<&JobId> {
        match self {
            Self::Add(addition) => vec![&addition.job.id],
            Self::AddAll(additions) => additions.iter().map(|addition| &addition.job.id).collect(),
            Self::Remove(id) | Self::Pause(id) | Self::Resume(id) | Self::Run(id) => vec![id],
            Self::RemoveFinished(ids) | Self::Review(ids) => ids.iter().collect(),
            Self::Declare(jobs) => jobs.iter().map(|job| &job.id).collect(),
            Self::BreakDeclared(faults) => faults.iter().map(|fault| &fault.id).collect(),
            Self::Cancel { .. }
            | Self::PauseAll
            | Self::ResumeAll
            | Self::Prune { .. }
            | Self::SetRules(_)
            | Self::Begin => Vec::new(),
        }
    }
}

/// What a request led to.
#[derive(Debug, Clone)]
pub enum Response {
    /// The job as it now is.
    Job(Arc<Job>),
    /// The run that was made.
    Run(Arc<Run>),
    /// What became of each job that was to be added, in order.
    Added(Vec<Result<Added, RequestError>>),
    /// Since when the scheduler is paused; none if it is not.
    Paused(Option<Timestamp>),
    /// What was asked is done, and there is nothing more to say.
    Done,
    /// What changed of the jobs of the file.
    Difference(Difference),
}

/// How the jobs of the file differ from those before.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// Ids that are new.
    pub added: Vec<String>,
    /// Ids whose definition is another.
    pub changed: Vec<String>,
    /// Ids that are gone.
    pub removed: Vec<String>,
    /// How many are as they were.
    pub unchanged: usize,
    /// Those that were left alone, because another file declares them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<Conflict>,
}

/// A job that two files declare.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, thiserror::Error)]
#[error(
    "job \"{id}\" is declared by another file, whose source is \"{other}\"; the source of this file is \"{own}\""
)]
pub struct Conflict {
    /// The job.
    pub id: String,
    /// The source of the file whose declaration counts.
    pub other: String,
    /// The source of the file whose declaration does not.
    pub own: String,
}

impl Difference {
    /// Adds what another slice of the same file has changed.
    pub(super) fn extend(&mut self, other: Self) {
        self.added.extend(other.added);
        self.changed.extend(other.changed);
        self.removed.extend(other.removed);
        self.unchanged += other.unchanged;
        self.conflicts.extend(other.conflicts);
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is no such job.
    #[error("there is no job \"{0}\"")]
    NotFound(JobId),
    /// The id is taken.
    #[error("a job \"{0}\" exists already (replace_existing, or --replace, redefines it)")]
    Exists(JobId),
    /// There is no such run.
    #[error("there is no run \"{0}\"")]
    NoRun(String),
    /// The run has ended.
    #[error("run \"{id}\" has ended: it is {state}")]
    RunEnded {
        /// The run.
        id: String,
        /// Its state.
        state: &'static str,
    },
    /// The job is declared in a file, which is the truth for it.
    #[error("job \"{id}\" is declared in a file (source \"{file}\"): change it there and reload")]
    DeclaredInFile {
        /// The job.
        id: JobId,
        /// The source of that file.
        file: Arc<str>,
    },
    /// The job's state does not allow it.
    #[error("job \"{id}\" is {state}")]
    WrongState {
        /// The job.
        id: JobId,
        /// Its state, and what follows from it.
        state: String,
    },
    /// As many runs as allowed are in flight.
    #[error("job \"{id}\" has {max_instances} run(s) in flight, which is its max_instances")]
    Busy {
        /// The job.
        id: JobId,
        /// Its limit.
        max_instances: u32,
    },
    /// The pool's queue is full.
    #[error("the queue of executor \"{0}\" is full")]
    QueueFull(String),
    /// The store could not be written; nothing has changed, as far as is known.
    #[error("{0}")]
    Unavailable(String),
    /// The database refuses a value of the request, and would refuse it again; nothing has changed.
    #[error("the database refuses a value of this request: {0}")]
    Rejected(String),
    /// The daemon is about to end.
    #[error("the daemon is stopping")]
    Stopping,
    /// The scheduler did not do what it promises: a fault of the program.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

/// A request with the place for its answer.
#[derive(Debug)]
pub struct PendingRequest {
    /// What is asked.
    pub request: Request,
    /// Who waits for the answer. That nobody does any more changes nothing.
    pub reply: oneshot::Sender<Result<Response, RequestError>>,
}

impl PendingRequest {
    /// A request whose answer goes to `reply`.
    pub fn new(request: Request, reply: oneshot::Sender<Result<Response, RequestError>>) -> Self {
        Self { request, reply }
    }
}
