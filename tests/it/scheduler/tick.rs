//! The scheduler's one function, with a store in memory, an executor that only notes what it is
//! given, and times that the test chooses.

use std::io::Write;
use std::sync::{Arc, Mutex};

use punctual::job::{Definition, Former, Job, JobState, Origin, PauseTerms};
use punctual::run::{Outcome, RunId};
use punctual::scheduler::request::{
    Added, Addition, Difference, Existing, Request, RequestError, Response,
};
use serde_json::{Value, json};
use support::jobs::{self, at, job, job_at};
use support::store::faulty::Fault;
use support::world::World;
use tokio_util::task::TaskTracker;

#[tokio::test]
async fn a_job_fires_at_its_instant_and_not_before_with_its_row_already_written() {
    let mut world = World::new(2).await;
    world.add(job(&json!({"id": "a"})), at(0)).await;
    assert_eq!(world.tick(at(0)).await, Some(at(10)));
    assert_eq!(world.tick(at(9)).await, Some(at(10)));
    assert!(world.started().is_empty());
    assert_eq!(world.tick(at(10)).await, Some(at(20)));
    assert_eq!(
        world.rows_at_start(),
        ["a 10 running"],
        "the ledger said so before the executor was told"
    );
    world.finish_all(at(11)).await;
    assert_eq!(world.ledger("a").await, ["10 succeeded"]);
}

#[tokio::test]
async fn after_an_outage_the_latest_the_earliest_or_all_missed_occurrences_run() {
    let cases: [(&str, &[&str]); 3] = [
        ("latest", &["10..40 coalesced 4", "50 succeeded"]),
        ("earliest", &["20..50 coalesced 4", "10 succeeded"]),
        ("all", &["10 succeeded", "20 succeeded", "30 succeeded", "40 succeeded", "50 succeeded"]),
    ];
    for (rule, expect) in cases {
        let mut world = World::new(3).await;
        world.add(job(&json!({"id": "a", "coalesce": rule})), at(0)).await;
        assert_eq!(world.tick(at(55)).await, Some(at(60)), "{rule}");
        assert_eq!(world.started().len(), 1, "{rule}: one at a time, as max_instances says");
        for _ in 0..5 {
            world.finish_all(at(56)).await;
        }
        assert_eq!(world.ledger("a").await, expect, "{rule}");
    }
}

#[tokio::test]
async fn an_outage_of_ten_years_is_one_row() {
    let mut world = World::new(1).await;
    let every_second = json!({"id": "a", "trigger": {"type": "interval", "seconds": 1}});
    world.add(job(&every_second), at(0)).await;
    let ten_years = 315_360_000;
    assert_eq!(world.tick(at(ten_years)).await, Some(at(ten_years + 1)));
    let coalesced = format!("1..{} coalesced {}", ten_years - 1, ten_years - 1);
    assert_eq!(world.ledger("a").await, [coalesced, format!("{ten_years} running")]);
}

#[tokio::test]
async fn an_occurrence_later_than_its_grace_time_is_missed() {
    let mut world = World::new(1).await;
    world.add(job(&json!({"id": "a", "misfire_grace_time": 3})), at(0)).await;
    world.tick(at(13)).await;
    world.finish_all(at(13)).await;
    world.tick(at(24)).await;
    assert_eq!(world.ledger("a").await, ["10 succeeded", "20 missed"]);
    // Waiting for a worker counts too.
    let once = |id: &str| {
        job(
            &json!({"id": id, "trigger": {"type": "date", "run_date": "2027-01-15 08:00:50"}, "misfire_grace_time": 5}),
        )
    };
    world.add(once("first"), at(25)).await;
    world.add(once("second"), at(25)).await;
    world.remove("a", at(25)).await;
    world.tick(at(50)).await;
    world.finish_all(at(56)).await;
    assert_eq!(world.ledger("second").await, ["50 missed"]);
}

#[tokio::test]
async fn an_occurrence_while_the_job_runs_is_an_overlap_but_a_one_shot_waits() {
    let mut world = World::new(5).await;
    world.add(job(&json!({"id": "a", "max_instances": 2})), at(0)).await;
    for second in [10, 20, 30, 40] {
        world.tick(at(second)).await;
    }
    world.finish_all(at(41)).await;
    assert_eq!(world.ledger("a").await, ["10 succeeded", "20 succeeded", "30..40 overlap 2"]);
    let date =
        json!({"id": "once", "trigger": {"type": "date", "run_date": "2027-01-15 08:01:00"}});
    world.remove("a", at(41)).await;
    world.add(job(&date), at(41)).await;
    world.ask(Request::Run(job(&date).id), at(42)).await.unwrap();
    world.tick(at(60)).await;
    assert_eq!(world.ledger("once").await, ["- running", "60 pending"]);
    world.finish_all(at(61)).await;
    world.finish_all(at(62)).await;
    assert_eq!(world.ledger("once").await, ["- succeeded", "60 succeeded"]);
}

#[tokio::test]
async fn a_job_that_hangs_for_a_day_leaves_one_row_that_grows() {
    let mut world = World::new(5).await;
    let every_second = json!({"id": "a", "trigger": {"type": "interval", "seconds": 1}});
    world.add(job(&every_second), at(0)).await;
    for second in 1..=86_400 {
        world.tick(at(second)).await;
        if second == 40_000 {
            // A process that comes up later goes on with the same row; what it reruns is the same run.
            world.crash(at(second)).await;
        }
    }
    assert_eq!(world.ledger("a").await, ["1 running", "2..86400 overlap 86399"]);
    // Once a run came between, what is skipped after it is another row.
    world.complete_all(at(86_400));
    for second in 86_401..=86_404 {
        world.tick(at(second)).await;
    }
    let expected =
        ["1 succeeded", "2..86400 overlap 86399", "86401 running", "86402..86404 overlap 3"];
    assert_eq!(world.ledger("a").await, expected);
}

#[tokio::test]
async fn occurrences_that_are_due_together_behind_a_run_are_one_overlap_whatever_coalesce_says() {
    for rule in ["latest", "earliest", "all"] {
        let mut world = World::new(5).await;
        world.add(job(&json!({"id": "a", "coalesce": rule})), at(0)).await;
        world.tick(at(10)).await;
        world.tick(at(20)).await;
        world.tick(at(55)).await;
        world.tick(at(60)).await;
        assert_eq!(world.ledger("a").await, ["10 running", "20..60 overlap 5"], "{rule}");
    }
}

#[tokio::test]
async fn an_overlap_row_that_could_not_be_written_or_is_no_longer_kept_is_found_or_made_again() {
    for fault in [Fault::Before, Fault::After] {
        let mut world = World::new(5).await;
        world.add(job(&json!({"id": "a"})), at(0)).await;
        world.tick(at(10)).await;
        world.tick(at(20)).await;
        world.fail_next(fault);
        assert!(world.try_tick(at(30)).await.is_err());
        world.tick(at(40)).await;
        assert_eq!(world.ledger("a").await, ["10 running", "20..40 overlap 3"], "{fault:?}");
        let row = world.runs("a").await.remove(1).id;
        let parts = &punctual::store::RunPart::ALL;
        world.ask(Request::Prune { runs: vec![row], parts }, at(41)).await.unwrap();
        world.tick(at(50)).await;
        world.tick(at(60)).await;
        assert_eq!(world.ledger("a").await, ["10 running", "50..60 overlap 2"], "{fault:?}");
    }
}

#[tokio::test]
async fn a_paused_scheduler_fires_nothing_also_after_a_crash_and_catches_up_when_it_resumes() {
    let mut world = World::new(5).await;
    let id = world.add(job(&json!({"id": "a"})), at(0)).await;
    world.tick(at(10)).await;
    let paused =
        |answer| matches!(answer, Ok(Response::Paused(Some(pause))) if pause.since == at(12));
    assert!(paused(world.ask(Request::PauseAll(PauseTerms::default()), at(12)).await));
    assert!(
        paused(world.ask(Request::PauseAll(PauseTerms::default()), at(15)).await),
        "it is paused already"
    );
    world.finish_all(at(16)).await;
    assert_eq!(world.tick(at(30)).await, None, "nothing to wake up for");
    world.add(job(&json!({"id": "b", "misfire_grace_time": 5})), at(31)).await;
    world.crash(at(35)).await;
    assert_eq!(world.tick(at(40)).await, None);
    assert_eq!(world.ledger("a").await, ["10 succeeded"]);
    // By hand it runs all the same.
    world.ask(Request::Run(id), at(41)).await.unwrap();
    world.finish_all(at(42)).await;
    let resumed = world.ask(Request::ResumeAll, at(46)).await;
    assert!(matches!(resumed, Ok(Response::Paused(None))), "{resumed:?}");
    world.finish_all(at(47)).await;
    assert_eq!(
        world.ledger("a").await,
        ["10 succeeded", "- succeeded", "20..30 coalesced 2", "40 succeeded"]
    );
    assert_eq!(world.ledger("b").await, ["10..40 missed 4"]);
    assert_eq!(world.tick(at(47)).await, Some(at(50)));
}

/// Collects the log of the current thread as text.
#[derive(Clone, Default)]
struct LogText(Arc<Mutex<Vec<u8>>>);

impl LogText {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl Write for LogText {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_has_a_step_once_it_is_committed_and_never_one_that_is_not() {
    let log = LogText::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let retry = json!({"max_attempts": 2, "delay": 1});
    let mut world = World::new(5).await;
    world.add(job(&json!({"id": "late"})), at(0)).await;
    world.add(job(&json!({"id": "fails", "max_runs": 1, "retry": retry})), at(0)).await;
    world.tick(at(10)).await;
    log.take();
    // What each step would write to the log: a span that is skipped with a failed attempt, a broken job, a whole one.
    let error = || "no luck".to_owned();
    let failed =
        || Outcome::Failed { error: error(), exit_code: None, signal: None, permanent: false };
    world.complete(1, at(45), Outcome::Succeeded { result: None, exit_code: None });
    world.complete(0, at(45), failed());
    for fault in [Some(Fault::Before), None] {
        if let Some(fault) = fault {
            world.fail_next(fault);
            assert!(world.try_tick(at(45)).await.is_err());
            assert_eq!(log.take(), "", "the step was not committed");
        } else {
            world.tick(at(46)).await;
        }
    }
    let told = log.take();
    assert_eq!(told.matches("skipped").count(), 1, "{told}");
    assert_eq!(told.matches("tried again").count(), 1, "{told}");
    let rules = || jobs::rules(5);
    let without_pools = || {
        let mut rules = rules();
        rules.executors.clear();
        rules
    };
    world.fail_next(Fault::Before);
    assert!(world.try_reload(without_pools(), Vec::new(), at(47)).await.is_err());
    assert_eq!(log.take(), "");
    world.try_reload(without_pools(), Vec::new(), at(48)).await.unwrap();
    assert_eq!(log.take().matches("the job is broken").count(), 1);
    world.fail_next(Fault::Before);
    assert!(world.try_reload(rules(), Vec::new(), at(49)).await.is_err());
    assert_eq!(log.take(), "");
    world.try_reload(rules(), Vec::new(), at(50)).await.unwrap();
    assert_eq!(log.take().matches("no longer broken").count(), 1);
}

#[tokio::test]
async fn a_pause_that_could_not_be_written_did_not_happen() {
    let mut world = World::new(5).await;
    world.add(job(&json!({"id": "a"})), at(0)).await;
    world.fail_next(Fault::Before);
    assert!(world.ask(Request::PauseAll(PauseTerms::default()), at(1)).await.is_err());
    assert_eq!(world.tick(at(2)).await, Some(at(10)));
    // Written, though the answer was lost: then it is so.
    world.fail_next(Fault::After);
    assert!(world.ask(Request::PauseAll(PauseTerms::default()), at(3)).await.is_err());
    assert_eq!(world.tick(at(4)).await, None);
}

#[tokio::test]
async fn a_next_run_time_comes_first_and_the_schedule_goes_on_from_there() {
    for rule in ["latest", "earliest", "all"] {
        let mut world = World::new(5).await;
        let given = json!({"id": "a", "next_run_time": "2027-01-15 08:00:33", "coalesce": rule});
        world.add(job(&given), at(0)).await;
        assert_eq!(world.tick(at(20)).await, Some(at(33)), "{rule}");
        assert_eq!(world.tick(at(33)).await, Some(at(40)), "{rule}");
        world.finish_all(at(34)).await;
        world.tick(at(40)).await;
        world.finish_all(at(41)).await;
        assert_eq!(world.ledger("a").await, ["33 succeeded", "40 succeeded"], "{rule}");
    }
    // It may lie before the trigger's first occurrence, and is missed like any other.
    let mut world = World::new(5).await;
    let given = json!({"id": "a", "next_run_time": "2027-01-15 08:00:03", "misfire_grace_time": 2});
    world.add(job(&given), at(0)).await;
    assert_eq!(world.tick(at(6)).await, Some(at(10)));
    assert_eq!(world.ledger("a").await, ["3 missed"]);
}

#[tokio::test]
async fn a_next_run_time_is_held_back_by_a_pause_and_kept_or_set_by_a_redefinition() {
    let mut world = World::new(5).await;
    let given =
        |next: Value, second| job_at(&json!({"id": "a", "next_run_time": next}), at(second));
    let id = world.add(given(Value::Null, 0), at(0)).await;
    assert!(matches!(world.job("a").await.unwrap().state, JobState::Paused { .. }));
    let redefine = |next: Value, second, existing| {
        Request::Add(Addition { job: Box::new(given(next, second)), existing })
    };
    let named = json!("2027-01-15 08:00:33");
    world.ask(redefine(named.clone(), 1, Existing::Reschedule), at(1)).await.unwrap();
    assert_eq!(world.job("a").await.unwrap().next().unwrap().due_at, at(33));
    world.ask(redefine(json!("2027-01-15 08:00:44"), 2, Existing::Redefine), at(2)).await.unwrap();
    assert_eq!(
        world.job("a").await.unwrap().next().unwrap().due_at,
        at(33),
        "the schedule goes on"
    );
    world.ask(Request::Pause(id.clone(), PauseTerms::default()), at(3)).await.unwrap();
    world.ask(Request::Resume(id), at(45)).await.unwrap();
    assert_eq!(world.ledger("a").await, ["33 paused", "41 paused"]);
    assert_eq!(world.tick(at(45)).await, Some(at(51)));
    // The same time may be named again: it is another one.
    world.ask(redefine(named, 46, Existing::Reschedule), at(46)).await.unwrap();
    world.tick(at(46)).await;
    world.finish_all(at(47)).await;
    assert!(world.ledger("a").await.contains(&"33 succeeded".to_owned()));
}

#[tokio::test]
async fn with_queue_an_occurrence_waits_for_the_run_before_it_up_to_a_bound() {
    let mut world = World::new(5).await;
    world.add(job(&json!({"id": "a", "overlap": "queue"})), at(0)).await;
    for second in [10, 20, 30] {
        world.tick(at(second)).await;
    }
    assert_eq!(world.started(), ["a"], "one at a time all the same");
    assert_eq!(world.ledger("a").await, ["10 running", "20 pending", "30 pending"]);
    world.finish_all(at(31)).await;
    assert_eq!(world.ledger("a").await, ["10 succeeded", "20 running", "30 pending"]);
    // One asked for by hand waits too.
    world.ask(Request::Run(job(&json!({"id": "a"})).id), at(32)).await.unwrap();
    for second in (40..=1100).step_by(10) {
        world.tick(at(second)).await;
    }
    let ledger = world.ledger("a").await;
    let count = |word: &str| ledger.iter().filter(|row| row.ends_with(word)).count();
    assert_eq!((count("running"), count("pending")), (1, 100));
    assert_eq!(ledger.last().unwrap(), "1020..1100 overlap 9", "{ledger:?}");
    let refused = world.ask(Request::Run(job(&json!({"id": "a"})).id), at(1101)).await;
    assert!(matches!(refused, Err(RequestError::Busy { .. })), "{refused:?}");
}

#[tokio::test]
async fn more_runs_than_workers_wait_in_the_ledger_and_start_in_the_order_in_which_they_were_due() {
    let mut world = World::new(2).await;
    for second in [14, 11, 13, 12, 15] {
        let date = format!("2027-01-15 08:00:{second}");
        world.add(job(&json!({"id": format!("j{second}"), "trigger": {"type": "date", "run_date": date}})), at(0)).await;
    }
    world.tick(at(20)).await;
    assert_eq!(world.started(), ["j11", "j12"]);
    assert_eq!(world.ledger("j15").await, ["15 pending"]);
    world.finish_all(at(21)).await;
    assert_eq!(world.started(), ["j13", "j14"]);
    world.finish_all(at(22)).await;
    assert_eq!(world.started(), ["j15"]);
}

#[tokio::test]
async fn max_runs_ends_a_job_and_a_finished_job_is_kept() {
    let mut world = World::new(1).await;
    world.add(job(&json!({"id": "a", "max_runs": 2})), at(0)).await;
    for second in [10, 20, 30] {
        world.tick(at(second)).await;
        world.finish_all(at(second + 1)).await;
    }
    assert_eq!(world.ledger("a").await, ["10 succeeded", "20 succeeded"]);
    assert_eq!(world.job("a").await.unwrap().state, JobState::Finished);
    assert!(matches!(
        world.ask(Request::Pause(job(&json!({"id": "a"})).id, PauseTerms::default()), at(31)).await,
        Err(RequestError::WrongState { .. })
    ));
}

#[tokio::test]
async fn the_id_of_a_finished_job_can_be_used_for_a_new_job() {
    let mut world = World::new(1).await;
    let once = |second| json!({"id": "a", "trigger": {"type": "date", "run_date": format!("2027-01-15 08:00:{second}")}});
    let add = |second: u32, seconds: i64| {
        let job = Box::new(job_at(&once(second), at(seconds)));
        Request::Add(Addition { job, existing: Existing::Refuse })
    };
    world.ask(add(10, 0), at(0)).await.unwrap();
    assert!(
        matches!(world.ask(add(20, 5), at(5)).await, Err(RequestError::Exists(_))),
        "it is active"
    );
    world.tick(at(10)).await;
    world.finish_all(at(11)).await;
    assert_eq!(world.job("a").await.unwrap().state, JobState::Finished);
    assert!(matches!(world.ask(add(20, 12), at(12)).await, Ok(Response::Job(_))));
    world.tick(at(20)).await;
    world.finish_all(at(21)).await;
    assert_eq!(world.ledger("a").await, ["10 succeeded", "20 succeeded"]);
    let many = Request::AddAll(vec![Addition {
        job: Box::new(job_at(&once(30), at(22))),
        existing: Existing::Refuse,
    }]);
    let Ok(Response::Added(added)) = world.ask(many, at(22)).await else { panic!("not added") };
    assert_eq!(added, [Ok(Added::New)]);
}

#[tokio::test]
async fn a_job_that_is_removed_on_finish_goes_when_its_last_run_and_its_hook_have_ended() {
    let mut world = World::new(1).await;
    let once = json!({
        "id": "a",
        "trigger": {"type": "date", "run_date": "2027-01-15 08:00:10"},
        "on_finish": "remove",
        "on_success": {"type": "builtin", "name": "noop"},
    });
    world.add(job(&once), at(0)).await;
    world.tick(at(10)).await;
    assert!(world.job("a").await.is_some(), "its run is running");
    world.finish_all(at(11)).await;
    assert!(world.job("a").await.is_some(), "its hook is running");
    world.finish_all(at(12)).await;
    assert_eq!(world.tick(at(12)).await, None, "nothing is left to do");
    assert!(world.job("a").await.is_none());
    assert_eq!(world.ledger("a").await.len(), 2, "its runs stay");
}

#[tokio::test]
async fn a_finished_job_whose_removal_failed_is_removed_by_a_later_step() {
    let mut world = World::new(1).await;
    let once = json!({
        "id": "a",
        "trigger": {"type": "date", "run_date": "2027-01-15 08:00:10"},
        "on_finish": "remove",
    });
    world.add(job(&once), at(0)).await;
    world.tick(at(10)).await;
    world.complete_all(at(11));
    world.tick(at(11)).await;
    world.fail_next(Fault::Before);
    assert!(world.try_tick(at(11)).await.is_err(), "the removal fails");
    assert!(world.job("a").await.is_some());
    world.tick(at(12)).await;
    world.tick(at(12)).await;
    assert!(world.job("a").await.is_none());
}

#[tokio::test]
async fn a_job_that_is_removed_on_finish_goes_also_when_its_occurrence_was_missed() {
    let mut world = World::new(1).await;
    let once = json!({
        "id": "a",
        "trigger": {"type": "date", "run_date": "2027-01-15 08:00:10"},
        "on_finish": "remove",
        "misfire_grace_time": 5,
    });
    world.add(job(&once), at(0)).await;
    world.tick(at(100)).await;
    world.tick(at(100)).await;
    assert!(world.job("a").await.is_none());
    assert_eq!(world.ledger("a").await, ["10 missed"]);
}

#[tokio::test]
async fn only_finished_jobs_without_a_run_in_flight_are_removed_as_finished() {
    let mut world = World::new(1).await;
    let date = |id: &str| json!({"id": id, "trigger": {"type": "date", "run_date": "2027-01-15 08:00:10"}});
    let ids = [
        world.add(job(&json!({"id": "active"})), at(0)).await,
        world.add(job(&date("done")), at(0)).await,
    ];
    world.tick(at(10)).await;
    world.ask(Request::RemoveFinished(ids.to_vec()), at(10)).await.unwrap();
    assert!(world.job("done").await.is_some(), "it waits for its run");
    world.finish_all(at(11)).await;
    world.finish_all(at(11)).await;
    world.ask(Request::RemoveFinished(ids.to_vec()), at(12)).await.unwrap();
    assert!(world.job("done").await.is_none());
    assert!(world.job("active").await.is_some());
}

#[tokio::test]
async fn a_pause_is_one_row_and_a_one_shot_that_was_paused_is_late() {
    let mut world = World::new(2).await;
    let id = world.add(job(&json!({"id": "a"})), at(0)).await;
    let once =
        job(&json!({"id": "once", "trigger": {"type": "date", "run_date": "2027-01-15 08:00:10"}}));
    let once = world.add(once, at(0)).await;
    world.ask(Request::Pause(id.clone(), PauseTerms::default()), at(5)).await.unwrap();
    world.ask(Request::Pause(once.clone(), PauseTerms::default()), at(5)).await.unwrap();
    assert_eq!(world.tick(at(34)).await, None, "nothing is due");
    world.ask(Request::Resume(id), at(35)).await.unwrap();
    world.ask(Request::Resume(once), at(35)).await.unwrap();
    world.tick(at(40)).await;
    world.finish_all(at(41)).await;
    assert_eq!(world.ledger("a").await, ["10..30 paused 3", "40 succeeded"]);
    assert_eq!(world.ledger("once").await, ["10 succeeded"]);
}

#[tokio::test]
async fn removing_a_job_takes_its_waiting_runs_with_it() {
    let mut world = World::new(1).await;
    let id = world.add(job(&json!({"id": "a", "coalesce": "all"})), at(0)).await;
    world.tick(at(35)).await;
    world.ask(Request::Remove(id.clone()), at(36)).await.unwrap();
    world.finish_all(at(37)).await;
    assert_eq!(world.ledger("a").await, ["10 succeeded", "20 removed", "30 removed"]);
    assert!(matches!(world.ask(Request::Remove(id), at(38)).await, Err(RequestError::NotFound(_))));
    // The same id begins a ledger of its own: the same instant may have a row again.
    world
        .add(
            job_at(
                &json!({"id": "a", "trigger": {"type": "date", "run_date": "2027-01-15 08:00:10"}}),
                at(39),
            ),
            at(39),
        )
        .await;
    world.tick(at(39)).await;
    world.finish_all(at(40)).await;
    assert_eq!(
        world.ledger("a").await,
        ["10 succeeded", "20 removed", "30 removed", "10 succeeded"]
    );
}

#[tokio::test]
async fn requests_of_one_step_see_each_other_in_their_order() {
    let mut world = World::new(1).await;
    let new = || Box::new(job(&json!({"id": "a"})));
    let id = new().id.clone();
    let answers = world
        .ask_all(
            vec![
                Request::Add(Addition { job: new(), existing: Existing::Refuse }),
                Request::Add(Addition { job: new(), existing: Existing::Refuse }),
                Request::Add(Addition { job: new(), existing: Existing::Redefine }),
                Request::Pause(id.clone(), PauseTerms::default()),
                Request::Remove(id.clone()),
                Request::Pause(id.clone(), PauseTerms::default()),
                Request::Add(Addition { job: new(), existing: Existing::Refuse }),
            ],
            at(1),
        )
        .await;
    let words: Vec<String> = answers
        .into_iter()
        .map(|answer| match answer {
            Ok(Response::Job(job) | Response::Removed(job)) => job.state.word().to_owned(),
            Err(RequestError::Exists(_)) => "exists".to_owned(),
            Err(RequestError::NotFound(_)) => "not found".to_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(words, ["active", "exists", "active", "paused", "paused", "not found", "active"]);
    assert_eq!(world.job("a").await.unwrap().revision, 1);
}

#[tokio::test]
async fn after_a_crash_a_running_run_is_the_next_attempt_or_lost_and_a_waiting_one_is_started() {
    let mut world = World::new(2).await;
    world.add(job(&json!({"id": "again"})), at(0)).await;
    world.add(job(&json!({"id": "lost", "on_crash": "lose"})), at(0)).await;
    world.add(job(&json!({"id": "waits"})), at(0)).await;
    world.tick(at(10)).await;
    assert_eq!(world.started(), ["again", "lost"]);
    world.crash(at(15)).await;
    world.tick(at(15)).await;
    assert_eq!(world.starts_with_attempts(), ["again 1", "lost 1", "again 2", "waits 1"]);
    world.finish_all(at(16)).await;
    assert_eq!(world.ledger("again").await, ["10 succeeded"]);
    assert_eq!(world.ledger("lost").await, ["10 lost"]);
    assert_eq!(world.ledger("waits").await, ["10 succeeded"]);
}

#[tokio::test]
async fn a_write_that_fails_starts_nothing_and_a_write_whose_answer_is_lost_starts_it_once() {
    for fault in [Fault::Before, Fault::After] {
        let mut world = World::new(1).await;
        world.add(job(&json!({"id": "a"})), at(0)).await;
        world.fail_next(fault);
        assert!(world.try_tick(at(10)).await.is_err());
        assert!(world.started().is_empty(), "{fault:?}");
        world.tick(at(11)).await;
        assert_eq!(world.starts_with_attempts(), ["a 1"], "{fault:?}");
        world.complete_all(at(12));
        world.fail_next(fault);
        assert!(world.try_tick(at(12)).await.is_err());
        world.tick(at(13)).await;
        assert_eq!(
            world.ledger("a").await,
            ["10 succeeded"],
            "{fault:?}: the completion was not forgotten"
        );
        world.fail_next(fault);
        let refused = world.ask(Request::Run(job(&json!({"id": "a"})).id), at(14)).await;
        assert!(matches!(refused, Err(RequestError::Unavailable(_))), "{fault:?}");
    }
}

#[tokio::test]
async fn a_reload_makes_the_declared_jobs_the_files_and_breaks_what_can_no_longer_run() {
    let mut world = World::new(1).await;
    let declared = |id: &str, seconds: u32| {
        let job = job(&json!({"id": id, "trigger": {"type": "interval", "seconds": seconds}}));
        Job { origin: Origin::File, ..job }
    };
    world.add(job(&json!({"id": "mine"})), at(0)).await;
    let first = world
        .reload(vec![declared("keeps", 10), declared("changes", 10), declared("goes", 10)], at(1))
        .await;
    assert_eq!(first.added, ["keeps", "changes", "goes"]);
    let second = world
        .reload(vec![declared("keeps", 10), declared("changes", 20), declared("comes", 10)], at(2))
        .await;
    assert_eq!(
        (second.added, second.changed, second.removed, second.unchanged),
        (vec!["comes".to_owned()], vec!["changes".to_owned()], vec!["goes".to_owned()], 1)
    );
    let refused = world.ask(Request::Remove(declared("keeps", 10).id), at(3)).await;
    assert!(matches!(refused, Err(RequestError::DeclaredInFile { .. })));

    world.without_pools(at(4)).await;
    let JobState::Broken { reason, .. } = world.job("mine").await.unwrap().state else {
        panic!("not broken")
    };
    assert!(reason.contains("unknown executor \"default\""), "{reason}");
    world.tick(at(35)).await;
    assert!(world.ledger("mine").await.is_empty());
    world.reload(Vec::new(), at(36)).await;
    assert!(
        matches!(world.job("mine").await.unwrap().state, JobState::Active { next } if next.due_at == at(40))
    );
    assert_eq!(world.ledger("mine").await, ["10..30 broken 3"]);
}

#[tokio::test]
async fn more_missed_occurrences_than_fit_into_a_queue_are_coalesced_even_where_all_shall_run() {
    let mut world = World::new(1).await;
    let every_second =
        json!({"id": "a", "trigger": {"type": "interval", "seconds": 1}, "coalesce": "all"});
    world.add(job(&every_second), at(0)).await;
    world.tick(at(1500)).await;
    let ledger = world.ledger("a").await;
    assert_eq!(ledger.len(), 1001);
    assert!(ledger.contains(&"1001..1500 coalesced 500".to_owned()), "{ledger:?}");
    let next = world.job("a").await.unwrap().next().unwrap();
    assert_eq!(next.scheduled_at, at(1501));
}

#[tokio::test]
async fn a_job_that_is_mended_after_the_clock_was_set_back_does_not_repeat_itself() {
    let mut world = World::new(1).await;
    world.add(job(&json!({"id": "a"})), at(0)).await;
    for second in [10, 20, 30] {
        world.tick(at(second)).await;
        world.finish_all(at(second + 1)).await;
    }
    world.without_pools(at(35)).await;
    world.reload(Vec::new(), at(5)).await;
    assert_eq!(world.tick(at(6)).await, Some(at(40)));
    assert_eq!(world.ledger("a").await, ["10 succeeded", "20 succeeded", "30 succeeded"]);
}

#[tokio::test]
async fn a_job_that_max_runs_has_ended_goes_on_when_its_new_definition_lets_it() {
    let mut world = World::new(1).await;
    let limited = |max_runs: u64| job_at(&json!({"id": "a", "max_runs": max_runs}), at(15));
    world.add(job(&json!({"id": "a", "max_runs": 1})), at(0)).await;
    world.tick(at(10)).await;
    world.finish_all(at(11)).await;
    for (max_runs, state) in [(1, "finished"), (2, "active")] {
        let request = Request::Add(Addition {
            job: Box::new(limited(max_runs)),
            existing: Existing::Redefine,
        });
        world.ask(request, at(15)).await.unwrap();
        assert_eq!(world.job("a").await.unwrap().state.word(), state, "{max_runs}");
    }
    world.tick(at(25)).await;
    world.finish_all(at(26)).await;
    assert_eq!(world.ledger("a").await, ["10 succeeded", "25 succeeded"]);
    assert_eq!(world.job("a").await.unwrap().state.word(), "finished");
}

#[tokio::test]
async fn a_drain_starts_nothing_more_and_refuses_requests() {
    let mut world = World::new(1).await;
    world.add(job(&json!({"id": "a", "coalesce": "all"})), at(0)).await;
    world.tick(at(25)).await;
    world.drain();
    assert_eq!(world.tick(at(30)).await, None);
    world.finish_all(at(31)).await;
    assert!(world.started().is_empty());
    assert_eq!(world.ledger("a").await, ["10 succeeded", "20 pending"]);
    let refused =
        world.ask(Request::Pause(job(&json!({"id": "a"})).id, PauseTerms::default()), at(32)).await;
    assert_eq!(refused.unwrap_err(), RequestError::Stopping);
}

#[tokio::test]
async fn a_replaced_run_is_cancelled_and_the_newest_starts_once_it_has_ended() {
    let mut world = World::new(5).await;
    world.add(job(&json!({"id": "a", "overlap": "replace"})), at(0)).await;
    world.tick(at(10)).await;
    world.tick(at(20)).await;
    assert_eq!(world.ledger("a").await, ["10 running", "20 pending"]);
    let asked: Vec<String> =
        world.cancels().into_iter().map(|(run_id, reason)| format!("{run_id} {reason}")).collect();
    let first = world.runs("a").await.remove(0).id;
    assert_eq!(asked, [format!("{first} replaced by a newer run of the job")]);
    // It takes its time: the one that waited for it is no longer the newest.
    world.tick(at(30)).await;
    assert_eq!(world.ledger("a").await, ["10 running", "20 overlap", "30 pending"]);
    let reason = "replaced by a newer run of the job".to_owned();
    world.complete(0, at(31), Outcome::Cancelled { reason });
    world.tick(at(31)).await;
    assert_eq!(world.ledger("a").await, ["10 cancelled", "20 overlap", "30 running"]);
}

#[tokio::test]
async fn of_the_runs_that_are_made_together_the_newest_replace_the_others() {
    let mut world = World::new(5).await;
    let given = json!({"id": "a", "overlap": "replace", "coalesce": "all", "max_instances": 2});
    world.add(job(&given), at(0)).await;
    world.tick(at(55)).await;
    assert_eq!(world.ledger("a").await, ["10..30 overlap 3", "40 running", "50 running"]);
    assert!(world.cancels().is_empty());
    world.tick(at(60)).await;
    let cancelled: Vec<_> = world.cancels().into_iter().map(|(run_id, _)| run_id).collect();
    assert_eq!(cancelled, [world.runs("a").await.remove(1).id], "the older one of the two");
}

#[tokio::test]
async fn a_run_by_hand_replaces_too() {
    let mut world = World::new(5).await;
    let id = world.add(job(&json!({"id": "a", "overlap": "replace"})), at(0)).await;
    world.tick(at(10)).await;
    world.ask(Request::Run(id), at(12)).await.unwrap();
    assert_eq!(
        (world.ledger("a").await, world.cancels().len()),
        (vec!["10 running".to_owned(), "- pending".to_owned()], 1)
    );
}

#[tokio::test]
async fn a_declared_job_whose_last_day_is_over_is_finished_and_no_fault_of_the_file() {
    let given = json!({"id": "a", "trigger": {"type": "interval", "seconds": 10, "end_date": "2027-01-15T08:00:30Z"},
        "task": {"type": "builtin", "name": "noop"}});
    let admit =
        |origin| jobs::rules(1).admit(Definition::parse(given.clone()).unwrap(), origin, at(100));
    assert_eq!(admit(Origin::Socket).unwrap_err().field, "trigger");
    let mut world = World::new(1).await;
    let difference = world.reload(vec![admit(Origin::File).unwrap()], at(100)).await;
    assert_eq!(difference.added, ["a"]);
    assert_eq!(world.job("a").await.unwrap().state, JobState::Finished);
    let difference = world.reload(vec![admit(Origin::File).unwrap()], at(200)).await;
    assert_eq!(difference.unchanged, 1);
}

#[tokio::test]
async fn a_run_that_had_begun_when_its_process_died_is_run_again_however_late() {
    let mut world = World::new(1).await;
    world.add(job(&json!({"id": "a", "misfire_grace_time": 3, "max_runs": 1})), at(0)).await;
    world.tick(at(10)).await;
    world.crash(at(1000)).await;
    world.tick(at(1000)).await;
    assert_eq!(world.starts_with_attempts(), ["a 1", "a 2"]);
}

#[tokio::test]
async fn a_run_that_ends_its_process_every_time_is_lost_in_the_end() {
    let mut world = World::new(1).await;
    world.add(job(&json!({"id": "a", "max_runs": 1})), at(0)).await;
    world.tick(at(10)).await;
    for second in 11..30 {
        world.crash(at(second)).await;
        world.tick(at(second)).await;
    }
    assert_eq!(world.starts_with_attempts(), ["a 1", "a 2", "a 3"]);
    assert_eq!(world.ledger("a").await, ["10 lost"]);
}

#[tokio::test]
async fn a_run_of_a_removed_job_is_not_run_again_as_that_of_a_new_one_of_its_id() {
    let mut world = World::new(1).await;
    world.add(job(&json!({"id": "a"})), at(0)).await;
    world.tick(at(10)).await;
    world.remove("a", at(11)).await;
    world.add(job_at(&json!({"id": "a"}), at(12)), at(12)).await;
    world.crash(at(13)).await;
    world.tick(at(13)).await;
    assert_eq!(world.ledger("a").await, ["10 lost"]);
}

#[tokio::test]
async fn a_replacement_that_says_so_pauses() {
    let mut world = World::new(1).await;
    world.add(job(&json!({"id": "a"})), at(0)).await;
    let replace = |given: Value| {
        Request::Add(Addition {
            job: Box::new(job_at(&given, at(5))),
            existing: Existing::Redefine,
        })
    };
    world.ask(replace(json!({"id": "a", "paused": true})), at(5)).await.unwrap();
    world.tick(at(30)).await;
    assert_eq!(world.ledger("a").await, [""; 0]);
    world.ask(replace(json!({"id": "a"})), at(35)).await.unwrap();
    assert_eq!(world.job("a").await.unwrap().state.word(), "paused", "and the next one leaves it");
    // Another trigger starts again; what the pause held back is accounted for.
    let every_minute = json!({"id": "a", "trigger": {"type": "interval", "minutes": 1}});
    world.ask(replace(every_minute), at(35)).await.unwrap();
    assert_eq!(world.ledger("a").await, ["10..30 paused 3"]);
}

fn redefine(given: &Value, second: i64) -> Request {
    let job = Box::new(job_at(given, at(second)));
    let existing =
        if given["next_run_time"].is_null() { Existing::Redefine } else { Existing::Reschedule };
    Request::Add(Addition { job, existing })
}

#[tokio::test]
async fn occurrences_due_when_a_job_got_another_trigger_are_one_row() {
    let every =
        |seconds: u64| json!({"id": "a", "trigger": {"type": "interval", "seconds": seconds}});
    let mut world = World::new(1).await;
    world.add(job(&every(10)), at(0)).await;
    world.ask(Request::PauseAll(PauseTerms::default()), at(1)).await.unwrap();
    world.ask(redefine(&every(7), 35), at(35)).await.unwrap();
    assert_eq!(world.ledger("a").await, ["10..30 redefined 3"]);
    world.ask(Request::ResumeAll, at(36)).await.unwrap();
    assert_eq!(world.tick(at(36)).await, Some(at(42)));
    // The same at a step that would have fired it, and with a `next_run_time`.
    world.ask(redefine(&every(10), 42), at(42)).await.unwrap();
    let named = json!({"id": "a", "next_run_time": "2027-01-15 08:02:00"});
    world.ask(redefine(&named, 52), at(52)).await.unwrap();
    assert_eq!(world.ledger("a").await, ["10..30 redefined 3", "42 redefined", "52 redefined"]);
    // What a `next_run_time` had named is accounted for by itself, and what the trigger named since with it.
    world.ask(redefine(&every(20), 135), at(135)).await.unwrap();
    assert_eq!(world.ledger("a").await[3..], ["120 redefined", "122..132 redefined 2"]);
    assert_eq!(world.tick(at(135)).await, Some(at(155)));
}

#[tokio::test]
async fn an_occurrence_that_waits_for_its_jitter_still_runs_if_the_new_trigger_has_it_too() {
    let cron = |jitter: u64, second: &str| {
        let trigger = json!({"type": "cron", "minute": "*", "second": second, "jitter": jitter});
        json!({"id": "a", "trigger": trigger})
    };
    let mut world = World::new(1).await;
    let id = world.add(job(&cron(50, "10")), at(0)).await;
    let due = world.job("a").await.unwrap().next().unwrap();
    assert!(due.scheduled_at == at(10) && due.due_at > at(12), "{due:?}");
    world.ask(redefine(&cron(40, "10"), 12), at(12)).await.unwrap();
    let due = world.job("a").await.unwrap().next().unwrap();
    assert_eq!(due.scheduled_at, at(10), "it is not forgotten");
    world.tick(due.due_at).await;
    world.finish_all(due.due_at).await;
    assert_eq!(world.ledger("a").await, ["10 succeeded"]);
    // One that the new trigger does not have is a row; so is one whose job is removed, or paused and redefined.
    world.ask(redefine(&cron(40, "11"), 72), at(72)).await.unwrap();
    assert_eq!(world.ledger("a").await, ["10 succeeded", "70 redefined"]);
    world.ask(Request::Pause(id, PauseTerms::default()), at(131)).await.unwrap();
    world.ask(redefine(&cron(40, "12"), 131), at(131)).await.unwrap();
    assert_eq!(world.ledger("a").await[2..], ["131 paused"]);
    world.remove("a", at(200)).await;
    assert_eq!(world.ledger("a").await[3..], ["132..192 removed 2"]);
}

#[tokio::test]
async fn occurrences_due_when_a_job_was_removed_are_one_row() {
    let mut world = World::new(1).await;
    let declared = Job { origin: Origin::File, ..job(&json!({"id": "file"})) };
    world.reload(vec![declared], at(0)).await;
    world.add(job(&json!({"id": "a"})), at(0)).await;
    let paused = world.add(job(&json!({"id": "paused"})), at(0)).await;
    world.ask(Request::Pause(paused, PauseTerms::default()), at(1)).await.unwrap();
    world.ask(Request::PauseAll(PauseTerms::default()), at(1)).await.unwrap();
    world.remove("a", at(25)).await;
    world.remove("paused", at(25)).await;
    world.reload(Vec::new(), at(35)).await;
    assert_eq!(world.ledger("a").await, ["10..20 removed 2"]);
    assert_eq!(world.ledger("paused").await, ["10..20 paused 2"]);
    assert_eq!(world.ledger("file").await, ["10..30 removed 3"]);
}

#[tokio::test]
async fn a_job_that_runs_now_runs_again_when_it_is_replaced() {
    let mut world = World::new(1).await;
    let now = json!({"id": "a", "trigger": {"type": "date"}});
    world.add(job_at(&now, at(5)), at(5)).await;
    world.tick(at(5)).await;
    world.finish_all(at(6)).await;
    let again = Addition { job: Box::new(job_at(&now, at(9))), existing: Existing::Redefine };
    world.ask(Request::Add(again), at(9)).await.unwrap();
    world.tick(at(9)).await;
    assert_eq!(world.ledger("a").await, ["5 succeeded", "9 running"]);
}

#[tokio::test]
async fn a_job_whose_builtin_is_gone_is_broken_when_it_is_due() {
    let mut world = World::new(1).await;
    world.add(job(&json!({"id": "a"})), at(0)).await;
    world.without_builtins(at(5)).await;
    world.tick(at(10)).await;
    let state = world.job("a").await.unwrap().state;
    let reason = "task.name: unknown builtin \"noop\"".to_owned();
    assert_eq!(state, JobState::Broken { reason, since: Some(at(10)), former: Former::Active });
}

#[tokio::test]
async fn a_completion_that_is_reported_twice_counts_once() {
    let mut world = World::new(1).await;
    world.add(job(&json!({"id": "a"})), at(0)).await;
    world.tick(at(10)).await;
    world.complete_all_twice(at(11));
    world.tick(at(11)).await;
    assert_eq!(world.tick(at(20)).await, Some(at(30)));
    assert_eq!(world.ledger("a").await, ["10 succeeded", "20 running"]);
}

#[tokio::test]
async fn a_next_run_time_is_kept_while_its_job_is_broken() {
    // The clock is set back meanwhile, or it is a one-shot that was to run later than it says.
    let crontab = json!({"type": "interval", "seconds": 10});
    let date = json!({"type": "date", "run_date": "2027-01-15 08:00:10"});
    for (trigger, mended_at) in [(crontab, 1), (date, 20)] {
        let mut world = World::new(1).await;
        let named = "2027-01-15 08:00:33";
        let given = json!({"id": "a", "trigger": trigger, "next_run_time": named});
        world.add(job(&given), at(0)).await;
        world.without_pools(at(5)).await;
        world.reload(Vec::new(), at(mended_at)).await;
        let next = world.job("a").await.unwrap().next().unwrap();
        assert_eq!(next.scheduled_at, at(33), "{given}");
    }
}

#[tokio::test]
async fn with_jitter_the_earliest_occurrence_that_is_not_too_late_is_the_one_that_runs() {
    for number in 0..50 {
        let mut world = World::new(1).await;
        let trigger = json!({"type": "interval", "seconds": 10, "jitter": 9});
        let id = format!("job-{number}");
        let (rule, grace) = ("earliest", 25);
        let given =
            json!({"id": id, "trigger": trigger, "coalesce": rule, "misfire_grace_time": grace});
        world.add(job(&given), at(0)).await;
        world.tick(at(59)).await;
        let started = world.started();
        assert_eq!(started, std::slice::from_ref(&id), "{:?}", world.ledger(&id).await);
    }
}

#[tokio::test]
async fn a_next_run_time_that_is_an_occurrence_has_no_jitter() {
    for number in 0..20 {
        let mut world = World::new(1).await;
        let trigger = json!({"type": "interval", "seconds": 10, "jitter": 9});
        let named = "2027-01-15 08:00:20";
        let given =
            json!({"id": format!("job-{number}"), "trigger": trigger, "next_run_time": named});
        world.add(job(&given), at(0)).await;
        world.tick(at(20)).await;
        assert_eq!(world.starts()[0].1.due_at, at(20));
    }
}

#[tokio::test]
async fn short_runs_are_handed_over_ahead_of_their_workers_but_none_that_a_crash_would_lose() {
    let mut world = World::of_threads(2).await;
    for number in 0..60 {
        let on_crash = if number == 0 { "rerun" } else { "lose" };
        let trigger = json!({"type": "date", "run_date": "2027-01-15T08:00:10Z"});
        for on_crash in [on_crash, "rerun"] {
            let id = format!("{on_crash}-{number:02}");
            let given = json!({"id": id, "trigger": trigger, "on_crash": on_crash});
            let add = Addition { job: Box::new(job(&given)), existing: Existing::Redefine };
            world.ask(Request::Add(add), at(0)).await.unwrap();
        }
    }
    world.tick(at(10)).await;
    assert_eq!(world.started().len(), 2, "how long they take is not known yet");
    let (mut most, mut most_to_lose) = (0, 0);
    for _ in 0..120 {
        let started = world.started();
        most = most.max(started.len());
        let to_lose = started.iter().filter(|id| id.starts_with("lose")).count();
        most_to_lose = most_to_lose.max(to_lose);
        world.finish_all(at(10)).await;
    }
    assert!(most > 10, "they took no time at all, and yet only {most} were handed over");
    assert!(most_to_lose <= 2, "{most_to_lose} would have been lost without having begun");
    assert!(world.started().is_empty());
    assert_eq!(world.ledger("lose-59").await, ["10 succeeded"]);
}

#[tokio::test]
async fn nothing_fires_before_the_jobs_of_the_file_are_declared() {
    let mut world = World::new(1).await;
    world.add(job(&json!({"id": "a"})), at(0)).await;
    world.crash(at(5)).await;
    world.hold();
    assert_eq!(world.tick(at(15)).await, None, "nothing to wake up for");
    assert!(world.started().is_empty());
    assert_eq!(world.ledger("a").await, [""; 0]);
    world.ask(Request::Begin, at(16)).await.unwrap();
    assert_eq!(world.tick_on(at(16)).await, Some(at(20)));
    assert_eq!(world.started(), ["a"]);
}

/// Jobs of a file, none of which is due soon.
fn declared_many(count: usize, description: &str) -> Vec<Job> {
    let given = |number| {
        let trigger = json!({"type": "date", "run_date": "2100-01-01 00:00:00"});
        json!({"id": format!("j{number:05}"), "trigger": trigger, "description": description})
    };
    let jobs = (0..count).map(|number| job(&given(number)));
    jobs.map(|job| Job { origin: Origin::File, ..job }).collect()
}

#[tokio::test]
async fn a_reload_is_written_in_small_slices_and_says_the_sum_of_them() {
    let served = World::new(1).await.serve();
    let counts = |difference: Difference| {
        let Difference { added, changed, removed, unchanged, .. } = difference;
        (added.len(), changed.len(), removed.len(), unchanged)
    };
    let most = |commits: Vec<usize>| commits.into_iter().max().unwrap();
    assert_eq!(counts(served.declare(declared_many(1500, "")).await), (1500, 0, 0, 0));
    assert_eq!(most(served.jobs_per_commit()), 64);
    assert_eq!(counts(served.declare(declared_many(1500, "new")).await), (0, 1500, 0, 0));
    assert_eq!(most(served.jobs_per_commit()), 64);
    assert_eq!(counts(served.declare(declared_many(100, "new")).await), (0, 0, 1400, 100));
    assert_eq!(most(served.jobs_per_commit()), 64);
    // A large job counts for as many as it takes the time of.
    let large = "x".repeat(16 * 1024);
    assert_eq!(counts(served.declare(declared_many(100, &large)).await), (0, 100, 0, 0));
    assert_eq!(most(served.jobs_per_commit()), 21);
    served.stop().await;
}

#[tokio::test]
async fn requests_of_many_clients_are_shared_out_to_steps_of_bounded_work() {
    let served = World::new(1).await.serve();
    let adding = declared_many(1000, "").into_iter().map(|job| {
        let job = Box::new(Job { origin: Origin::Socket, ..job });
        let handle = served.handle.clone();
        async move { handle.add(Addition { job, existing: Existing::Refuse }).await }
    });
    let tasks = TaskTracker::new();
    let adding: Vec<_> = adding.map(|adding| tasks.spawn(adding)).collect();
    for added in adding {
        added.await.unwrap().unwrap();
    }
    let commits = served.jobs_per_commit();
    assert_eq!(commits.iter().sum::<usize>(), 1000);
    assert!(commits.iter().all(|jobs| *jobs <= 256), "{commits:?}");
    assert!(commits.len() < 100, "those that wait share a step: {commits:?}");
    served.stop().await;
}

#[tokio::test]
async fn a_request_with_a_value_that_the_database_refuses_is_refused_and_everything_else_goes_on() {
    let mut world = World::new(5).await;
    world.refuse_text("poison");
    let tick = json!({"id": "tick", "trigger": {"type": "interval", "seconds": 10}});
    world.add(job(&tick), at(0)).await;
    let add = |id: &str, description: &str| {
        let job = Box::new(job_at(&json!({"id": id, "description": description}), at(0)));
        Request::Add(Addition { job, existing: Existing::Refuse })
    };
    let ids: Vec<String> = (0..9).map(|number| format!("j{number}")).collect();
    for bad in [0, 4, 8] {
        let described = |number| if number == bad { "poison" } else { "fine" };
        let requests = ids.iter().enumerate().map(|(number, id)| add(id, described(number)));
        let answers = world.ask_all_on(requests.collect(), at(1)).await;
        for (number, answer) in answers.iter().enumerate() {
            let is_refused = matches!(answer, Err(RequestError::Rejected(_)));
            assert_eq!((answer.is_ok(), is_refused), (number != bad, number == bad), "{answer:?}");
        }
        for (number, id) in ids.iter().enumerate().filter(|(number, _)| *number != bad) {
            assert!(world.job(id).await.is_some(), "{number}");
            world.remove(id, at(1)).await;
        }
        assert!(world.job(&ids[bad]).await.is_none());
    }
    // In the very step in which something is due.
    let answers = world.ask_all_on(vec![add("a", "fine"), add("b", "poison")], at(10)).await;
    assert!(
        answers[0].is_ok() && matches!(answers[1], Err(RequestError::Rejected(_))),
        "{answers:?}"
    );
    assert_eq!(world.started(), ["tick", "a"]);
}

#[tokio::test]
async fn an_end_with_a_text_that_the_database_refuses_is_recorded_with_another_text() {
    let mut world = World::new(3).await;
    let names = ["a", "b", "c"];
    for name in names {
        world.add(job(&json!({"id": name})), at(0)).await;
    }
    world.tick(at(10)).await;
    world.refuse_text("poison");
    let failed = |error: &str| Outcome::Failed {
        error: error.to_owned(),
        exit_code: Some(3),
        signal: None,
        permanent: false,
    };
    for error in ["as it happens", "poison", "as it happens"] {
        world.complete(0, at(11), failed(error));
    }
    assert_eq!(world.tick_on(at(11)).await, Some(at(20)));
    let note = "the database refused what this run said; the daemon's log tells why";
    for (name, expected) in names.iter().zip(["as it happens", note, "as it happens"]) {
        let run = world.runs(name).await.remove(0);
        let punctual::run::RunState::Ended { outcome, .. } = run.state else { panic!("{run:?}") };
        assert_eq!(outcome, failed(expected), "{name}");
    }
    // What it was asked to end for may be what is refused.
    world.tick(at(20)).await;
    world.complete(1, at(21), Outcome::Cancelled { reason: "poison".to_owned() });
    world.complete_all(at(21));
    assert_eq!(world.tick_on(at(21)).await, Some(at(30)));
    assert_eq!(world.ledger("a").await, ["10 failed", "20 succeeded"]);
    assert_eq!(world.ledger("b").await, ["10 failed", "20 cancelled"]);
}

#[tokio::test]
async fn a_job_whose_firing_the_database_refuses_is_broken_and_the_others_fire() {
    let mut world = World::new(9).await;
    for number in 0..7 {
        world.add(job(&json!({"id": format!("j{number}")})), at(0)).await;
    }
    world.refuse_text("job_id: JobId(\"j4\")");
    assert_eq!(world.tick_on(at(10)).await, Some(at(20)));
    let mut started = world.started();
    started.sort();
    assert_eq!(started, ["j0", "j1", "j2", "j3", "j5", "j6"]);
    let broken = world.job("j4").await.unwrap();
    let JobState::Broken { reason, since, .. } = broken.state else { panic!("{:?}", broken.state) };
    assert_eq!((reason.as_str(), since), ("the database refuses a value: a text", Some(at(10))));
}

#[tokio::test]
async fn an_output_is_saved_although_a_step_with_it_failed_and_a_request_was_refused_after_that() {
    let mut world = World::new(1).await;
    world.add(job(&json!({"id": "a"})), at(0)).await;
    world.tick(at(10)).await;
    world.refuse_text("poison");
    world.write_output("so far");
    world.fail_next(Fault::Before);
    assert!(world.try_tick(at(11)).await.is_err());
    let cancel = Request::Cancel { run: RunId("poison".into()), reason: None };
    let answers = world.ask_all_on(vec![cancel], at(12)).await;
    assert!(matches!(answers[0], Err(RequestError::Rejected(_))), "{answers:?}");
    world.save_outputs();
    world.tick_on(at(13)).await;
    assert_eq!(world.unsaved(), 0);
}
