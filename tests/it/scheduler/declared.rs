//! Jobs of files: those whose declarations are faulty, and those that several files declare.

use std::collections::BTreeMap;

use punctual::job::admission::Rules;
use punctual::job::{Job, JobId, JobState, Origin, PauseTerms};
use punctual::scheduler::request::{
    Addition, Conflict, Difference, Existing, InvalidDeclaration, Request,
};
use serde_json::{Value, json};

use support::jobs::{self, at, job, job_at};
use support::world::World;

/// A job as a file declares it.
fn declared(given: &Value, second: i64) -> Job {
    Job { origin: Origin::File, ..job_at(given, at(second)) }
}

/// Declares jobs of a file of this source, in one step, and breaks some of its jobs.
async fn load(
    world: &mut World,
    source: &str,
    jobs: Vec<Job>,
    faulty: &[&str],
    second: i64,
) -> Difference {
    let rules = Rules { source: source.into(), ..jobs::rules(5) };
    let fault = |id: &&str| InvalidDeclaration {
        id: JobId::parse(id).unwrap(),
        reason: "at its line".to_owned(),
    };
    let broken: Vec<InvalidDeclaration> = faulty.iter().map(fault).collect();
    let ids: Vec<JobId> = broken.iter().map(|fault| fault.id.clone()).collect();
    let breaking = Request::BreakDeclared(broken);
    world.ask_all(vec![Request::SetRules(Box::new(rules.clone())), breaking], at(second)).await;
    world.try_reload_but(rules, jobs, &ids, at(second)).await.unwrap()
}

#[tokio::test]
async fn a_job_whose_declaration_is_faulty_does_not_fire_and_goes_on_as_before_once_it_is_mended() {
    let mut world = World::new(5).await;
    let every = |id: &str, given: Value| {
        let mut job = json!({"id": id, "trigger": {"type": "interval", "seconds": 10}});
        job.as_object_mut().unwrap().extend(given.as_object().unwrap().clone());
        job
    };
    let once = json!({"type": "date", "run_date": "2027-01-15T08:00:05Z"});
    let later = json!({"type": "date", "run_date": "2027-01-15T08:00:25Z"});
    let slow = json!({"type": "interval", "seconds": 60});
    let all = [
        every("ticks", json!({"max_runs": 9})),
        every("slow", json!({"trigger": slow})),
        every("other", json!({})),
        every("paused", json!({})),
        every("ran", json!({"trigger": once})),
        every("late", json!({"trigger": later})),
    ];
    let jobs = |second| all.iter().map(|given| declared(given, second)).collect::<Vec<_>>();
    let ids = ["ticks", "slow", "other", "paused", "ran", "late"];
    load(&mut world, "jobs.toml", jobs(0), &[], 0).await;
    world
        .ask(Request::Pause(JobId::parse("paused").unwrap(), PauseTerms::default()), at(1))
        .await
        .unwrap();
    world.tick(at(5)).await;
    world.tick(at(10)).await;
    world.finish_all(at(11)).await;
    let before = world.job("slow").await.unwrap();

    load(&mut world, "jobs.toml", Vec::new(), &ids, 12).await;
    world.tick(at(35)).await;
    for id in ids {
        let job = world.job(id).await.unwrap();
        let JobState::Broken { reason, .. } = &job.state else { panic!("{id}: {:?}", job.state) };
        assert_eq!((reason.as_str(), job.source.as_deref()), ("at its line", Some("jobs.toml")));
        for request in [
            Request::Run(job.id.clone()),
            Request::Resume(job.id.clone()),
            Request::Remove(job.id.clone()),
        ] {
            assert!(world.ask(request, at(35)).await.is_err(), "{id}");
        }
    }
    let revision = before.revision + 1;
    assert_eq!(world.job("slow").await.unwrap().revision, revision);
    load(&mut world, "jobs.toml", Vec::new(), &ids, 36).await;
    assert_eq!(world.job("slow").await.unwrap().revision, revision, "it is broken already");

    let mut mended = jobs(37);
    mended[2] =
        declared(&every("other", json!({"trigger": {"type": "interval", "seconds": 7}})), 37);
    let difference = load(&mut world, "jobs.toml", mended, &[], 37).await;
    assert_eq!((difference.changed, difference.unchanged), (ids.map(str::to_owned).to_vec(), 0));
    world.tick(at(37)).await;
    world.finish_all(at(38)).await;
    assert_eq!(world.ledger("ticks").await, ["10 succeeded", "20..30 broken 2"]);
    assert_eq!(world.job("ticks").await.unwrap().run_count, 1);
    assert_eq!(world.job("slow").await.unwrap().state, before.state, "its next run stays");
    assert_eq!(world.ledger("other").await, ["10 succeeded", "20..30 broken 2"]);
    assert_eq!(world.job("other").await.unwrap().next().unwrap().due_at, at(44), "it begins again");
    assert_eq!(world.job("paused").await.unwrap().state.word(), "paused");
    assert_eq!(world.job("ran").await.unwrap().state, JobState::Finished);
    assert_eq!(world.ledger("ran").await, ["5 succeeded"], "it does not run again");
    assert_eq!(world.ledger("late").await, ["25 succeeded"], "it is late");
    world.ask(Request::Resume(JobId::parse("paused").unwrap()), at(45)).await.unwrap();
    assert_eq!(world.ledger("paused").await, ["10..40 paused 4"]);
}

#[tokio::test]
async fn a_faulty_job_that_is_new_is_broken_until_it_is_mended_and_then_begins() {
    let mut world = World::new(5).await;
    world.add(job(&json!({"id": "mine"})), at(0)).await;
    load(&mut world, "jobs.toml", Vec::new(), &["new", "jobs[1]", "mine"], 1).await;
    let state = |job: Option<Job>| job.map_or("none", |job| job.state.word());
    assert_eq!(state(world.job("new").await), "broken");
    assert_eq!(state(world.job("jobs[1]").await), "broken");
    assert_eq!(state(world.job("mine").await), "active", "the file has never declared it");
    world.crash(at(5)).await;
    assert_eq!(state(world.job("new").await), "broken");
    let mended = vec![declared(&json!({"id": "new"}), 7)];
    let difference = load(&mut world, "jobs.toml", mended, &[], 7).await;
    assert_eq!(
        (difference.changed, difference.removed),
        (vec!["new".to_owned()], vec!["jobs[1]".to_owned()])
    );
    assert_eq!(world.job("new").await.unwrap().next().unwrap().due_at, at(17));
}

#[tokio::test]
async fn a_file_changes_and_removes_only_the_jobs_of_its_own_source() {
    let mut world = World::new(5).await;
    let given = |id: &str, seconds: u64| json!({"id": id, "trigger": {"type": "interval", "seconds": seconds}});
    let old = |id: &str| Job { origin: Origin::File, ..job(&given(id, 10)) };
    // Declared by a version that kept no sources.
    for id in ["kept", "gone"] {
        world.insert(Job { source: None, ..old(id) }).await;
    }
    let difference = load(&mut world, "one", vec![old("kept"), old("both")], &[], 1).await;
    assert_eq!(
        (difference.added, difference.removed, difference.unchanged),
        (vec!["both".to_owned()], vec!["gone".to_owned()], 1)
    );
    assert_eq!(world.job("kept").await.unwrap().source.as_deref(), Some("one"), "it is adopted");

    let two = vec![old("own"), declared(&given("both", 7), 2)];
    let difference = load(&mut world, "two", two, &["kept"], 2).await;
    let conflict =
        Conflict { id: "both".to_owned(), other: "one".to_owned(), own: "two".to_owned() };
    assert_eq!((difference.conflicts, difference.removed), (vec![conflict], Vec::new()));
    let both = world.job("both").await.unwrap();
    assert_eq!((both.source.as_deref(), both.next().unwrap().due_at), (Some("one"), at(10)));
    assert_eq!(world.job("kept").await.unwrap().state.word(), "active");

    let id = |id: &str| JobId::parse(id).unwrap();
    let add = Addition { job: Box::new(job(&given("both", 3))), existing: Existing::Redefine };
    let refused = world.ask(Request::Add(add), at(3)).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "job \"both\" is declared in a file (source \"one\"): change it there and reload"
    );
    let refused = world.ask(Request::Remove(id("own")), at(3)).await.unwrap_err();
    assert!(refused.to_string().contains("source \"two\""), "{refused}");
    world.ask(Request::Remove(id("kept")), at(3)).await.unwrap();
    assert!(world.job("kept").await.is_none(), "its file may be gone for good");
    // Without pools: what another file declares is judged by the daemons that have it.
    let rules = Rules { source: "two".into(), executors: BTreeMap::new(), ..jobs::rules(1) };
    world.try_reload(rules, Vec::new(), at(4)).await.unwrap();
    assert_eq!(world.job("both").await.unwrap().state.word(), "active");
}
