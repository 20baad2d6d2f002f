//! Explanations of what a job did at an instant, from a ledger that the scheduler wrote.

use punctual::clock::Timestamp;
use punctual::explain::{ExplainInputs, explain};
use punctual::job::{JobId, Pause, PauseTerms};
use punctual::run::{Cost, Outcome, Run, RunState};
use punctual::scheduler::request::Request;
use serde_json::{Value, json};
use support::jobs::{at, job};
use support::occurrences::covers;
use support::world::World;

/// What is said of job `a` at `asked`.
async fn said(
    world: &World,
    asked: Timestamp,
    now: Timestamp,
    scheduler_pause: Option<&Pause>,
) -> String {
    let job = world.job("a").await.unwrap();
    let occurrence = job.trigger.last_until(asked);
    let runs = world.runs("a").await;
    let row = occurrence.and_then(|at| runs.into_iter().rev().find(|run| covers(run, at)));
    let facts =
        ExplainInputs { job: &job, asked, occurrence, row, manual_run: None, scheduler_pause, now };
    explain(facts).lines.join(" ")
}

/// A world with job `a`, which is due every ten seconds from 08:00:10 on.
async fn world_with(given: Value) -> World {
    let mut world = World::new(2).await;
    let mut definition = json!({"id": "a"});
    definition.as_object_mut().unwrap().extend(given.as_object().unwrap().clone());
    world.add(job(&definition), at(0)).await;
    world
}

#[tokio::test]
async fn a_run_says_how_late_it_was_and_why() {
    let mut world = world_with(json!({"overlap": "queue"})).await;
    world.tick(at(10)).await;
    let running = "It was due at 2027-01-15 08:00:10 +00:00 and runs on time. It runs next at 2027-01-15 08:00:20 +00:00.";
    assert_eq!(said(&world, at(10), at(11), None).await, running);
    world.tick(at(20)).await;
    let waiting = said(&world, at(20), at(21), None).await;
    assert!(
        waiting.contains(
            "08:00:20 +00:00 and waits: for a free worker of \"default\", or for an earlier run"
        ),
        "{waiting}"
    );
    world.finish_all(at(24)).await;
    world.finish_all(at(25)).await;
    let waited = said(&world, at(20), at(26), None).await;
    let expected = "ran 5.0s late (it waited for a worker, or for an earlier run to end) and succeeded (after 0µs).";
    assert!(waited.contains(expected), "{waited}");
    // The scheduler was away: one run stands for what fell due.
    world.tick(at(55)).await;
    let late = said(&world, at(50), at(55), None).await;
    assert!(late.contains("and runs 5.0s late (the scheduler was away, paused or busy)"), "{late}");
    let coalesced = said(&world, at(40), at(55), None).await;
    let expected = "It did not run at 2027-01-15 08:00:40 +00:00: another occurrence, due at the same time, ran in its place \
        (coalesce = \"latest\") (one of 2 that were skipped together).";
    assert!(coalesced.contains(expected), "{coalesced}");
}

#[tokio::test]
async fn a_skipped_occurrence_says_which_policy_skipped_it() {
    let mut world = world_with(json!({"misfire_grace_time": 3})).await;
    world.tick(at(14)).await;
    let missed = said(&world, at(10), at(15), None).await;
    assert!(
        missed.contains("could not start within its misfire_grace_time (now 3.0s)"),
        "{missed}"
    );
    world.tick(at(20)).await;
    world.tick(at(30)).await;
    let overlap = said(&world, at(30), at(31), None).await;
    assert!(
        overlap.contains(
            "earlier runs of the job had not ended (max_instances = 1, overlap = \"skip\")"
        ),
        "{overlap}"
    );
    let id = JobId::parse("a").unwrap();
    world.ask(Request::Pause(id.clone(), PauseTerms::default()), at(32)).await.unwrap();
    let paused = said(&world, at(40), at(45), None).await;
    assert!(
        paused.ends_with(
            "it has not run: the job is paused. It does not run before it is resumed: it is paused since \
             2027-01-15 08:00:32 +00:00."
        ),
        "{paused}"
    );
    world.ask(Request::Resume(id), at(46)).await.unwrap();
    let paused = said(&world, at(40), at(47), None).await;
    assert!(
        paused.contains("It did not run at 2027-01-15 08:00:40 +00:00: the job was paused."),
        "{paused}"
    );
    let pause = Pause::new(at(48), PauseTerms::default());
    let held = said(&world, at(50), at(55), Some(&pause)).await;
    assert!(held.contains("the scheduler is paused since 2027-01-15 08:00:48 +00:00. It does not run before the scheduler is resumed"), "{held}");
}

#[tokio::test]
async fn a_crash_shows_in_the_attempt_and_in_what_was_lost() {
    for (rule, expected) in [
        (
            "rerun",
            "and runs, 3.0s after its delay, (attempt 2, after one that failed or was interrupted)",
        ),
        ("lose", "and was lost: crashed"),
    ] {
        let mut world = world_with(json!({"on_crash": rule})).await;
        world.tick(at(10)).await;
        world.crash(at(12)).await;
        world.tick(at(13)).await;
        let told = said(&world, at(10), at(14), None).await;
        assert!(told.contains(expected), "{told}");
    }
}

#[tokio::test]
async fn a_run_that_was_cancelled_says_why_and_whether_it_had_begun() {
    let mut world = world_with(json!({})).await;
    world.tick(at(10)).await;
    let job = world.job("a").await.unwrap();
    let running = world.runs("a").await.remove(0);
    let told = |run: Run| {
        let (asked, now) = (at(10), at(20));
        let occurrence = Some(asked);
        let (row, manual_run, scheduler_pause) = (Some(run), None, None);
        let facts =
            ExplainInputs { job: &job, asked, occurrence, row, manual_run, scheduler_pause, now };
        explain(facts).lines.join(" ")
    };
    let mut ended = running.clone();
    let outcome = Outcome::Cancelled { reason: "by hand".to_owned() };
    ended.end(at(10), at(12), outcome, Cost::default());
    let ended = told(ended);
    assert!(ended.contains("ran on time and was cancelled: by hand (after 2.0s)."), "{ended}");
    let mut waiting = Run { state: RunState::Pending, ..running };
    waiting.cancel_pending(at(15), "by hand".to_owned());
    let waiting = told(waiting);
    let expected = "It was due at 2027-01-15 08:00:10 +00:00 and was cancelled: by hand. It runs";
    assert!(waiting.contains(expected), "{waiting}");
}

#[tokio::test]
async fn nothing_is_made_up_about_an_occurrence_whose_row_is_gone() {
    let mut world = world_with(json!({})).await;
    world.tick(at(10)).await;
    let job = world.job("a").await.unwrap();
    let (asked, now) = (at(10), at(15));
    let (occurrence, row, manual_run, scheduler_pause) = (Some(asked), None, None, None);
    let facts =
        ExplainInputs { job: &job, asked, occurrence, row, manual_run, scheduler_pause, now };
    let told = explain(facts).lines.join(" ");
    let expected =
        "What became of it at 2027-01-15 08:00:10 +00:00 is no longer kept in the ledger. It runs";
    assert!(told.contains(expected), "{told}");
}

#[tokio::test]
async fn an_instant_without_an_occurrence_is_explained_with_the_next_one_and_the_clock_change() {
    let mut world = world_with(json!({})).await;
    world.tick(at(10)).await;
    let between = said(&world, at(15), at(16), None).await;
    let expected = "It was not due at 2027-01-15 08:00:15 +00:00; it is next due at 2027-01-15 08:00:20 +00:00. \
        It was due at 2027-01-15 08:00:10 +00:00 and runs";
    assert!(between.contains(expected), "{between}");
    let before = said(&world, at(5), at(16), None).await;
    assert!(before.contains("It had no occurrence up to then."), "{before}");
    let later = said(&world, at(100), at(16), None).await;
    assert!(later.contains("It is still to come at 2027-01-15 08:01:40 +00:00."), "{later}");
    let berlin = json!({"type": "cron", "hour": 2, "minute": 30, "timezone": "Europe/Berlin"});
    let world = world_with(json!({"trigger": berlin})).await;
    let skipped = said(&world, "2027-03-28T01:10:00Z".parse().unwrap(), at(1), None).await;
    let expected = "It was not due at 2027-03-28 03:10:00 +02:00; it is next due at 2027-03-29 02:30:00 +02:00 \
        (the clock has no 2027-03-28 02:30:00: it goes on at 03:00:00).";
    assert!(skipped.contains(expected), "{skipped}");
    let old = said(&world, at(-90_000), at(1), None).await;
    assert!(old.contains("was defined after that, at 2027-01-15 09:00:00 +01:00."), "{old}");
}
