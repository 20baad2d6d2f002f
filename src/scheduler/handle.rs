//! How the doors reach the scheduler: requests go in through a bounded queue, each is answered
//! after it has been written, and the status is there to be looked at. Only this file knows the
//! answers as one enum: an answer of the wrong kind is an error for the caller.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::admission::Rules;
use super::pulse::Pulse;
use super::request::{
    Added, Addition, Difference, InvalidDeclaration, PendingRequest, Request, RequestError,
    Response,
};
use super::state::capacity::PoolUsage;
pub use super::step::correct::ClockCorrection;
use crate::clock::Timestamp;
use crate::job::{Job, JobId, JobState};
use crate::run::{Run, RunId};
pub use crate::store::Node;
use crate::store::{ATTEMPT_BYTES, Change, RUN_BYTES, RunPart};

/// Requests that wait for the scheduler. Beyond that, callers wait for a place.
pub const COMMAND_QUEUE: usize = 1024;

/// How a pool is used.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// Workers that run something.
    pub busy: usize,
    /// Workers.
    pub max_workers: usize,
    /// Runs that wait for a worker.
    pub waiting: usize,
    /// Runs that wait for their next attempt.
    pub retrying: usize,
    /// When the earliest of the runs that wait for a worker was due, if no worker is free.
    #[serde(skip)]
    pub waiting_since: Option<Timestamp>,
}

impl From<PoolUsage<'_>> for PoolStatus {
    fn from(usage: PoolUsage<'_>) -> Self {
        let PoolUsage { name, busy, max_workers, waiting, retrying, waiting_since } = usage;
        Self { name: name.to_owned(), busy, max_workers, waiting, retrying, waiting_since }
    }
}

/// What a process has written to its store since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteCounts {
    /// New rows.
    pub runs: u64,
    /// Bytes, by the estimate that the store makes of a row.
    pub bytes: u64,
    /// Changes of jobs that may have changed how many jobs there are in each state.
    pub jobs: u64,
}

impl WriteCounts {
    /// Counts what a commit has added.
    pub(super) fn count(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::InsertRun(_) => {
                    self.runs += 1;
                    self.bytes += RUN_BYTES;
                }
                Change::InsertAttempt(_) => self.bytes += ATTEMPT_BYTES,
                Change::PutOutput { output, .. } => {
                    let kept = u64::try_from(output.kept_bytes()).unwrap_or(u64::MAX);
                    self.bytes += ATTEMPT_BYTES + kept;
                }
                Change::InsertJob(_) | Change::UpdateJob(_) | Change::DeleteJob { .. } => {
                    self.jobs += 1;
                }
                Change::AdvanceJob(job) => {
                    self.jobs += u64::from(!matches!(job.state, JobState::Active { .. }));
                }
                Change::UpdateRun { .. }
                | Change::ExtendSkipped { .. }
                // It is counted with the end of its attempt.
                | Change::SavePartialOutput { .. }
                | Change::RecordTime(_)
                | Change::CancelJobRuns { .. }
                | Change::CancelRun { .. }
                | Change::SetPaused(_)
                | Change::Prune { .. } => {}
            }
        }
    }
}

/// How the scheduler stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Counts the steps: it changes whenever something may have changed.
    pub steps: u64,
    /// When the scheduler looks again of itself.
    pub next_wake: Option<Timestamp>,
    /// When the first of the jobs that this node knows of is due.
    pub next_due: Option<Timestamp>,
    /// Runs in flight.
    pub running: usize,
    /// Since when no job fires, if someone paused the scheduler.
    pub paused_since: Option<Timestamp>,
    /// The last correction of the clock that this process has found.
    pub clock: Option<ClockCorrection>,
    /// What this process has written to its store.
    pub written: WriteCounts,
    /// Why the store cannot be used, if the last step failed.
    pub store_error: Option<String>,
    /// Whether nothing is started any more.
    pub draining: bool,
    /// The pools.
    pub pools: Vec<PoolStatus>,
    /// The nodes on a store that nodes share, this one among them.
    pub nodes: Vec<Node>,
}

/// A way to ask the scheduler. Each method waits for its answer; `Ok` means that what was asked is on disk.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<PendingRequest>,
    status: watch::Receiver<Status>,
    pulse: Pulse,
}

/// How far the scheduler's loop is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delay {
    /// How late it is with the end of a step that has begun, or with waking up.
    pub late: Duration,
    /// How long it has been waiting for the store, if it is.
    pub store: Option<Duration>,
    /// How long it has not gone on although it did not wait for the store.
    pub stalled: Duration,
}

impl Handle {
    /// A handle to the scheduler that reads these commands and publishes this status.
    pub fn new(commands: mpsc::Sender<PendingRequest>, status: watch::Receiver<Status>) -> Self {
        Self { commands, status, pulse: Pulse::default() }
    }

    /// The same handle, to a scheduler that gives its signs of life here.
    #[must_use]
    pub fn with_pulse(self, pulse: Pulse) -> Self {
        Self { pulse, ..self }
    }

    /// Adds a job; gives it as it now is.
    pub async fn add(&self, addition: Addition) -> Result<Arc<Job>, RequestError> {
        self.ask(Request::Add(addition), job).await
    }

    /// Adds jobs in one transaction; says what became of each, in order.
    pub async fn add_all(
        &self,
        additions: Vec<Addition>,
    ) -> Result<Vec<Result<Added, RequestError>>, RequestError> {
        let count = additions.len();
        let all_of = |answer| {
            let Response::Added(added) = answer else { return None };
            Some(added).filter(|added| added.len() == count)
        };
        self.ask(Request::AddAll(additions), all_of).await
    }

    /// Removes a job; gives it as it was.
    pub async fn remove(&self, id: JobId) -> Result<Arc<Job>, RequestError> {
        self.ask(Request::Remove(id), job).await
    }

    /// Pauses a job.
    pub async fn pause(&self, id: JobId) -> Result<Arc<Job>, RequestError> {
        self.ask(Request::Pause(id), job).await
    }

    /// Resumes a job.
    pub async fn resume(&self, id: JobId) -> Result<Arc<Job>, RequestError> {
        self.ask(Request::Resume(id), job).await
    }

    /// Runs a job now, beside its schedule.
    pub async fn run(&self, id: JobId) -> Result<Arc<Run>, RequestError> {
        self.ask(Request::Run(id), run).await
    }

    /// Ends a run before it ends by itself.
    pub async fn cancel(
        &self,
        run_id: RunId,
        reason: Option<String>,
    ) -> Result<Arc<Run>, RequestError> {
        self.ask(Request::Cancel { run: run_id, reason }, run).await
    }

    /// Pauses the scheduler as a whole; says since when it is paused.
    pub async fn pause_all(&self) -> Result<Option<Timestamp>, RequestError> {
        self.ask(Request::PauseAll, paused).await
    }

    /// Resumes the scheduler as a whole; says since when it is paused, if it still is.
    pub async fn resume_all(&self) -> Result<Option<Timestamp>, RequestError> {
        self.ask(Request::ResumeAll, paused).await
    }

    /// Deletes parts of runs that have ended.
    pub async fn prune(
        &self,
        runs: Vec<RunId>,
        parts: &'static [RunPart],
    ) -> Result<(), RequestError> {
        self.ask(Request::Prune { runs, parts }, done).await
    }

    /// Removes those of these jobs that are finished and have no run in flight.
    pub async fn remove_finished(&self, ids: Vec<JobId>) -> Result<(), RequestError> {
        self.ask(Request::RemoveFinished(ids), done).await
    }

    /// Has jobs judged by these rules from now on.
    pub(super) async fn set_rules(&self, rules: Rules) -> Result<(), RequestError> {
        self.ask(Request::SetRules(Box::new(rules)), done).await
    }

    /// Has jobs that the file does not declare looked at again.
    pub(super) async fn review(&self, ids: Vec<JobId>) -> Result<Difference, RequestError> {
        self.ask(Request::Review(ids), difference).await
    }

    /// Makes jobs of the file what the file says.
    pub(super) async fn declare(&self, jobs: Vec<Job>) -> Result<Difference, RequestError> {
        self.ask(Request::Declare(jobs), difference).await
    }

    /// Breaks jobs of the file whose declarations are faulty.
    pub(super) async fn break_declared(
        &self,
        faults: Vec<InvalidDeclaration>,
    ) -> Result<(), RequestError> {
        self.ask(Request::BreakDeclared(faults), done).await
    }

    /// Lets a scheduler fire that was held until its declared jobs are known.
    pub async fn begin(&self) -> Result<(), RequestError> {
        self.ask(Request::Begin, done).await
    }

    /// Asks, and waits for an answer of the right kind.
    async fn ask<T>(
        &self,
        request: Request,
        expected: impl FnOnce(Response) -> Option<T>,
    ) -> Result<T, RequestError> {
        let (reply, answer) = oneshot::channel();
        let command = PendingRequest::new(request, reply);
        self.commands.send(command).await.map_err(|_| RequestError::Stopping)?;
        let answer = answer.await.map_err(|_| RequestError::Stopping)??;
        expected(answer)
            .ok_or(RequestError::Internal("the scheduler gave an answer of another kind"))
    }

    /// The status as of the last step.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// How far the loop is behind, as seen from outside of it: a loop that hangs cannot tell. None if it has ended.
    pub fn delay(&self, now: Timestamp, instant: Instant) -> Option<Delay> {
        // Only a scheduler that is gone has dropped its end.
        self.status.has_changed().ok()?;
        let busy = self.pulse.busy(instant);
        if busy.step > Duration::ZERO {
            return Some(Delay { late: busy.step, store: busy.store, stalled: busy.stalled });
        }
        let wake = self.status.borrow().next_wake;
        let overdue = wake.map(|wake| now.signed_duration_since(wake));
        let late = overdue.and_then(|overdue| overdue.to_std().ok()).unwrap_or_default();
        Some(Delay { late, store: None, stalled: late })
    }

    /// A receiver that changes with every step.
    pub fn steps(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }
}

fn job(answer: Response) -> Option<Arc<Job>> {
    if let Response::Job(job) = answer { Some(job) } else { None }
}

fn run(answer: Response) -> Option<Arc<Run>> {
    if let Response::Run(run) = answer { Some(run) } else { None }
}

#[expect(
    clippy::option_option,
    clippy::needless_pass_by_value,
    reason = "the shape that `ask` takes: none for an answer of another kind"
)]
fn paused(answer: Response) -> Option<Option<Timestamp>> {
    if let Response::Paused(since) = answer { Some(since) } else { None }
}

fn difference(answer: Response) -> Option<Difference> {
    if let Response::Difference(difference) = answer { Some(difference) } else { None }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that `ask` takes")]
fn done(answer: Response) -> Option<()> {
    matches!(answer, Response::Done).then_some(())
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;

    /// A scheduler that gives this answer to whatever it is asked.
    fn answering(answer: Response) -> Handle {
        let (commands_in, mut commands) = mpsc::channel::<PendingRequest>(1);
        TaskTracker::new().spawn(async move {
            while let Some(PendingRequest { reply, .. }) = commands.recv().await {
                drop(reply.send(Ok(answer.clone())));
            }
        });
        Handle::new(commands_in, watch::channel(Status::default()).1)
    }

    #[tokio::test]
    async fn a_loop_is_late_with_a_step_and_with_waking_up_and_is_gone_when_it_has_ended() {
        let (status_in, status) = watch::channel(Status::default());
        let pulse = Pulse::default();
        let handle = Handle::new(mpsc::channel(1).0, status).with_pulse(pulse.clone());
        let at = |second| Timestamp::from_timestamp(1_800_000_000 + second, 0).unwrap();
        let (begin, seconds) = (Instant::now(), Duration::from_secs);
        let delay = |second: u64| {
            let now = at(i64::try_from(second).unwrap());
            let delay = handle.delay(now, begin + seconds(second)).unwrap();
            (delay.late.as_secs(), delay.stalled.as_secs())
        };
        assert_eq!(delay(1000), (0, 0), "it has nothing to wake up for");
        status_in.send_modify(|status| status.next_wake = Some(at(10)));
        assert_eq!([delay(5), delay(10), delay(17)], [(0, 0), (0, 0), (7, 7)]);
        pulse.step_begins(begin + seconds(16));
        assert_eq!(
            [delay(17), delay(26)],
            [(1, 1), (10, 10)],
            "it has_new_due up late, and is at it"
        );
        let mut call = std::pin::pin!(pulse.store_call(std::future::pending::<()>()));
        assert!(tokio::time::timeout(Duration::ZERO, call.as_mut()).await.is_err());
        assert_eq!(delay(26), (10, 0), "it waits for the store");
        drop(status_in);
        assert_eq!(handle.delay(at(0), begin), None);
    }

    #[tokio::test]
    async fn an_answer_of_another_kind_is_an_error_and_never_an_empty_success() {
        let is_internal = |refusal| matches!(refusal, Some(RequestError::Internal(_)));
        let id = || JobId::parse("a").unwrap();
        let handle = answering(Response::Done);
        assert!(is_internal(handle.add_all(Vec::new()).await.err()));
        assert!(is_internal(handle.remove(id()).await.err()));
        assert!(is_internal(handle.pause(id()).await.err()));
        assert!(is_internal(handle.resume(id()).await.err()));
        assert!(is_internal(handle.run(id()).await.err()));
        assert!(is_internal(handle.cancel(RunId("r".into()), None).await.err()));
        assert!(is_internal(handle.pause_all().await.err()));
        assert!(is_internal(handle.resume_all().await.err()));
        assert!(is_internal(handle.review(Vec::new()).await.err()));
        assert!(is_internal(handle.declare(Vec::new()).await.err()));
        assert!(handle.begin().await.is_ok(), "that one is right");
        let handle = answering(Response::Paused(None));
        assert!(is_internal(handle.prune(Vec::new(), &[]).await.err()));
        assert!(is_internal(handle.remove_finished(Vec::new()).await.err()));
        assert!(is_internal(handle.begin().await.err()));
        let handle = answering(Response::Added(vec![Ok(Added::New)]));
        assert!(is_internal(handle.add_all(Vec::new()).await.err()), "one more than was asked");
    }
}
