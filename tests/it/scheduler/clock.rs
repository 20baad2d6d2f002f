//! What happens to the schedule when a clock that was ahead is corrected.

use chrono::TimeDelta;
use punctual::job::{JobState, PauseTerms};
use punctual::run::Outcome;
use punctual::scheduler::request::{Addition, Existing, Request};
use serde_json::{Value, json};

use support::jobs::{at, job, job_at};
use support::store::faulty::Fault;
use support::world::World;

/// Twelve years, as a clock without a battery may be ahead.
const AHEAD: i64 = 12 * 365 * 86_400;

#[tokio::test]
async fn after_the_clock_was_years_ahead_recurring_jobs_continue_from_now() {
    for is_restarted in [false, true] {
        let mut world = World::new(9).await;
        world.add(job(&json!({"id": "interval"})), at(0)).await;
        let cron = json!({"type": "cron", "second": "*/20"});
        world.add(job(&json!({"id": "cron", "trigger": cron, "coalesce": "all", "misfire_grace_time": 5})), at(0)).await;
        let paused = world.add(job(&json!({"id": "paused"})), at(0)).await;
        world.ask(Request::Pause(paused.clone(), PauseTerms::default()), at(5)).await.unwrap();
        world.tick(at(10)).await;
        world.finish_all(at(11)).await;
        world.tick(at(AHEAD)).await;
        world.ask(Request::Resume(paused.clone()), at(AHEAD + 1)).await.unwrap();
        world
            .ask(Request::Pause(paused.clone(), PauseTerms::default()), at(AHEAD + 2))
            .await
            .unwrap();
        world.finish_all(at(AHEAD + 3)).await;
        world.add(job_at(&json!({"id": "later"}), at(AHEAD + 4)), at(AHEAD + 4)).await;
        if is_restarted {
            world.crash(at(31)).await;
        }
        world.tick_on(at(31)).await;
        let next = async |world: &World, id: &str| {
            let state = world.job(id).await.unwrap().state;
            let next = match state {
                JobState::Active { next } | JobState::Paused { next } => Some(next),
                JobState::Finished | JobState::Broken { .. } => None,
            };
            (next.unwrap().scheduled_at - at(0)).num_seconds()
        };
        assert_eq!(next(&world, "interval").await, 40);
        assert_eq!(next(&world, "cron").await, 40);
        // It was defined in the future: a microsecond before now counts instead.
        assert_eq!(next(&world, "later").await, 40);
        assert_eq!(next(&world, "paused").await, 40);
        // One row says so, and the runs of the time in between have rows of their own, outside the wrong span.
        let span = format!("20..{} coalesced {}", AHEAD - 10, AHEAD / 10 - 2);
        let before = ["10 succeeded".to_owned(), span, format!("{AHEAD} succeeded")];
        let given_up = format!("{} clock_set", AHEAD + 10);
        let ledger = world.ledger("interval").await;
        assert_eq!(ledger, [&before[..], std::slice::from_ref(&given_up)].concat());
        for second in [40, 50, 60] {
            world.tick(at(second) + TimeDelta::milliseconds(1)).await;
            world.finish_all(at(second + 1)).await;
        }
        let ledger = world.ledger("interval").await;
        assert_eq!(ledger[4..], ["40 succeeded", "50 succeeded", "60 succeeded"]);
        assert_eq!(world.ledger("cron").await.last().unwrap(), "60 succeeded");
        let status = world.status();
        let clock = status.clock.unwrap();
        assert_eq!((clock.jobs, clock.is_done, clock.found_at), (4, true, at(31)));
        world.ask(Request::Resume(paused), at(61)).await.unwrap();
        assert!(world.ledger("paused").await.contains(&"40..60 paused 3".to_owned()));

        // It may happen again, and is found again; what is right is not moved by another start.
        world.tick(at(AHEAD + 60)).await;
        world.finish_all(at(AHEAD + 61)).await;
        world.finish_all(at(AHEAD + 62)).await;
        world.tick_on(at(71)).await;
        assert_eq!(next(&world, "interval").await, 80);
        let known = world.job("interval").await.unwrap();
        world.crash(at(72)).await;
        world.tick_on(at(72)).await;
        assert_eq!(world.job("interval").await.unwrap().revision, known.revision);
        world.tick_on(at(80) + TimeDelta::milliseconds(1)).await;
        world.finish_all(at(81)).await;
        assert_eq!(world.ledger("interval").await.last().unwrap(), "80 succeeded");
    }
}

#[tokio::test]
async fn a_job_that_is_rightly_far_in_the_future_stays_there_when_the_clock_is_corrected() {
    let mut world = World::new(9).await;
    let named = |id: &str, trigger: Value, next: &str| {
        job(&json!({"id": id, "trigger": trigger, "next_run_time": next}))
    };
    let far = "2039-06-01T10:00:00Z";
    let hourly = || json!({"type": "cron", "minute": 0});
    let once = json!({"id": "once", "trigger": {"type": "date", "run_date": far}});
    world.add(job(&once), at(0)).await;
    world.add(named("on the grid", hourly(), far), at(0)).await;
    world.add(named("off the grid", hourly(), "2039-06-01T10:30:00Z"), at(0)).await;
    let starts = json!({"type": "cron", "hour": 3, "start_date": "2039-06-01"});
    world.add(job(&json!({"id": "starts late", "trigger": starts})), at(0)).await;
    let yearly = json!({"type": "cron", "year": "2039"});
    world.add(job(&json!({"id": "one year", "trigger": yearly})), at(0)).await;
    let before = |world: World| async move {
        let mut jobs = Vec::new();
        for id in ["once", "on the grid", "off the grid", "starts late", "one year"] {
            jobs.push((
                id,
                world.job(id).await.unwrap().revision,
                world.job(id).await.unwrap().state,
            ));
        }
        (world, jobs)
    };
    world.add(job(&json!({"id": "tick"})), at(0)).await;
    let (mut world, jobs) = before(world).await;
    world.tick(at(86_400)).await;
    world.finish_all(at(86_400)).await;
    world.tick_on(at(5)).await;
    let (world, after) = before(world).await;
    assert_eq!(jobs, after);
    assert_eq!(world.status().clock.unwrap().jobs, 1, "the one that was carried along");
}

#[tokio::test]
async fn a_clock_that_is_set_back_by_less_than_hours_or_to_long_ago_is_waited_for() {
    let mut world = World::new(1).await;
    world.add(job(&json!({"id": "a"})), at(0)).await;
    world.tick(at(10_000)).await;
    world.finish_all(at(10_001)).await;
    assert_eq!(world.tick(at(0)).await, Some(at(10_010)), "two hours and three quarters");
    let long_ago = -40 * 365 * 86_400;
    assert_eq!(world.tick(at(long_ago)).await, Some(at(10_010)), "nobody has set that clock yet");
    assert!(world.status().clock.is_none());
    assert_eq!(world.tick(at(10_005)).await, Some(at(10_010)));
}

#[tokio::test]
async fn a_job_that_ended_only_by_the_clock_goes_on_and_one_that_has_run_its_course_does_not() {
    let mut world = World::new(9).await;
    let until = json!({"type": "interval", "seconds": 10, "end_date": "2030-01-01"});
    world.add(job(&json!({"id": "ended", "trigger": until})), at(0)).await;
    world.add(job(&json!({"id": "counted", "max_runs": 1})), at(0)).await;
    world.tick(at(AHEAD)).await;
    world.finish_all(at(AHEAD)).await;
    assert_eq!(world.job("ended").await.unwrap().state, JobState::Finished);
    world.tick_on(at(15)).await;
    assert_eq!(
        world.job("ended").await.unwrap().next().unwrap().due_at - at(20),
        TimeDelta::microseconds(1)
    );
    assert_eq!(world.job("counted").await.unwrap().state, JobState::Finished);
}

#[tokio::test]
async fn runs_in_flight_while_the_clock_was_ahead_end_are_retried_and_keep_their_order() {
    let mut world = World::new(9).await;
    let retry = json!({"max_attempts": 2, "delay": 60});
    world.add(job_at(&json!({"id": "a", "retry": retry}), at(AHEAD)), at(AHEAD)).await;
    world.tick(at(AHEAD + 10)).await;
    let error = "no luck".to_owned();
    world.complete(
        0,
        at(AHEAD + 11),
        Outcome::Failed { error, exit_code: None, signal: None, permanent: false },
    );
    world.tick(at(AHEAD + 11)).await;
    assert_eq!(world.ledger("a").await, [format!("{} pending", AHEAD + 10)]);
    // A crash, the right time: the retry waits for no more than its delay, and the job's runs are its own.
    world.crash(at(0)).await;
    world.tick_on(at(0)).await;
    assert_eq!(world.starts_with_attempts(), ["a 1", "a 2"]);
    world.finish_all(at(1)).await;
    world.tick(at(11)).await;
    world.crash(at(12)).await;
    world.tick_on(at(12)).await;
    assert_eq!(world.starts_with_attempts(), ["a 1", "a 2", "a 1", "a 2"], "it is not lost");
    world.finish_all(at(13)).await;
    let ledger = world.ledger("a").await;
    assert_eq!(ledger.first().unwrap(), &format!("{} succeeded", AHEAD + 10), "ids are in order");
    assert_eq!(ledger.last().unwrap(), "9 succeeded", "ten seconds later, less a microsecond");
    for run in world.runs("a").await {
        if let punctual::run::RunState::Ended { started_at, finished_at, .. } = run.state {
            assert!(started_at <= finished_at);
        }
    }
}

#[tokio::test]
async fn more_jobs_than_one_step_looks_at_all_continue_also_if_a_step_fails() {
    let mut world = World::new(600).await;
    for number in 0..450 {
        let id = format!("j{number:03}");
        world.add(job(&json!({"id": id, "on_crash": "lose"})), at(0)).await;
    }
    world.tick_on(at(AHEAD)).await;
    world.finish_all(at(AHEAD)).await;
    world.fail_next(Fault::After);
    assert!(world.try_tick(at(5)).await.is_err());
    world.tick_on(at(6)).await;
    for number in 0..450 {
        let next = world.job(&format!("j{number:03}")).await.unwrap().next().unwrap();
        assert!(next.due_at < at(11), "{number}: {next:?}");
    }
    assert_eq!(world.tick_on(at(7)).await.unwrap() - at(10), TimeDelta::microseconds(1));
}

#[tokio::test]
async fn a_job_that_was_admitted_just_before_the_clock_was_set_fires_within_its_period() {
    let mut world = World::new(1).await;
    world.tick(at(AHEAD)).await;
    let late = Addition {
        job: Box::new(job_at(&json!({"id": "a"}), at(AHEAD))),
        existing: Existing::Refuse,
    };
    world.ask(Request::Add(late), at(5)).await.unwrap();
    let next = world.job("a").await.unwrap().next().unwrap();
    assert!(next.due_at <= at(15), "{next:?}");
}

#[tokio::test]
async fn an_occurrence_that_waited_while_its_job_was_redefined_by_a_clock_ahead_is_given_up() {
    let mut world = World::new(1).await;
    let every_ten = json!({"id": "a", "trigger": {"type": "cron", "second": "*/10"}});
    world.add(job_at(&every_ten, at(AHEAD + 1)), at(AHEAD + 1)).await;
    world.ask(Request::PauseAll(PauseTerms::default()), at(AHEAD + 2)).await.unwrap();
    let again = Addition {
        job: Box::new(job_at(&every_ten, at(AHEAD + 15))),
        existing: Existing::Reschedule,
    };
    world.ask(Request::Add(again), at(AHEAD + 15)).await.unwrap();
    let waits = world.job("a").await.unwrap();
    assert_eq!(waits.next().unwrap().scheduled_at, at(AHEAD + 10), "{:?}", waits.anchor);
    world.tick_on(at(5)).await;
    world.ask(Request::ResumeAll, at(6)).await.unwrap();
    assert_eq!(world.job("a").await.unwrap().next().unwrap().scheduled_at, at(10));
    assert_eq!(world.ledger("a").await, [format!("{} clock_set", AHEAD + 10)]);
}

#[tokio::test]
async fn definitions_that_are_dated_back_in_steps_of_one_instant_have_anchors_of_their_own() {
    let mut world = World::new(1).await;
    world.tick(at(AHEAD)).await;
    let mut anchors = Vec::new();
    for (seconds, second) in [(3, AHEAD), (5, AHEAD + 1), (7, AHEAD + 2)] {
        let trigger = json!({"type": "interval", "seconds": seconds});
        let job = job_at(&json!({"id": "a", "trigger": trigger}), at(second));
        let addition = Addition { job: Box::new(job), existing: Existing::Redefine };
        world.ask(Request::Add(addition), at(5)).await.unwrap();
        anchors.push(world.job("a").await.unwrap().anchor);
    }
    let before = |microseconds| at(5) - TimeDelta::microseconds(microseconds);
    assert_eq!(anchors, [before(1), before(2), before(3)]);
}
