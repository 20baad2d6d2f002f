//! Changes of a job's definition, and the versions of jobs that requests are meant for.

use std::sync::Arc;

use punctual::job::{Job, JobPatch, JobState, JobVersion, PauseTerms};
use punctual::scheduler::request::{
    Addition, Existing, Modification, Modified, Precondition, Request, RequestError, Response,
};
use serde_json::{Value, json};
use support::jobs::{at, job, job_at, rules};
use support::world::World;

/// A change that was checked against this job.
fn change(base: &Job, patch: Value) -> Modification {
    let patch = JobPatch::parse(patch).unwrap();
    let checked = rules(1).modify(base, &patch, at(5)).unwrap();
    Modification {
        patch: Arc::new(patch),
        base: Arc::new(base.clone()),
        checked: Box::new(checked),
        precondition: Precondition::None,
        resumes: false,
        dry_run: false,
    }
}

fn modified(answer: Result<Response, RequestError>) -> Modified {
    match answer {
        Ok(Response::Modified(modified) | Response::WouldModify(modified)) => modified,
        other => panic!("{other:?}"),
    }
}

async fn world_with(given: Value) -> (World, Job) {
    let mut world = World::new(1).await;
    world.add(job(&given), at(0)).await;
    let job = world.job("a").await.unwrap();
    (world, job)
}

#[tokio::test]
async fn two_changes_of_different_options_both_count_though_each_was_checked_against_the_same_job()
{
    let (mut world, base) = world_with(json!({"id": "a"})).await;
    let first = change(&base, json!({"timeout": 60}));
    let second = change(&base, json!({"max_runs": 5, "task": {"args": {"x": 1}}}));
    for step in [vec![first.clone(), second.clone()], vec![second], vec![first]] {
        let requests = step.into_iter().map(Request::Modify).collect();
        world.ask_all(requests, at(1)).await.into_iter().for_each(|answer| drop(modified(answer)));
        let job = world.job("a").await.unwrap().to_value();
        assert_eq!((&job["max_runs"], &job["task"]["args"]), (&json!(5), &json!({"x": 1})));
    }
    assert_eq!(world.job("a").await.unwrap().to_value()["timeout"], 60);
}

#[tokio::test]
async fn the_answers_of_one_step_show_a_revision_alike() {
    let (mut world, base) = world_with(json!({"id": "a"})).await;
    let requests = vec![
        Request::Modify(change(&base, json!({"timeout": 60}))),
        Request::Pause(base.id.clone(), PauseTerms::default()),
        Request::Modify(change(&base, json!({"priority": 5}))),
    ];
    let answers = world.ask_all(requests, at(1)).await;
    let jobs: Vec<Value> = answers
        .into_iter()
        .map(|answer| match answer.unwrap() {
            Response::Job(job) | Response::Modified(Modified { after: job, .. }) => job.to_value(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(jobs[0]["revision"], 2);
    assert_eq!((&jobs[0]["priority"], &jobs[0]["state"]), (&json!(5), &json!("paused")));
    assert!(jobs.iter().all(|job| *job == jobs[0]), "{jobs:?}");
}

#[tokio::test]
async fn a_change_whose_version_is_gone_changes_nothing_wherever_it_is_noticed() {
    let (mut world, base) = world_with(json!({"id": "a"})).await;
    let only_first = Precondition::OneOf(vec![base.version()]);
    let guarded = |patch: Value| {
        let precondition = only_first.clone();
        Request::Modify(Modification { precondition, ..change(&base, patch) })
    };
    let answers =
        world.ask_all(vec![guarded(json!({"timeout": 1})), guarded(json!({"timeout": 2}))], at(1));
    let mut answers = answers.await.into_iter();
    assert_eq!(modified(answers.next().unwrap()).after.revision, 2);
    let refused = answers.next().unwrap().unwrap_err();
    assert!(matches!(refused, RequestError::PreconditionFailed { revision: 2, .. }), "{refused}");
    let pause = |id| Request::Pause(id, PauseTerms::default());
    for request in [Request::Remove, pause, Request::Resume] {
        let (job, precondition) = (base.id.clone(), only_first.clone());
        let request = Box::new(request(base.id.clone()));
        let answer = world.ask(Request::IfVersion { job, precondition, request }, at(2)).await;
        assert!(matches!(answer, Err(RequestError::PreconditionFailed { .. })), "{answer:?}");
    }
    let job = world.job("a").await.unwrap();
    assert_eq!((job.revision, job.state.word()), (2, "active"));
    assert_eq!(job.to_value()["timeout"], 1);
}

#[tokio::test]
async fn a_job_that_is_removed_and_added_again_has_another_version() {
    let (mut world, first) = world_with(json!({"id": "a"})).await;
    world.remove("a", at(1)).await;
    world.add(job_at(&json!({"id": "a"}), at(2)), at(2)).await;
    let second = world.job("a").await.unwrap();
    assert_eq!((first.revision, second.revision), (1, 1));
    assert!(!first.version().is_of(&second));
    assert!(JobVersion::parse("1").unwrap().is_of(&second), "a revision alone is either");
}

#[tokio::test]
async fn a_change_of_anything_but_the_trigger_leaves_the_schedule_the_pause_and_the_count_alone() {
    let (mut world, _) = world_with(json!({"id": "a", "max_runs": 3})).await;
    world.tick(at(10)).await;
    world.finish_all(at(11)).await;
    let base = world.job("a").await.unwrap();
    let patches = [
        json!({"name": "new", "tags": ["x"]}),
        json!({"trigger": {"seconds": 10.0}}),
        json!({"trigger": {"timezone": "Asia/Tokyo"}}),
        json!({}),
    ];
    for patch in patches {
        world.ask(Request::Modify(change(&base, patch.clone())), at(12)).await.unwrap();
        let job = world.job("a").await.unwrap();
        assert_eq!((job.run_count, job.next()), (1, base.next()), "{patch}");
        assert_eq!(job.anchor, base.anchor, "{patch}");
    }
    world.ask(Request::Pause(base.id.clone(), PauseTerms::default()), at(13)).await.unwrap();
    for patch in [json!({"timeout": 5}), json!({"trigger": {"seconds": 20}})] {
        world.ask(Request::Modify(change(&base, patch.clone())), at(14)).await.unwrap();
        assert_eq!(world.job("a").await.unwrap().state.word(), "paused", "{patch}");
    }
    assert_eq!(world.job("a").await.unwrap().run_count, 0, "another trigger counts from 0");
}

#[tokio::test]
async fn what_is_changed_in_a_finished_job_does_not_run_it_again_except_another_trigger() {
    // A trigger without a date is due when it is given, and this one is not given again.
    let (mut world, _) = world_with(json!({"id": "a", "trigger": {"type": "date"}})).await;
    world.tick(at(0)).await;
    world.finish_all(at(1)).await;
    let base = world.job("a").await.unwrap();
    assert_eq!(base.state, JobState::Finished);
    world.ask(Request::Modify(change(&base, json!({"name": "new"}))), at(2)).await.unwrap();
    let base = world.job("a").await.unwrap();
    assert_eq!((&base.state, base.name.as_str()), (&JobState::Finished, "new"));
    let trigger = json!({"trigger": {"type": "interval", "seconds": 10}});
    world.ask(Request::Modify(change(&base, trigger)), at(5)).await.unwrap();
    assert_eq!(world.job("a").await.unwrap().next().unwrap().due_at, at(15));
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_writes_nothing() {
    let (mut world, base) = world_with(json!({"id": "a"})).await;
    let change = change(&base, json!({"trigger": {"seconds": 60}, "timeout": 5}));
    let dry_run = Modification { dry_run: true, ..change };
    let would_be = modified(world.ask(Request::Modify(dry_run), at(1)).await);
    assert_eq!(would_be.before.to_value(), base.to_value());
    assert_eq!(would_be.before.changed_options(&would_be.after), ["trigger", "timeout"]);
    assert_eq!(would_be.after.next().unwrap().due_at, at(65), "from when it was checked");
    assert_eq!(world.job("a").await.unwrap().to_value(), base.to_value());
}

#[tokio::test]
async fn a_change_that_changes_nothing_is_no_new_version() {
    let (mut world, base) = world_with(json!({"id": "a", "timeout": 60})).await;
    for patch in [json!({}), json!({"timeout": 60, "id": "a"}), json!({"max_runs": null})] {
        let answer = world.ask(Request::Modify(change(&base, patch.clone())), at(1)).await;
        assert_eq!(modified(answer).after.revision, 1, "{patch}");
    }
    assert_eq!(world.job("a").await.unwrap().revision, 1);
}

#[tokio::test]
async fn rescheduling_resumes_a_paused_job_and_accounts_for_what_the_pause_held_back() {
    for (trigger, expected) in [
        // The same trigger goes on, another one begins.
        (json!({"type": "interval", "seconds": 10}), at(50)),
        (json!({"type": "interval", "seconds": 100}), at(141)),
    ] {
        let (mut world, base) = world_with(json!({"id": "a"})).await;
        world.ask(Request::Pause(base.id.clone(), PauseTerms::default()), at(1)).await.unwrap();
        let base = world.job("a").await.unwrap();
        let patch = JobPatch::of_trigger(trigger);
        let checked = rules(1).modify(&base, &patch, at(41)).unwrap();
        let change = Modification {
            patch: Arc::new(patch),
            checked: Box::new(checked),
            resumes: true,
            ..change(&base, json!({}))
        };
        let dry_run = Modification { dry_run: true, ..change.clone() };
        let would_be = modified(world.ask(Request::Modify(dry_run), at(41)).await).after;
        assert!(world.ledger("a").await.is_empty());
        assert_eq!(world.job("a").await.unwrap().revision, base.revision);
        let after = modified(world.ask(Request::Modify(change), at(41)).await).after;
        assert_eq!((after.next(), &after.state), (would_be.next(), &would_be.state));
        assert_eq!(after.next().unwrap().due_at, expected);
        assert_eq!(world.ledger("a").await, ["10..40 paused 4"]);
    }
}

#[tokio::test]
async fn a_broken_job_is_repaired_by_a_change_and_one_that_cannot_be_read_is_not() {
    let (mut world, _) = world_with(json!({"id": "a"})).await;
    let base = world.job("a").await.unwrap();
    let mut broken = Job { executor: "gone".to_owned(), ..base.clone() };
    broken.state = base.state.broken("unknown executor".to_owned());
    world.remove("a", at(1)).await;
    world.insert(broken.clone()).await;
    let patch = JobPatch::parse(json!({"name": "x"})).unwrap();
    assert_eq!(rules(1).modify(&broken, &patch, at(31)).unwrap_err().field, "executor");
    let repair = change(&broken, json!({"executor": "default"}));
    let after = modified(world.ask(Request::Modify(repair), at(31)).await).after;
    assert_eq!(after.next().unwrap().due_at, at(40));
    assert_eq!(world.ledger("a").await, ["10..30 broken 3"]);
}

#[tokio::test]
async fn a_change_that_fits_no_more_when_it_is_made_is_refused_by_its_field() {
    let (mut world, base) = world_with(json!({"id": "a"})).await;
    let seconds = change(&base, json!({"trigger": {"seconds": 20}}));
    let new = json!({"id": "a", "trigger": {"type": "cron", "hour": 3}});
    let job = Box::new(job(&new));
    world.ask(Request::Add(Addition { job, existing: Existing::Redefine }), at(1)).await.unwrap();
    let refused = world.ask(Request::Modify(seconds), at(2)).await.unwrap_err();
    let RequestError::Invalid(invalid) = refused else { panic!("{refused:?}") };
    assert_eq!(invalid.field, "trigger.seconds");
}
