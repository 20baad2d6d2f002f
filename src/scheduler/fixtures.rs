//! Jobs and runs for the unit tests of this folder. The tests of the scheduler as a whole are in `tests/`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::executor::{ExecutorKind, PoolSettings};
use crate::job::admission::Rules;
use crate::job::{Definition, Due, Job, JobId, JobState, Origin, PolicyInput};
use crate::run::{Cause, HookEvent, Run, RunId, RunState};
use crate::task::builtin::Registry;
use crate::task::standard;
use crate::zone::{DefaultZone, Zone};

/// An instant, in seconds after the one at which the jobs of tests are defined.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

pub(crate) fn pool(kind: ExecutorKind, max_workers: usize) -> PoolSettings {
    PoolSettings { kind, max_workers }
}

/// A job with these keys in its definition. Without them it is due every ten seconds and does nothing.
pub(crate) fn job(id: &str, keys: Value) -> Job {
    let mut definition = json!({
        "id": id,
        "trigger": {"type": "interval", "seconds": 10},
        "task": {"type": "builtin", "name": "noop"},
    });
    let Value::Object(keys) = keys else { panic!("{keys}") };
    definition.as_object_mut().unwrap().extend(keys);
    let mut registry = Registry::default();
    standard::register(&mut registry);
    let pools =
        ["default", "other"].map(|name| (name.to_owned(), pool(ExecutorKind::ProcessPool, 1)));
    let rules = Rules {
        zone: DefaultZone { zone: Zone::utc(), source: "the test".to_owned() },
        defaults: PolicyInput::default(),
        executors: BTreeMap::from(pools),
        max_crashes: 3,
        builtins: Arc::new(registry),
        source: "jobs.toml".into(),
        rights: None,
    };
    rules.admit(Definition::parse(definition).unwrap(), Origin::Socket, at(0)).unwrap()
}

/// A job of the pool `default` that is due next at this second.
pub(crate) fn due_job(id: &str, second: i64) -> Job {
    due_again(&job("any", json!({})), id, second)
}

/// The same job under another id and due at another second: cheap to make in large numbers.
pub(crate) fn due_again(job: &Job, id: &str, second: i64) -> Job {
    let next = Due { scheduled_at: at(second), due_at: at(second) };
    Job { id: JobId::parse(id).unwrap(), state: JobState::Active { next }, ..job.clone() }
}

/// A run of a job that is due at this second, and waits.
pub(crate) fn run(id: &str, job: &Job, second: i64) -> Run {
    Run {
        id: RunId(id.into()),
        job_id: job.id.clone(),
        anchor: job.anchor,
        cause: Cause::Schedule,
        scheduled_at: Some(at(second)),
        due_at: at(second),
        attempt: 1,
        crashes: 0,
        executor: job.executor.clone(),
        node: "here".into(),
        created_at: at(second),
        state: RunState::Pending,
    }
}

/// A hook run of a job.
pub(crate) fn hook_run(id: &str, job: &Job, second: i64) -> Run {
    let cause = Cause::Event { event: HookEvent::Failure, subject: RunId("subject".into()) };
    Run { cause, scheduled_at: None, ..run(id, job, second) }
}

pub(crate) fn shared(job: &Job) -> Arc<Job> {
    Arc::new(job.clone())
}
