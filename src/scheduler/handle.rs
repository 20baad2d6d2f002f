//! How clients of the scheduler reach it: requests go in through a bounded queue, each is answered after it has been written,
//! and the status can be read at any time. Only this file matches [`Response`]: a response of the wrong kind is an error.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::pulse::Pulse;
use super::request::{
    Added, Addition, BulkAction, BulkTally, Difference, InvalidDeclaration, Modification, Modified,
    PendingRequest, Precondition, Request, RequestError, Response,
};
pub use super::status::{ClockCorrection, PoolStatus, Status, WriteCounts};
use crate::clock::Timestamp;
use crate::filter::JobConditions;
use crate::job::admission::Rules;
use crate::job::{Job, JobId, Pause, PauseTerms};
use crate::run::{Run, RunId};
pub use crate::store::Node;
use crate::store::RunPart;

/// Most requests that wait for the scheduler. Further callers wait until the queue takes their request.
pub const REQUEST_QUEUE: usize = 1024;

/// Takes the value out of a response of this kind, or returns `None` for another kind.
macro_rules! expect {
    ($kind:path) => {
        |response| match response {
            $kind(value) => Some(value),
            _ => None,
        }
    };
}

/// Sends requests to the scheduler. Each method waits for the answer; `Ok` means that the change is on disk.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<PendingRequest>,
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
    /// Creates a handle to the scheduler that receives these requests and publishes this status.
    pub fn new(requests: mpsc::Sender<PendingRequest>, status: watch::Receiver<Status>) -> Self {
        Self { requests, status, pulse: Pulse::default() }
    }

    /// The same handle, to a scheduler that marks its progress in this pulse.
    #[must_use]
    pub fn with_pulse(self, pulse: Pulse) -> Self {
        Self { pulse, ..self }
    }

    /// Adds a job. Returns it as it now is.
    pub async fn add(&self, addition: Addition) -> Result<Arc<Job>, RequestError> {
        self.ask(Request::Add(addition), expect!(Response::Job)).await
    }

    /// Adds jobs in one transaction. Returns the result of each, in order.
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

    /// Changes the definition of a job. Returns it as it was and as it now is; of a dry run, as it would be.
    pub async fn modify(&self, modification: Modification) -> Result<Modified, RequestError> {
        let modified = |response| match response {
            Response::Modified(modified) | Response::WouldModify(modified) => Some(modified),
            _ => None,
        };
        self.ask(Request::Modify(modification), modified).await
    }

    /// Removes a job. Returns it as it was.
    pub async fn remove(
        &self,
        id: JobId,
        precondition: Precondition,
    ) -> Result<Arc<Job>, RequestError> {
        let request = only_if(precondition, id, Request::Remove);
        self.ask(request, expect!(Response::Removed)).await
    }

    pub async fn pause(
        &self,
        id: JobId,
        terms: PauseTerms,
        precondition: Precondition,
    ) -> Result<Arc<Job>, RequestError> {
        let request = only_if(precondition, id, |id| Request::Pause(id, terms));
        self.ask(request, expect!(Response::Job)).await
    }

    pub async fn resume(
        &self,
        id: JobId,
        precondition: Precondition,
    ) -> Result<Arc<Job>, RequestError> {
        self.ask(only_if(precondition, id, Request::Resume), expect!(Response::Job)).await
    }

    /// Does the same to those of the jobs that meet the conditions, in one transaction.
    pub(super) async fn act_on_all(
        &self,
        action: BulkAction,
        ids: Vec<JobId>,
        conditions: Arc<JobConditions>,
    ) -> Result<BulkTally, RequestError> {
        self.ask(Request::Bulk { action, ids, conditions }, expect!(Response::Bulk)).await
    }

    /// Runs a job now, in addition to its schedule.
    pub async fn run(&self, id: JobId) -> Result<Arc<Run>, RequestError> {
        self.ask(Request::Run(id), expect!(Response::Run)).await
    }

    pub async fn cancel(
        &self,
        run_id: RunId,
        reason: Option<String>,
    ) -> Result<Arc<Run>, RequestError> {
        self.ask(Request::Cancel { run: run_id, reason }, expect!(Response::Run)).await
    }

    /// Pauses the scheduler as a whole. Returns its pause.
    pub async fn pause_all(&self, terms: PauseTerms) -> Result<Option<Arc<Pause>>, RequestError> {
        self.ask(Request::PauseAll(terms), expect!(Response::Paused)).await
    }

    /// Resumes the scheduler as a whole. Returns its pause, if it still has one.
    pub async fn resume_all(&self) -> Result<Option<Arc<Pause>>, RequestError> {
        self.ask(Request::ResumeAll, expect!(Response::Paused)).await
    }

    /// Deletes parts of runs that have ended.
    pub async fn prune(
        &self,
        runs: Vec<RunId>,
        parts: &'static [RunPart],
    ) -> Result<(), RequestError> {
        self.ask_done(Request::Prune { runs, parts }).await
    }

    /// Removes those of the jobs that are finished and have no run in flight.
    pub async fn remove_finished(&self, ids: Vec<JobId>) -> Result<(), RequestError> {
        self.ask_done(Request::RemoveFinished(ids)).await
    }

    /// Replaces the rules that jobs are checked against.
    pub(super) async fn set_rules(&self, rules: Rules) -> Result<(), RequestError> {
        self.ask_done(Request::SetRules(Box::new(rules))).await
    }

    /// Checks jobs that the file does not declare again.
    pub(super) async fn review(&self, ids: Vec<JobId>) -> Result<Difference, RequestError> {
        self.ask(Request::Review(ids), expect!(Response::Difference)).await
    }

    /// Defines jobs as the file declares them.
    pub(super) async fn declare(&self, jobs: Vec<Job>) -> Result<Difference, RequestError> {
        self.ask(Request::Declare(jobs), expect!(Response::Difference)).await
    }

    /// Breaks jobs of the file whose declarations are invalid.
    pub(super) async fn break_declared(
        &self,
        faults: Vec<InvalidDeclaration>,
    ) -> Result<(), RequestError> {
        self.ask_done(Request::BreakDeclared(faults)).await
    }

    /// Lets a scheduler fire that was held until the jobs of the file are declared.
    pub async fn begin(&self) -> Result<(), RequestError> {
        self.ask_done(Request::Begin).await
    }

    /// Sends a request, and waits for a response of the expected kind.
    async fn ask<T>(
        &self,
        request: Request,
        expected: impl FnOnce(Response) -> Option<T>,
    ) -> Result<T, RequestError> {
        let (reply, answer) = oneshot::channel();
        let pending = PendingRequest::new(request, reply);
        self.requests.send(pending).await.map_err(|_| RequestError::Stopping)?;
        let answer = answer.await.map_err(|_| RequestError::Stopping)??;
        expected(answer)
            .ok_or(RequestError::Internal("the scheduler gave an answer of another kind"))
    }

    async fn ask_done(&self, request: Request) -> Result<(), RequestError> {
        self.ask(request, |response| matches!(response, Response::Done).then_some(())).await
    }

    /// The status as of the last step.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// How far the loop is behind, as seen from outside, because a loop that hangs cannot report it. `None` if it has ended.
    pub fn delay(&self, now: Timestamp, instant: Instant) -> Option<Delay> {
        // The channel is closed only if the scheduler has ended.
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

    /// Follows the status, which changes with every step.
    pub fn steps(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }
}

/// A request about a job, if it has to have a certain version.
fn only_if(
    precondition: Precondition,
    id: JobId,
    request: impl FnOnce(JobId) -> Request,
) -> Request {
    match precondition {
        Precondition::None => request(id),
        Precondition::OneOf(_) => {
            let job = id.clone();
            Request::IfVersion { job, precondition, request: Box::new(request(id)) }
        }
    }
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
        assert_eq!([delay(17), delay(26)], [(1, 1), (10, 10)], "it woke up late, and is at it");
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
        let any = || Precondition::None;
        let handle = answering(Response::Done);
        assert!(is_internal(handle.add_all(Vec::new()).await.err()));
        assert!(is_internal(handle.remove(id(), any()).await.err()));
        let terms = PauseTerms::default();
        assert!(is_internal(handle.pause(id(), terms.clone(), any()).await.err()));
        assert!(is_internal(handle.resume(id(), any()).await.err()));
        assert!(is_internal(handle.run(id()).await.err()));
        assert!(is_internal(handle.cancel(RunId("r".into()), None).await.err()));
        assert!(is_internal(handle.pause_all(PauseTerms::default()).await.err()));
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
