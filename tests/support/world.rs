//! A world for the scheduler: a store that can fail, an executor that only notes, a crash.

use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use punctual::clock::{SystemClock, Timestamp};
use punctual::executor::{
    Assignment, Completion, ExecutorKind, Heartbeat, HeartbeatEvent, PoolSettings, Saving,
};
use punctual::filter::RunFilter;
use punctual::job::admission::Rules;
use punctual::job::{Job, JobId};
use punctual::output::{Line, Output, Stream};
use punctual::run::{Attempt, Cost, Execution, Outcome, Run, RunId, RunState};
use punctual::scheduler::declare::{Declaration, Occasion, declare};
use punctual::scheduler::handle::{Handle, REQUEST_QUEUE};
use punctual::scheduler::request::{
    Addition, Difference, Existing, PendingRequest, Request, RequestError, Response,
};
use punctual::scheduler::serve::{Drain, LoopInputs, serve};
use punctual::scheduler::{NodeIdentity, Scheduler};
use punctual::store::{Archive, Change, Store, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::executor::{Fake, FakeExecutor};
use crate::jobs::{at, rules};
use crate::store::MemoryStore;
use crate::store::faulty::{Fault, Faults, FaultyStore};
use crate::store::layered::Layered;

/// An output that a run has written so far.
type Unsaved = (Execution, Arc<Output>);

/// What was handed over, in order.
#[derive(Debug, Clone, Default)]
struct Notes {
    /// Every start, with the row as the store had it at that moment.
    starts: Arc<Mutex<Vec<(Assignment, Run)>>>,
    /// Starts that have no completion yet.
    open: Arc<Mutex<Vec<Assignment>>>,
    /// Every heartbeat.
    beats: Arc<Mutex<Vec<Heartbeat>>>,
    /// What runs in progress have written and is not saved.
    unsaved: Arc<Mutex<Vec<Unsaved>>>,
    /// Every cancel, with its reason.
    cancels: Arc<Mutex<Vec<(RunId, String)>>>,
}

/// An executor that only notes what it is given.
pub type NotingExecutor = FakeExecutor<Noting>;

#[derive(Debug)]
pub struct Noting {
    notes: Notes,
    store: MemoryStore,
}

impl Fake for Noting {
    fn start(&mut self, _: &str, assignment: Assignment) {
        let id = assignment.run_id.clone();
        let mut reading = std::pin::pin!(self.store.run(&id.0));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let std::task::Poll::Ready(Ok(Some(row))) = reading.as_mut().poll(&mut context) else {
            panic!("started without a row in the ledger: {assignment:?}");
        };
        self.notes.starts.lock().unwrap().push((assignment.clone(), row));
        self.notes.open.lock().unwrap().push(assignment);
    }

    fn cancel(&mut self, run_id: &RunId, reason: &str) {
        self.notes.cancels.lock().unwrap().push((run_id.clone(), reason.to_owned()));
    }

    fn unsaved_outputs(&mut self) -> Vec<(Execution, Arc<Output>)> {
        self.notes.unsaved.lock().unwrap().clone()
    }

    fn output_saved(&mut self, execution: &Execution, output: &Output) {
        let mut unsaved = self.notes.unsaved.lock().unwrap();
        unsaved.retain(|(of, unsaved)| of != execution || unsaved.bytes > output.bytes);
    }

    fn send_heartbeat(&mut self, beat: Heartbeat) {
        self.notes.beats.lock().unwrap().push(beat);
    }
}

/// A scheduler whose loop runs.
pub struct Served {
    pub handle: Handle,
    store: FaultyStore,
    shutdown: CancellationToken,
    inlets: (mpsc::Sender<Completion>, mpsc::Sender<()>),
    ended: tokio::task::JoinHandle<()>,
}

impl Served {
    /// Has jobs declared, as a start or a reload does.
    pub async fn declare(&self, jobs: Vec<Job>) -> Difference {
        let store = &self.store.0.inner;
        let declaration = Declaration { jobs, ..Declaration::default() };
        let declared = declare(&self.handle, store, rules(1), declaration, Occasion::Reload).await;
        declared.unwrap().difference
    }

    /// How many jobs each commit since the last look has written.
    pub fn jobs_per_commit(&self) -> Vec<usize> {
        std::mem::take(&mut *self.store.0.commits.lock().unwrap())
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.ended.await.unwrap();
        drop(self.inlets);
    }
}

/// A scheduler and everything around it.
pub struct World {
    store: FaultyStore,
    notes: Notes,
    workers: usize,
    processes: u64,
    scheduler: Scheduler<FaultyStore, NotingExecutor>,
    completions: Vec<Completion>,
}

impl World {
    /// A world with one pool of this many workers.
    pub async fn new(workers: usize) -> Self {
        let (store, notes) = (FaultyStore::default(), Notes::default());
        let scheduler = Self::scheduler(&store, &notes, workers, 0);
        let mut world =
            Self { store, notes, workers, scheduler, processes: 1, completions: Vec::new() };
        world.tick(at(0)).await;
        world
    }

    /// A world whose pool takes short runs before a worker is free for them.
    pub async fn of_threads(workers: usize) -> Self {
        let mut world = Self::new(workers).await;
        let mut rules = rules(workers);
        let threads = PoolSettings { kind: ExecutorKind::ThreadPool, max_workers: workers };
        rules.executors.insert("default".to_owned(), threads);
        let executor =
            FakeExecutor(Noting { notes: world.notes.clone(), store: world.store.0.inner.clone() });
        let lease = TimeDelta::seconds(10);
        let identity = NodeIdentity { node: "threads".into(), started_at: at(0), seed: 99, lease };
        world.scheduler = Scheduler::new(world.store.clone(), executor, rules, identity);
        world.tick(at(0)).await;
        world
    }

    /// A node on a store that several share, with a number that no other one has.
    pub async fn join(store: &MemoryStore, number: u64, workers: usize, now: Timestamp) -> Self {
        let store = Layered(Faults { inner: store.clone(), ..Faults::default() });
        let notes = Notes::default();
        let scheduler = Self::scheduler(&store, &notes, workers, number);
        let (processes, completions) = (number + 1, Vec::new());
        let mut world = Self { store, notes, workers, processes, scheduler, completions };
        world.scheduler.recover(now, "its node is gone").await.unwrap();
        world.tick(now).await;
        world
    }

    /// Each process has a seed of its own, so that its run ids are its own.
    fn scheduler(
        store: &FaultyStore,
        notes: &Notes,
        workers: usize,
        seed: u64,
    ) -> Scheduler<FaultyStore, NotingExecutor> {
        let executor = FakeExecutor(Noting { notes: notes.clone(), store: store.0.inner.clone() });
        let identity = NodeIdentity {
            node: format!("node-{seed}").into(),
            started_at: at(0),
            seed,
            lease: TimeDelta::seconds(10),
        };
        Scheduler::new(store.clone(), executor, rules(workers), identity)
    }

    pub async fn try_tick(&mut self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let completions = std::mem::take(&mut self.completions);
        self.scheduler.tick(now, Vec::new(), completions).await
    }

    pub async fn tick(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.try_tick(now).await.unwrap()
    }

    pub async fn ask_all(
        &mut self,
        requests: Vec<Request>,
        now: Timestamp,
    ) -> Vec<Result<Response, RequestError>> {
        let (commands, answers) = asked(requests);
        // The answers show a failure.
        drop(self.scheduler.tick(now, commands, Vec::new()).await);
        answered(answers)
    }

    /// The same, over as many steps as are made at once.
    pub async fn ask_all_on(
        &mut self,
        requests: Vec<Request>,
        now: Timestamp,
    ) -> Vec<Result<Response, RequestError>> {
        let (commands, answers) = asked(requests);
        let completions = std::mem::take(&mut self.completions);
        self.scheduler.tick(now, commands, completions).await.unwrap();
        self.tick_on(now).await;
        answered(answers)
    }

    pub async fn ask(
        &mut self,
        request: Request,
        now: Timestamp,
    ) -> Result<Response, RequestError> {
        self.ask_all(vec![request], now).await.remove(0)
    }

    pub async fn add(&mut self, job: Job, now: Timestamp) -> JobId {
        let id = job.id.clone();
        self.ask(Request::Add(Addition { job: Box::new(job), existing: Existing::Refuse }), now)
            .await
            .unwrap();
        id
    }

    /// Puts a job into the store as an earlier version has left it there.
    pub async fn insert(&mut self, job: Job) {
        let job = Arc::new(Job { revision: 1, ..job });
        self.store.0.inner.commit(vec![Change::InsertJob(job)]).await.unwrap();
    }

    pub async fn remove(&mut self, id: &str, now: Timestamp) {
        self.ask(Request::Remove(JobId::parse(id).unwrap()), now).await.unwrap();
    }

    pub async fn reload(&mut self, jobs: Vec<Job>, now: Timestamp) -> Difference {
        self.try_reload(rules(self.workers), jobs, now).await.unwrap()
    }

    /// A reload under these rules, in one step.
    pub async fn try_reload(
        &mut self,
        rules: Rules,
        jobs: Vec<Job>,
        now: Timestamp,
    ) -> Result<Difference, RequestError> {
        self.try_reload_but(rules, jobs, &[], now).await
    }

    /// The same, where these jobs are in the file, too, and are faulty.
    pub async fn try_reload_but(
        &mut self,
        rules: Rules,
        jobs: Vec<Job>,
        faulty: &[JobId],
        now: Timestamp,
    ) -> Result<Difference, RequestError> {
        let executors: Vec<String> = rules.executors.keys().cloned().collect();
        let mut others =
            self.store.0.inner.jobs_to_review(&executors, "", usize::MAX).await.unwrap();
        others.retain(|other| {
            !faulty.contains(&other.id) && jobs.iter().all(|job| job.id != other.id)
        });
        let others = others.into_iter().map(|other| other.id).collect();
        let requests = vec![
            Request::SetRules(Box::new(rules)),
            Request::Review(others),
            Request::Declare(jobs),
        ];
        let mut sum = Difference::default();
        for answer in self.ask_all(requests, now).await {
            let Response::Difference(Difference { added, changed, removed, unchanged, conflicts }) =
                answer?
            else {
                continue;
            };
            sum.added.extend(added);
            sum.changed.extend(changed);
            sum.removed.extend(removed);
            sum.unchanged += unchanged;
            sum.conflicts.extend(conflicts);
        }
        Ok(sum)
    }

    /// A reload under rules whose pool has this many workers.
    pub async fn resize(&mut self, workers: usize, now: Timestamp) {
        self.workers = workers;
        self.reload(Vec::new(), now).await;
    }

    /// A reload under rules that know no pool.
    pub async fn without_pools(&mut self, now: Timestamp) {
        let mut rules = rules(self.workers);
        rules.executors.clear();
        self.try_reload(rules, Vec::new(), now).await.unwrap();
    }

    /// A reload under rules that know no builtin.
    pub async fn without_builtins(&mut self, now: Timestamp) {
        let mut rules = rules(self.workers);
        rules.builtins = Arc::new(punctual::task::builtin::Registry::default());
        self.try_reload(rules, Vec::new(), now).await.unwrap();
    }

    /// Nothing fires until it is asked to begin.
    pub fn hold(&mut self) {
        self.scheduler.hold();
    }

    /// Gives the scheduler to a loop of its own, which runs until the token is cancelled.
    pub fn serve(self) -> Served {
        let (commands_in, commands) = mpsc::channel(REQUEST_QUEUE);
        let handle = Handle::new(commands_in, self.scheduler.status());
        let (completions_in, completions) = mpsc::channel(1);
        let (hints_in, hints) = mpsc::channel(1);
        let shutdown = CancellationToken::new();
        let (_, outputs) = mpsc::channel(1);
        let shutdown_out = shutdown.clone();
        let inlets =
            LoopInputs { requests: commands, completions, hints, outputs, shutdown: shutdown_out };
        let drain = Drain { limit: std::time::Duration::ZERO, hurry: CancellationToken::new() };
        let serving = serve(self.scheduler, SystemClock, inlets, drain);
        Served {
            handle,
            store: self.store,
            shutdown,
            inlets: (completions_in, hints_in),
            ended: TaskTracker::new().spawn(async move { drop(serving.await) }),
        }
    }

    pub fn drain(&mut self) {
        self.scheduler.drain();
    }

    /// Takes leave of the other nodes.
    pub async fn leave(&mut self, now: Timestamp) {
        self.scheduler.leave(now).await.unwrap();
    }

    /// Ticks until it does not ask to go on at once.
    pub async fn tick_on(&mut self, now: Timestamp) -> Option<Timestamp> {
        let mut next = self.tick(now).await;
        while next.is_some_and(|next| next <= now) {
            next = self.tick(now).await;
        }
        next
    }

    /// What the last of the open runs writes is to be saved by the next step.
    pub fn write_output(&mut self, text: &str) {
        let execution = self.notes.open.lock().unwrap().last().unwrap().execution();
        let line =
            Line { at: at(0), stream: Stream::Stdout, text: text.to_owned(), is_open: false };
        let bytes = u64::try_from(text.len()).unwrap();
        let output = Output { head: [line].into_iter().collect(), bytes, ..Output::default() };
        self.notes.unsaved.lock().unwrap().push((execution, Arc::new(output)));
        self.save_outputs();
    }

    /// The next step saves what is not saved yet.
    pub fn save_outputs(&mut self) {
        self.scheduler.save_outputs(Saving::Due);
    }

    /// How many outputs are not saved yet.
    pub fn unsaved(&self) -> usize {
        self.notes.unsaved.lock().unwrap().len()
    }

    /// From now on the store refuses every write, and every read of a run, that has this text in it.
    pub fn refuse_text(&mut self, text: &str) {
        *self.store.0.refused.lock().unwrap() = Some(text.to_owned());
    }

    pub fn fail_next(&mut self, fault: Fault) {
        *self.store.0.fault.lock().unwrap() = Some(fault);
    }

    /// The process dies, and another one comes up on the same store.
    pub async fn crash(&mut self, now: Timestamp) {
        self.notes.open.lock().unwrap().clear();
        self.completions.clear();
        self.scheduler = Self::scheduler(&self.store, &self.notes, self.workers, self.processes);
        self.processes += 1;
        // A start that fails is a start again.
        while self.scheduler.recover(now, "crashed").await.is_err() {}
    }

    /// A stop that does not wait for runs, and another process.
    pub async fn restart(&mut self, now: Timestamp) {
        self.scheduler.drain();
        self.notes.open.lock().unwrap().clear();
        let completions = std::mem::take(&mut self.completions);
        self.scheduler.finish(now, completions).await.unwrap();
        self.crash(now).await;
    }

    /// Everything that was started succeeds, and each completion is reported twice.
    pub fn complete_all_twice(&mut self, now: Timestamp) {
        let open = self.notes.open.lock().unwrap().clone();
        self.complete_all(now);
        *self.notes.open.lock().unwrap() = open;
        self.complete_all(now);
    }

    /// Everything that was started ends well.
    pub fn complete_all(&mut self, now: Timestamp) {
        for assignment in self.notes.open.lock().unwrap().drain(..) {
            self.completions.push(Completion {
                attempt: assignment.attempt,
                run_id: assignment.run_id,
                started_at: now,
                finished_at: now,
                outcome: Outcome::Succeeded { result: None, exit_code: None },
                cost: Cost::default(),
                output: Arc::default(),
            });
        }
    }

    pub async fn finish_all(&mut self, now: Timestamp) {
        self.complete_all(now);
        self.tick(now).await;
    }

    /// Jobs whose runs were started and have not ended.
    pub fn started(&self) -> Vec<String> {
        self.notes
            .open
            .lock()
            .unwrap()
            .iter()
            .map(|assignment| assignment.job_id.to_string())
            .collect()
    }

    /// Every start so far, as job and attempt.
    pub fn starts_with_attempts(&self) -> Vec<String> {
        let starts = self.notes.starts.lock().unwrap();
        starts
            .iter()
            .map(|(assignment, _)| format!("{} {}", assignment.job_id, assignment.attempt))
            .collect()
    }

    /// The ledger's rows as they were at the moment of each start.
    pub fn rows_at_start(&self) -> Vec<String> {
        let starts = self.notes.starts.lock().unwrap();
        starts.iter().map(|(_, row)| format!("{} {}", row.job_id, show(row))).collect()
    }

    /// How the scheduler stands.
    pub fn status(&self) -> punctual::scheduler::handle::Status {
        self.scheduler.status().borrow().clone()
    }

    pub async fn job(&self, id: &str) -> Option<Job> {
        Archive::job(&self.store.0.inner, id).await.unwrap()
    }

    /// The rows of a job, the oldest first.
    pub async fn runs(&self, id: &str) -> Vec<Run> {
        let filter =
            RunFilter { job_id: Some(id.to_owned()), limit: 100_000, ..RunFilter::default() };
        let mut runs = self.store.0.inner.runs(&filter).await.unwrap().rows;
        runs.reverse();
        runs
    }

    /// The attempts of a run before its last one.
    pub async fn attempts(&self, id: &RunId) -> Vec<Attempt> {
        self.store.0.inner.attempts(&id.0).await.unwrap()
    }

    /// The rows of a job, the oldest first, in a few words each.
    pub async fn ledger(&self, id: &str) -> Vec<String> {
        self.runs(id).await.iter().map(show).collect()
    }

    /// Every start so far: what was handed over, and the row that the ledger had for it then.
    pub fn starts(&self) -> Vec<(Assignment, Run)> {
        self.notes.starts.lock().unwrap().clone()
    }

    /// Every heartbeat so far: its event and its text.
    pub fn beats(&self) -> Vec<(HeartbeatEvent, String)> {
        let beats = self.notes.beats.lock().unwrap();
        beats.iter().map(|beat| (beat.event, beat.body.clone())).collect()
    }

    /// Every cancel so far, with its reason. It ends nothing: that is up to `complete`.
    pub fn cancels(&self) -> Vec<(RunId, String)> {
        self.notes.cancels.lock().unwrap().clone()
    }

    /// Ends the nth of the runs that were started, well or not.
    pub fn complete(&mut self, number: usize, now: Timestamp, outcome: Outcome) {
        let mut open = self.notes.open.lock().unwrap();
        if number < open.len() {
            let Assignment { run_id, attempt, .. } = open.remove(number);
            self.completions.push(Completion {
                run_id,
                attempt,
                started_at: now,
                finished_at: now,
                outcome,
                cost: Cost::default(),
                output: Arc::default(),
            });
        }
    }
}

fn show(run: &Run) -> String {
    let second = |instant: Timestamp| instant.signed_duration_since(at(0)).num_seconds();
    let scheduled = run.scheduled_at.map_or_else(|| "-".to_owned(), |at| second(at).to_string());
    match &run.state {
        RunState::Skipped { reason, count: 1, .. } => format!("{scheduled} {}", reason.word()),
        RunState::Skipped { reason, last_scheduled_at, count } => {
            format!("{scheduled}..{} {} {count}", second(*last_scheduled_at), reason.word())
        }
        state @ (RunState::Pending | RunState::Running { .. } | RunState::Ended { .. }) => {
            format!("{scheduled} {}", state.word())
        }
    }
}

type Reply = Result<Response, RequestError>;

/// Requests as commands, and where their answers will be.
fn asked(requests: Vec<Request>) -> (Vec<PendingRequest>, Vec<oneshot::Receiver<Reply>>) {
    let command = |request| {
        let (reply, answer) = oneshot::channel();
        (PendingRequest::new(request, reply), answer)
    };
    requests.into_iter().map(command).unzip()
}

fn answered(answers: Vec<oneshot::Receiver<Reply>>) -> Vec<Reply> {
    answers.into_iter().map(|mut answer| answer.try_recv().unwrap()).collect()
}
