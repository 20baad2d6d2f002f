//! The task that looks after one worker process: it starts it, gives it one run after the other, and tells the pool's
//! desk when it is gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::death;
use super::line::Broken;
use super::remote::Worker;
use crate::clock::Timestamp;
use crate::executor::Completion;
use crate::executor::process::{Desk, Failure, Next, Seat, Work};
use crate::executor::report::failed;
use crate::executor::shortage::is_shortage;
use crate::output::Stream;
use crate::run::Outcome;
use crate::task::log::Log;

/// First pause after a start has failed for which no run waited, doubled up to the last one.
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
const BACK_OFF_LAST: Duration = Duration::from_mins(1);
/// The longest pause while the system has no place for a process, for which runs may wait.
const BACK_OFF_SHORTAGE: Duration = Duration::from_secs(5);

/// Why a worker process was not started.
#[derive(Debug)]
pub(in crate::executor) struct StartError {
    pub(in crate::executor) why: String,
    /// Whether the system had no place for it, which is not the fault of the program.
    pub(in crate::executor) is_shortage: bool,
}

/// What the desk tells a worker that is idle.
#[derive(Debug)]
pub(in crate::executor) enum Order {
    Work(Box<Work>),
    Leave,
}

/// A worker's life. Its desk counts it from its beginning to its end.
pub(in crate::executor) async fn keep(desk: Arc<Desk>, number: u64) {
    let Some(mut worker) = start(&desk).await else { return };
    desk.started();
    let (sender, mut orders) = mpsc::channel(1);
    let seat = Seat { number, orders: sender };
    let mut next = desk.next(&seat);
    loop {
        let work = match next {
            Next::Work(work) => work,
            Next::Wait => match wait(&desk, &mut worker, &seat, &mut orders).await {
                Waited::Work(work) => work,
                Waited::Over => return worker.dismiss().await,
                Waited::Broken(broken, unread) => {
                    let death = worker.end(|_, _| ()).await;
                    let how = death::words(&broken, &death.status);
                    tracing::debug!(how, "an idle worker process is gone");
                    return desk.gone(unread.map(|work| *work));
                }
            },
            Next::Leave => return worker.dismiss().await,
        };
        let started_at = desk.shared.clock.now();
        let completion = match execute(&desk, &mut worker, &work, started_at).await {
            Ok(completion) => completion,
            Err(broken) => return bury(&desk, worker, (*work, started_at), broken).await,
        };
        // It is free before anyone hears of it who may have another run for it.
        next = desk.next(&seat);
        desk.shared.tell(completion).await;
    }
}

/// Has a worker execute a run. An error means that the worker is of no more use.
async fn execute(
    desk: &Desk,
    worker: &mut Worker,
    work: &Work,
    started_at: Timestamp,
) -> Result<Option<Completion>, Broken> {
    let (shared, Work { assignment, context, .. }) = (&desk.shared, work);
    let ended = if let Some(ending) = context.cancellation.ending() {
        Outcome::from(ending).into()
    } else {
        let _limit = shared.limit(assignment.timeout, context);
        worker.call(assignment, context, &shared.clock).await?
    };
    Ok(shared.completion(assignment, context, started_at, ended))
}

/// Ends a worker that broke off, and its run with it; but a run of which it has certainly seen nothing, or no more
/// than a part, waits for another worker, once.
async fn bury(
    desk: &Arc<Desk>,
    worker: Worker,
    (mut work, started_at): (Work, Timestamp),
    broken: Broken,
) {
    let (shared, log) = (&desk.shared, &work.context.log);
    let death = worker.end(|stream, bytes| log.write(shared.clock.now(), stream, bytes)).await;
    let is_unread = matches!(broken, Broken::EndedUnread) || death.left_unread;
    if is_unread && !work.was_sent && !matches!(broken, Broken::Asked(_)) {
        work.was_sent = true;
        return desk.gone(Some(work));
    }
    let outcome = death::outcome(broken, &death.status);
    tracing::warn!(run = %work.assignment.run_id.0, ?outcome, "a worker process is gone with its run");
    desk.gone(None);
    shared.report(&work.assignment, &work.context, started_at, outcome.into()).await;
}

/// Starts a worker, again and again if it has to be. None if it is not wanted any more.
async fn start(desk: &Arc<Desk>) -> Option<Worker> {
    let mut back_off = BACK_OFF_FIRST;
    loop {
        let error = match try_to_start(desk).await {
            Ok(worker) => return Some(worker),
            Err(error) => error,
        };
        match desk.start_failed(&error) {
            Failure::GiveUp => return None,
            Failure::TryAgain => continue,
            Failure::Refuse(work) => {
                let error = format!("a worker process could not be started: {}", error.why);
                desk.refuse(*work, failed(error)).await;
                continue;
            }
            Failure::Wait => {}
        }
        if error.is_shortage {
            back_off = back_off.min(BACK_OFF_SHORTAGE);
        }
        tokio::select! {
            () = tokio::time::sleep(back_off) => {}
            () = desk.hurry.notified() => {}
            () = desk.stopping.cancelled() => {}
        }
        back_off = (back_off * 2).min(BACK_OFF_LAST);
    }
}

async fn try_to_start(desk: &Arc<Desk>) -> Result<Worker, StartError> {
    let (program, clock) = (&desk.program, &desk.shared.clock);
    let spawned = Worker::spawn(&desk.spawner, program.times).await;
    let mut worker = spawned.map_err(|error| StartError {
        why: format!("{}: {error}", program.program.display()),
        is_shortage: is_shortage(&error),
    })?;
    let log = Log::default();
    let greeted = tokio::select! {
        greeted = worker.greet(program, &log, clock) => greeted,
        () = desk.stopping.cancelled() => Err(Broken::Ended),
    };
    let Err(broken) = greeted else { return Ok(worker) };
    let death = worker.end(|stream, bytes| log.write(clock.now(), stream, bytes)).await;
    let how = death::words(&broken, &death.status);
    // The last line that it complained says most.
    let output = log.close(clock.now());
    let complaints = output.lines().filter(|line| line.stream == Stream::Stderr);
    let said = complaints.last().map(|line| format!(" ({})", line.text));
    let why = format!("it {how}{}", said.unwrap_or_default());
    Err(StartError { why, is_shortage: false })
}

enum Waited {
    Work(Box<Work>),
    /// The worker is not needed any more, and not counted.
    Over,
    /// The worker is of no more use, and what it was given has not reached it.
    Broken(Broken, Option<Box<Work>>),
}

/// Watches over an idle worker until there is something to do.
async fn wait(
    desk: &Desk,
    worker: &mut Worker,
    seat: &Seat,
    orders: &mut mpsc::Receiver<Order>,
) -> Waited {
    let mut until = Some(Instant::now() + desk.program.times.idle);
    loop {
        let broken = tokio::select! {
            biased;
            order = orders.recv() => return match order {
                Some(Order::Work(work)) => Waited::Work(work),
                Some(Order::Leave) | None => Waited::Over,
            },
            broken = worker.idle(until) => broken,
        };
        let Some(broken) = broken else {
            if desk.leave_if_spare(seat.number) {
                return Waited::Over;
            }
            until = None;
            continue;
        };
        if desk.withdraw(seat.number) {
            return Waited::Broken(broken, None);
        }
        // An order is under way to it.
        return match orders.recv().await {
            Some(Order::Work(work)) => Waited::Broken(broken, Some(work)),
            Some(Order::Leave) | None => Waited::Over,
        };
    }
}
