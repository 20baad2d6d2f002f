//! What can be requested of the scheduler, and its responses.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::filter::JobConditions;
use crate::invalid::Invalid;
use crate::job::admission::Rules;
use crate::job::{Job, JobId, JobPatch, JobVersion, Pause, PauseTerms};
use crate::run::{Run, RunId};
use crate::store::RunPart;

/// What adding a job does to a job of the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// The new job is refused.
    Refuse,
    /// The job is redefined. Its schedule goes on if the trigger is the same.
    Redefine,
    /// The job is redefined, with its next run time.
    Reschedule,
}

/// A job to add.
#[derive(Debug, Clone)]
pub struct Addition {
    pub job: Box<Job>,
    pub existing: Existing,
}

/// For which versions of a job a request is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Precondition {
    /// For any.
    #[default]
    None,
    /// For one of these; for none if there are none.
    OneOf(Vec<JobVersion>),
}

impl Precondition {
    /// Refuses a job of another version.
    pub fn check(&self, job: &Job) -> Result<(), RequestError> {
        match self {
            Self::OneOf(versions) if !versions.iter().any(|version| version.is_of(job)) => {
                let (id, version) = (job.id.clone(), job.version());
                Err(RequestError::PreconditionFailed { id, revision: job.revision, version })
            }
            Self::None | Self::OneOf(_) => Ok(()),
        }
    }
}

/// A change of a job's definition. It has been checked against the job as it was before; if another request has changed
/// the definition since, the step makes and checks it again.
#[derive(Debug, Clone)]
pub struct Modification {
    pub patch: Arc<JobPatch>,
    /// The job that the change was checked against.
    pub base: Arc<Job>,
    /// That job with the definition that the patch makes of its own.
    pub checked: Box<Job>,
    pub precondition: Precondition,
    /// Whether a paused job is resumed.
    pub resumes: bool,
    /// Whether nothing is written: the answer says what would be.
    pub dry_run: bool,
}

/// A job before and after a change of its definition.
#[derive(Debug, Clone)]
pub struct Modified {
    pub before: Arc<Job>,
    pub after: Arc<Job>,
}

/// The result of adding a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    New,
    Replaced,
}

/// What is done to many jobs in one request.
#[derive(Debug, Clone)]
pub enum BulkAction {
    Remove,
    /// Jobs that are paused already get the new terms.
    Pause(PauseTerms),
    Resume,
}

/// What became of the jobs of a request about many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BulkTally {
    /// Jobs that were removed, paused or resumed.
    pub changed: usize,
    /// Jobs that were in that state already, or that are finished and so cannot fire anyway.
    pub unchanged: usize,
    /// Jobs that were left alone, and why.
    pub refused: Vec<(JobId, RequestError)>,
}

impl BulkTally {
    /// How many jobs it counts.
    pub fn matched(&self) -> usize {
        self.changed + self.unchanged + self.refused.len()
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.changed += other.changed;
        self.unchanged += other.unchanged;
        self.refused.extend(other.refused);
    }
}

/// A job of the file whose declaration is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidDeclaration {
    /// The job's id, or its number in the file if it has no id.
    pub id: JobId,
    /// What is wrong, and where.
    pub reason: String,
}

/// A request that changes something.
#[derive(Debug, Clone)]
pub enum Request {
    Add(Addition),
    /// Adds jobs in one transaction. If one is refused, the others are added.
    AddAll(Vec<Addition>),
    /// Removes a job. Its running attempts go on.
    Remove(JobId),
    /// Pauses a job. A job that is paused already gets the new terms.
    Pause(JobId, PauseTerms),
    Resume(JobId),
    /// Does something to one job, if it has one of these versions.
    IfVersion {
        job: JobId,
        precondition: Precondition,
        request: Box<Self>,
    },
    /// Changes the definition of a job.
    Modify(Modification),
    /// Does the same to jobs that were selected by conditions. A job that does not meet them any more is left alone.
    Bulk {
        action: BulkAction,
        ids: Vec<JobId>,
        conditions: Arc<JobConditions>,
    },
    /// Runs a job now, in addition to its schedule.
    Run(JobId),
    Cancel {
        run: RunId,
        /// For the ledger.
        reason: Option<String>,
    },
    /// Pauses the scheduler as a whole.
    PauseAll(PauseTerms),
    /// Resumes the scheduler. Occurrences that were due meanwhile are late.
    ResumeAll,
    /// Deletes parts of runs that have ended.
    Prune {
        runs: Vec<RunId>,
        parts: &'static [RunPart],
    },
    /// Removes those of the jobs that are finished and have no run in flight.
    RemoveFinished(Vec<JobId>),
    /// Replaces the rules that jobs are checked against.
    SetRules(Box<Rules>),
    /// Checks jobs that the file does not declare again: a job that it declared before is removed, a job of another file is
    /// left alone, and any other job is checked against the rules.
    Review(Vec<JobId>),
    /// Defines jobs as the file declares them. A job that another file declares is left alone, and reported.
    Declare(Vec<Job>),
    /// Breaks jobs of the file whose declarations are invalid: they keep their definitions, and do not fire. An existing job
    /// that the file did not declare before is left alone.
    BreakDeclared(Vec<InvalidDeclaration>),
    /// Fires from now on, because the jobs of the file are declared.
    Begin,
}

/// This many bytes of a definition take as much time as one more job of usual size.
const BYTES_PER_WEIGHT: usize = 8 * 1024;

/// The work of a step for one job, in jobs of usual size.
pub(super) fn weight(job: &Job) -> usize {
    1 + job.bytes / BYTES_PER_WEIGHT
}

impl Request {
    pub(super) fn pauses_scheduler(&self) -> bool {
        matches!(self, Self::PauseAll(_) | Self::ResumeAll)
    }

    /// The work of a step for this request, in jobs of usual size.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Add(addition) => weight(&addition.job),
            Self::AddAll(additions) => additions.iter().map(|addition| weight(&addition.job)).sum(),
            Self::Declare(jobs) => jobs.iter().map(weight).sum(),
            Self::RemoveFinished(ids) | Self::Review(ids) | Self::Bulk { ids, .. } => ids.len(),
            Self::BreakDeclared(faults) => faults.len(),
            Self::Prune { runs, .. } => runs.len(),
            Self::Modify(modification) => weight(&modification.checked),
            Self::IfVersion { request, .. } => request.weight(),
            Self::Remove(_)
            | Self::Pause(..)
            | Self::Resume(_)
            | Self::Run(_)
            | Self::Cancel { .. }
            | Self::PauseAll(_)
            | Self::ResumeAll
            | Self::SetRules(_)
            | Self::Begin => 1,
        }
    }

    /// The run that the request names.
    pub(super) fn run(&self) -> Option<&RunId> {
        if let Self::Cancel { run, .. } = self { Some(run) } else { None }
    }

    /// The jobs that the request names.
    pub(super) fn jobs(&self) -> Vec<&JobId> {
        match self {
            Self::Add(addition) => vec![&addition.job.id],
            Self::AddAll(additions) => additions.iter().map(|addition| &addition.job.id).collect(),
            Self::Remove(id) | Self::Pause(id, _) | Self::Resume(id) | Self::Run(id) => vec![id],
            Self::IfVersion { job, .. } => vec![job],
            Self::Modify(modification) => vec![&modification.base.id],
            Self::RemoveFinished(ids) | Self::Review(ids) | Self::Bulk { ids, .. } => {
                ids.iter().collect()
            }
            Self::Declare(jobs) => jobs.iter().map(|job| &job.id).collect(),
            Self::BreakDeclared(faults) => faults.iter().map(|fault| &fault.id).collect(),
            Self::Cancel { .. }
            | Self::PauseAll(_)
            | Self::ResumeAll
            | Self::Prune { .. }
            | Self::SetRules(_)
            | Self::Begin => Vec::new(),
        }
    }
}

#[derive(Debug, Clone)]
pub enum Response {
    /// The job as it now is.
    Job(Arc<Job>),
    /// The job as it was until it was removed.
    Removed(Arc<Job>),
    Modified(Modified),
    /// The job as it is, and as it would be.
    WouldModify(Modified),
    /// The new run.
    Run(Arc<Run>),
    /// The result of each addition, in order.
    Added(Vec<Result<Added, RequestError>>),
    Bulk(BulkTally),
    /// The pause of the scheduler; `None` if it is not paused.
    Paused(Option<Arc<Pause>>),
    Done,
    /// What has changed in the jobs of the file.
    Difference(Difference),
}

/// How the jobs of the file differ from those before. The lists contain ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub removed: Vec<String>,
    pub unchanged: usize,
    /// Jobs that were left alone, because another file declares them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<Conflict>,
}

/// A job that two files declare.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, thiserror::Error)]
#[error(
    "job \"{id}\" is declared by another file, whose source is \"{other}\"; the source of this file is \"{own}\""
)]
pub struct Conflict {
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
    #[error("there is no job \"{0}\"")]
    NotFound(JobId),
    #[error("a job \"{0}\" exists already (replace_existing, or --replace, redefines it)")]
    Exists(JobId),
    #[error("there is no run \"{0}\"")]
    NoRun(String),
    /// The change of a definition is not valid.
    #[error(transparent)]
    Invalid(Invalid),
    #[error("job \"{id}\" is at revision {revision} now")]
    PreconditionFailed { id: JobId, revision: i64, version: JobVersion },
    /// Other requests have changed the job's task since the change was checked, so it has to be checked again.
    #[error("other requests keep changing job \"{0}\"")]
    Outpaced(JobId),
    #[error("run \"{id}\" has ended: it is {state}")]
    RunEnded { id: String, state: &'static str },
    /// Only the file that declares the job can change it.
    #[error("job \"{id}\" is declared in a file (source \"{file}\"): change it there and reload")]
    DeclaredInFile {
        id: JobId,
        /// The source of that file.
        file: Arc<str>,
    },
    #[error("job \"{id}\" is {state}")]
    WrongState {
        id: JobId,
        /// The state, and why it does not allow the request.
        state: String,
    },
    #[error("job \"{id}\" has {max_instances} run(s) in flight, which is its max_instances")]
    Busy { id: JobId, max_instances: u32 },
    #[error("the queue of executor \"{0}\" is full")]
    QueueFull(String),
    /// The store could not be written. As far as is known, nothing has changed.
    #[error("{0}")]
    Unavailable(String),
    /// The database refuses a value of the request, and would refuse it again. Nothing has changed.
    #[error("the database refuses a value of this request: {0}")]
    Rejected(String),
    #[error("the daemon is stopping")]
    Stopping,
    /// A fault of the program.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

/// A request that waits for its answer.
#[derive(Debug)]
pub struct PendingRequest {
    pub request: Request,
    /// Receives the answer. A request is carried out even if nobody waits for it any more.
    pub reply: oneshot::Sender<Result<Response, RequestError>>,
}

impl PendingRequest {
    pub fn new(request: Request, reply: oneshot::Sender<Result<Response, RequestError>>) -> Self {
        Self { request, reply }
    }
}
