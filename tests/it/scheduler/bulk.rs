//! The same for many jobs in one step.

use std::sync::Arc;

use punctual::filter::JobConditions;
use punctual::job::{Job, JobId, JobState, Origin, PauseTerms};
use punctual::scheduler::request::{BulkAction, BulkTally, Request, RequestError, Response};
use serde_json::json;
use support::jobs::{at, job};
use support::world::World;

async fn act(world: &mut World, action: BulkAction, ids: &[&str], tag: &str) -> BulkTally {
    let conditions = JobConditions { tag: Some(tag.to_owned()), ..JobConditions::default() };
    let ids = ids.iter().map(|id| JobId::parse(id).unwrap()).collect();
    let request = Request::Bulk { action, ids, conditions: Arc::new(conditions) };
    let Ok(Response::Bulk(tally)) = world.ask(request, at(1)).await else {
        panic!("no tally");
    };
    tally
}

#[tokio::test]
async fn a_job_that_does_not_meet_the_conditions_any_more_is_left_alone() {
    let mut world = World::new(5).await;
    for (id, tag) in [("a", "x"), ("b", "y"), ("c", "x")] {
        world.add(job(&json!({"id": id, "tags": [tag]})), at(0)).await;
    }
    world.remove("c", at(0)).await;
    let tally = act(&mut world, BulkAction::Remove, &["a", "b", "c", "d"], "x").await;
    assert_eq!(tally, BulkTally { changed: 1, unchanged: 0, refused: Vec::new() });
    assert!(world.job("a").await.is_none() && world.job("b").await.is_some());
}

#[tokio::test]
async fn each_job_is_counted_by_what_became_of_it() {
    let mut world = World::new(5).await;
    for id in ["a", "b", "own"] {
        world.add(job(&json!({"id": id, "tags": ["x"]})), at(0)).await;
    }
    let tagged = |id: &str| job(&json!({"id": id, "tags": ["x"]}));
    world.insert(Job { state: JobState::Finished, ..tagged("over") }).await;
    world.insert(Job { origin: Origin::File, ..tagged("declared") }).await;
    let all = ["a", "b", "own", "over", "declared"];
    let paused = act(&mut world, BulkAction::Pause(PauseTerms::default()), &all, "x").await;
    assert_eq!((paused.changed, paused.unchanged, paused.refused.len()), (4, 1, 0));
    let again = act(&mut world, BulkAction::Pause(PauseTerms::default()), &all, "x").await;
    assert_eq!((again.changed, again.unchanged), (0, 5));
    let resumed = act(&mut world, BulkAction::Resume, &all, "x").await;
    assert_eq!((resumed.changed, resumed.unchanged), (4, 1));
    let removed = act(&mut world, BulkAction::Remove, &all, "x").await;
    assert_eq!((removed.changed, removed.unchanged), (4, 0));
    let [(id, RequestError::DeclaredInFile { .. })] = &removed.refused[..] else {
        panic!("{removed:?}");
    };
    assert_eq!(id.as_str(), "declared");
}
