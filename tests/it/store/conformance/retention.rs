//! Rows that need not be kept are found, and are removed with all that belongs to them.

use std::sync::Arc;

use punctual::clock::Timestamp;
use punctual::filter::{FinishedJobs, Prunable, RetentionClass};
use punctual::job::{Job, JobState};
use punctual::run::{
    Attempt, Cause, Cost, HookEvent, Outcome, Run, RunId, RunIds, RunState, SkipReason,
};
use punctual::store::{ATTEMPT_BYTES, Archive, Change, RUN_BYTES, RunPart, Store};
use serde_json::json;

use super::{in_flight, insert_job, insert_run, put_output};
use support::jobs::{at, job, run};

const LIMIT: usize = 100;

fn ended(outcome: Outcome, second: i64) -> RunState {
    let (started_at, finished_at) = (at(second), at(second));
    RunState::Ended { started_at, finished_at, outcome, cost: Cost::default() }
}

fn succeeded(second: i64) -> RunState {
    ended(Outcome::Succeeded { result: None, exit_code: None }, second)
}

fn failed(second: i64) -> RunState {
    let error = "so".to_owned();
    ended(Outcome::Failed { error, exit_code: None, signal: None, permanent: false }, second)
}

/// A run of a job that was made at that second, with an id as the scheduler makes it.
fn made(ids: &mut RunIds, job: &str, second: i64, state: RunState) -> Run {
    let id = ids.next(at(second));
    Run { id, created_at: at(second), state, ..run(job, Some(at(second))) }
}

fn attempt(run_id: &RunId) -> Change {
    Change::InsertAttempt(Arc::new(Attempt {
        run_id: run_id.clone(),
        number: 1,
        node: "here".into(),
        started_at: at(1),
        finished_at: at(2),
        outcome: Outcome::Lost { error: "gone".to_owned() },
        cost: Cost::default(),
    }))
}

fn prune(runs: &[RunId], parts: &[RunPart]) -> Vec<Change> {
    let each = |part: &RunPart| {
        let part = *part;
        runs.iter().map(move |run_id| Change::Prune { run_id: run_id.clone(), part })
    };
    parts.iter().flat_map(each).collect()
}

async fn found<S: Archive>(store: &S, which: Prunable<'_>) -> Vec<RunId> {
    store.prunable(which, LIMIT).await.unwrap()
}

async fn old<S: Archive>(store: &S, kind: RetentionClass, before: Timestamp) -> Vec<RunId> {
    found(store, Prunable::Ended { ids_tell_time: true, kind, before, after: "" }).await
}

fn ids(runs: &[&Run]) -> Vec<RunId> {
    runs.iter().map(|run| run.id.clone()).collect()
}

pub(super) async fn runs_that_ended_long_ago_are_found_page_by_page<S: Store + Archive>(store: S) {
    let make = &mut RunIds::new(7);
    let timed_out = ended(Outcome::TimedOut { error: "slow".to_owned() }, 3);
    let lost = ended(Outcome::Lost { error: "gone".to_owned() }, 4);
    let cancelled = ended(Outcome::Cancelled { reason: "by hand".to_owned() }, 5);
    let skipped =
        RunState::Skipped { reason: SkipReason::Missed, last_scheduled_at: at(6), count: 1 };
    let states = [succeeded(1), failed(2), timed_out, lost, cancelled, skipped];
    let mut runs: Vec<Run> =
        (1..).zip(states).map(|(second, state)| made(make, "a", second, state)).collect();
    // Made long ago, and still there or only just ended.
    let running = RunState::Running { started_at: at(7) };
    runs.push(made(make, "a", 7, running));
    runs.push(made(make, "a", 8, RunState::Pending));
    runs.push(made(make, "a", 9, succeeded(90)));
    runs.push(made(make, "a", 50, succeeded(50)));
    store.commit(runs.iter().map(insert_run).collect()).await.unwrap();
    let [ok, failed, timed_out, lost, cancelled, skipped, _, _, long, new] = runs.as_slice() else {
        unreachable!()
    };
    assert_eq!(old(&store, RetentionClass::Errors, at(50)).await, ids(&[failed, timed_out, lost]));
    assert_eq!(old(&store, RetentionClass::Runs, at(50)).await, ids(&[ok, cancelled]));
    assert_eq!(old(&store, RetentionClass::Runs, at(91)).await, ids(&[ok, cancelled, long, new]));
    assert_eq!(old(&store, RetentionClass::Runs, at(1)).await, []);
    assert_eq!(old(&store, RetentionClass::Skipped, at(91)).await, ids(&[skipped]));
    assert_eq!(old(&store, RetentionClass::Hooks, at(91)).await, []);
    let after = Prunable::Ended {
        ids_tell_time: true,
        kind: RetentionClass::Errors,
        before: at(50),
        after: &failed.id.0,
    };
    assert_eq!(store.prunable(after, 1).await.unwrap(), ids(&[timed_out]), "a page");
}

pub(super) async fn a_run_goes_with_all_that_belongs_to_it_once_it_has_ended<S>(store: S)
where
    S: Store + Archive,
{
    let make = &mut RunIds::new(7);
    let kept = made(make, "a", 1, succeeded(1));
    let gone = made(make, "a", 2, failed(2));
    let running = made(make, "a", 3, RunState::Running { started_at: at(3) });
    let all = [&kept, &gone, &running];
    let mut changes: Vec<Change> = all.map(insert_run).to_vec();
    changes.extend(all.map(|run| attempt(&run.id)));
    changes.extend(all.map(|run| put_output(&run.id, 1, "first")));
    changes.extend(all.map(|run| put_output(&run.id, 2, "second")));
    store.commit(changes).await.unwrap();
    let parts_of = async |run: &Run| {
        let outputs = [store.output(&run.id.0, 1).await, store.output(&run.id.0, 2).await];
        let outputs = outputs.into_iter().filter(|output| output.as_ref().unwrap().is_some());
        let attempts = store.attempts(&run.id.0).await.unwrap().len();
        let row = store.run(&run.id.0).await.unwrap();
        (row.is_some(), attempts, outputs.count())
    };
    let found =
        found(&store, Prunable::WithOutput { ids_tell_time: true, before: at(9), after: "" }).await;
    assert_eq!(found, ids(&[&kept, &gone]));
    let unknown = RunId("nothing".into());
    let asked = [gone.id.clone(), running.id.clone(), unknown];
    store.commit(prune(&asked, &RunPart::ALL)).await.unwrap();
    assert_eq!(parts_of(&gone).await, (false, 0, 0));
    assert_eq!(parts_of(&running).await, (true, 1, 2), "it has not ended");
    assert_eq!(in_flight(&store).await, [running]);
    // What is gone is gone: another node that found it too does no harm.
    store.commit(prune(&asked, &RunPart::ALL)).await.unwrap();
    store.commit(prune(&ids(&[&kept]), &[RunPart::Outputs])).await.unwrap();
    assert_eq!(parts_of(&kept).await, (true, 1, 0));
}

pub(super) async fn the_newest_runs_of_a_job_are_no_surplus<S: Store + Archive>(store: S) {
    let make = &mut RunIds::new(7);
    let runs: Vec<Run> = (0..12)
        .map(|second| match second % 3 {
            0 => made(make, "b", second, failed(second)),
            1 => made(make, "b", second, succeeded(second)),
            _ => made(make, "c:é", second, succeeded(second)),
        })
        .collect();
    store.commit(runs.iter().map(insert_run).collect()).await.unwrap();
    let crowded = async |rows, after| store.crowded_jobs(rows, after, LIMIT).await.unwrap();
    assert_eq!(crowded(3, "").await, ["b", "c:é"]);
    assert_eq!(crowded(3, "b").await, ["c:é"]);
    assert_eq!(crowded(4, "").await, ["b"]);
    assert_eq!(store.crowded_jobs(0, "", 1).await.unwrap(), ["b"]);
    let first =
        async |kind, keep| found(&store, Prunable::FirstBeyond { job_id: "b", kind, keep }).await;
    assert_eq!(first(RetentionClass::Errors, 1).await, ids(&[&runs[6]]));
    assert_eq!(first(RetentionClass::Runs, 3).await, ids(&[&runs[1]]));
    assert_eq!(first(RetentionClass::Runs, 4).await, []);
    let up_to = Prunable::UpTo { job_id: "b", kind: RetentionClass::Errors, last: &runs[6].id.0 };
    let mut surplus = found(&store, up_to).await;
    surplus.sort();
    assert_eq!(surplus, ids(&[&runs[0], &runs[3], &runs[6]]));
    assert_eq!(store.prunable(up_to, 2).await.unwrap().len(), 2);
    store.commit(prune(&surplus, &RunPart::ALL)).await.unwrap();
    assert_eq!(found(&store, up_to).await, []);
}

pub(super) async fn a_run_counts_with_all_that_belongs_to_it<S: Store + Archive>(store: S) {
    let make = &mut RunIds::new(7);
    let plain = made(make, "a", 1, succeeded(1));
    let failed = made(make, "job", 2, failed(2));
    let running = made(make, "a", 3, RunState::Running { started_at: at(3) });
    let retried = made(make, "é", 4, succeeded(4));
    let mut changes: Vec<Change> = [&plain, &failed, &running, &retried].map(insert_run).to_vec();
    changes.extend([attempt(&retried.id), put_output(&retried.id, 1, "x")]);
    changes.push(put_output(&retried.id, 2, "yy"));
    store.commit(changes).await.unwrap();
    let kept = async |attempt| {
        let output = store.output(&retried.id.0, attempt).await.unwrap().unwrap();
        u64::try_from(output.to_json().len()).unwrap()
    };
    let outputs = kept(1).await + kept(2).await;
    // The error of its first attempt is "gone".
    let sizes = [
        (retried.id.clone(), RUN_BYTES + 2 + 3 * ATTEMPT_BYTES + 4 + outputs),
        (failed.id.clone(), RUN_BYTES + 3 + 2),
        (plain.id.clone(), RUN_BYTES + 1),
    ];
    assert_eq!(store.run_sizes(None, LIMIT).await.unwrap(), sizes);
    assert_eq!(store.run_sizes(Some(&retried.id.0), 1).await.unwrap(), sizes[1..2], "a page");
    let oldest = Prunable::Oldest { last: &retried.id.0 };
    assert_eq!(found(&store, oldest).await, ids(&[&plain, &failed, &retried]));
    let oldest = Prunable::Oldest { last: &failed.id.0 };
    assert_eq!(store.prunable(oldest, 1).await.unwrap(), ids(&[&plain]));
}

pub(super) async fn finished_jobs_are_found_in_the_order_in_which_they_finished<S>(store: S)
where
    S: Store + Archive,
{
    let finished = |id: &str, second| {
        let job = job(&json!({"id": id}));
        Job { state: JobState::Finished, updated_at: at(second), ..job }
    };
    let jobs = [finished("c", 1), finished("b", 2), finished("d", 2), finished("a", 3)];
    let busy = finished("busy", 1);
    let active = job(&json!({"id": "active"}));
    let mut changes: Vec<Change> = jobs.iter().chain([&busy, &active]).map(insert_job).collect();
    let make = &mut RunIds::new(7);
    changes.push(insert_run(&made(make, "busy", 1, RunState::Pending)));
    changes.push(insert_run(&made(make, "c", 1, succeeded(1))));
    store.commit(changes).await.unwrap();
    let page = async |before, after, limit| {
        let page = FinishedJobs { before: at(before), after, limit };
        let jobs = store.finished_jobs(page).await.unwrap();
        jobs.into_iter().map(|job| job.id.to_string()).collect::<Vec<_>>()
    };
    let start = (at(-100), "");
    assert_eq!(page(4, start, LIMIT).await, ["c", "b", "d", "a"]);
    assert_eq!(page(3, start, LIMIT).await, ["c", "b", "d"]);
    assert_eq!(page(4, (at(2), "b"), 1).await, ["d"]);
    assert_eq!(page(1, start, LIMIT).await, [""; 0]);
    let beyond = async |keep| store.finished_beyond(keep).await.unwrap();
    assert_eq!([beyond(0).await, beyond(1).await], [Some(at(3)), Some(at(2))]);
    assert_eq!(beyond(5).await, None);
}

pub(super) async fn each_kind_of_rows_is_counted_by_itself<S: Store + Archive>(store: S) {
    let make = &mut RunIds::new(7);
    let success = made(make, "a", 1, succeeded(1));
    let hook = |run: Run, subject: &Run| {
        let cause = Cause::Event { event: HookEvent::Success, subject: subject.id.clone() };
        Run { cause, scheduled_at: None, ..run }
    };
    let [first_hook, failed_hook] =
        [succeeded(2), failed(3)].map(|state| hook(made(make, "a", 2, state), &success));
    let skip =
        RunState::Skipped { reason: SkipReason::Overlap, last_scheduled_at: at(4), count: 1 };
    let skipped = made(make, "a", 4, skip.clone());
    let dropped_hook = hook(made(make, "a", 5, skip), &success);
    let rows = [&success, &first_hook, &failed_hook, &skipped, &dropped_hook];
    store.commit(rows.map(insert_run).to_vec()).await.unwrap();
    let newest =
        async |kind| found(&store, Prunable::FirstBeyond { job_id: "a", kind, keep: 0 }).await;
    assert_eq!(
        newest(RetentionClass::Runs).await,
        ids(&[&success]),
        "hooks are no runs of the job"
    );
    assert_eq!(newest(RetentionClass::Errors).await, []);
    assert_eq!(newest(RetentionClass::Hooks).await, ids(&[&dropped_hook]));
    assert_eq!(newest(RetentionClass::Skipped).await, ids(&[&skipped]));
    assert_eq!(
        old(&store, RetentionClass::Hooks, at(9)).await,
        ids(&[&first_hook, &failed_hook, &dropped_hook])
    );
}

pub(super) async fn the_last_success_and_the_last_failure_of_a_job_are_always_kept<S>(store: S)
where
    S: Store + Archive,
{
    let make = &mut RunIds::new(7);
    let job = job(&serde_json::json!({"id": "a"}));
    let cancelled = || ended(Outcome::Cancelled { reason: "by hand".to_owned() }, 5);
    let timed_out = ended(Outcome::TimedOut { error: "slow".to_owned() }, 4);
    let states = [succeeded(1), failed(2), succeeded(3), timed_out, cancelled(), cancelled()];
    let runs: Vec<Run> =
        (1..).zip(states).map(|(second, state)| made(make, "a", second, state)).collect();
    let hook = Run {
        cause: Cause::Event { event: HookEvent::Failure, subject: runs[1].id.clone() },
        scheduled_at: None,
        ..made(make, "a", 7, succeeded(7))
    };
    let mut changes = vec![insert_job(&job)];
    changes.extend(runs.iter().chain([&hook]).map(insert_run));
    changes.extend(runs.iter().map(|run| put_output(&run.id, 1, "said")));
    store.commit(changes).await.unwrap();
    let [_, _, _, _, first_cancel, last_cancel] = runs.as_slice() else { unreachable!() };
    let (old_success, old_failure) = (&runs[0], &runs[1]);
    assert_eq!(
        old(&store, RetentionClass::Runs, at(99)).await,
        ids(&[old_success, first_cancel, last_cancel])
    );
    assert_eq!(old(&store, RetentionClass::Errors, at(99)).await, ids(&[old_failure]));
    let mut surplus = found(
        &store,
        Prunable::UpTo { job_id: "a", kind: RetentionClass::Runs, last: &last_cancel.id.0 },
    )
    .await;
    surplus.sort();
    assert_eq!(surplus, ids(&[old_success, first_cancel, last_cancel]));
    assert_eq!(
        found(&store, Prunable::WithOutput { ids_tell_time: true, before: at(99), after: "" })
            .await,
        ids(&[old_success, old_failure, first_cancel, last_cancel]),
        "outputs of the last success and the last failure stay"
    );
    // The rows of a removed job are not kept for ever.
    let gone = Change::DeleteJob { id: runs[0].job_id.clone(), revision: 1, created_at: at(0) };
    store.commit(vec![gone]).await.unwrap();
    assert_eq!(old(&store, RetentionClass::Errors, at(99)).await, ids(&[old_failure, &runs[3]]));
    assert_eq!(
        found(&store, Prunable::WithOutput { ids_tell_time: true, before: at(99), after: "" })
            .await
            .len(),
        6
    );
}

pub(super) async fn runs_made_while_ids_are_ahead_of_the_clock_are_found_by_age<S>(store: S)
where
    S: Store + Archive,
{
    let make = &mut RunIds::new(7);
    make.follow(&make_ahead());
    let runs = [1, 2].map(|second| made(make, "a", second, succeeded(second)));
    let mut changes = runs.each_ref().map(insert_run).to_vec();
    changes.extend(runs.each_ref().map(|run| put_output(&run.id, 1, "said")));
    store.commit(changes).await.unwrap();
    let (before, after, kind) = (at(2), "", RetentionClass::Runs);
    let old = Prunable::Ended { ids_tell_time: false, kind, before, after };
    assert_eq!(found(&store, old).await, ids(&[&runs[0]]));
    let old = Prunable::WithOutput { ids_tell_time: false, before, after };
    assert_eq!(found(&store, old).await, ids(&[&runs[0]]));
    assert_eq!(store.newest_run().await.unwrap().unwrap().id, runs[1].id);
}

/// An id that was made by a clock that was years ahead.
fn make_ahead() -> RunId {
    RunIds::new(1).next(at(400_000_000))
}

pub(super) async fn jobs_are_paged_with_their_last_occurrence<S>(store: S)
where
    S: Store + Archive,
{
    assert_eq!(store.recorded_time().await.unwrap(), None);
    assert!(store.newest_run().await.unwrap().is_none());
    for second in [1, 2] {
        store.commit(vec![Change::RecordTime(at(second))]).await.unwrap();
        assert_eq!(store.recorded_time().await.unwrap(), Some(at(second)));
    }
    let jobs = ["a", "b", "c"].map(|id| job(&json!({"id": id})));
    let mut changes: Vec<Change> = jobs.iter().map(insert_job).collect();
    let reason = SkipReason::Coalesced;
    let skipped = RunState::Skipped { reason, last_scheduled_at: at(40), count: 3 };
    changes.push(insert_run(&Run { state: skipped, ..run("a", Some(at(20))) }));
    changes.push(insert_run(&run("a", Some(at(10)))));
    changes.push(insert_run(&run("a", None)));
    changes.push(insert_run(&run("b", Some(at(10)))));
    let former = Run { anchor: at(-1), ..run("b", Some(at(90))) };
    changes.push(insert_run(&former));
    store.commit(changes).await.unwrap();
    let page = async |after, limit| {
        let page = store.scheduled_jobs(after, limit).await.unwrap();
        page.into_iter().map(|known| (known.job.id.to_string(), known.last)).collect::<Vec<_>>()
    };
    let all = [("a", Some(at(40))), ("b", Some(at(10))), ("c", None)];
    let all = all.map(|(id, last)| (id.to_owned(), last));
    assert_eq!(page(None, 9).await, all);
    assert_eq!(page(Some(&jobs[0].id), 1).await, all[1..2]);
}
