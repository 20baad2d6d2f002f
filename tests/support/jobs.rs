//! Jobs and runs for tests of the core and the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use punctual::clock::Timestamp;
use punctual::executor::{ExecutorKind, PoolSettings};
use punctual::job::admission::Rules;
use punctual::job::{Definition, Job, JobId, Origin, PolicyInput};
use punctual::run::{Cause, Run, RunId, RunState};
use punctual::task::builtin::Registry;
use punctual::task::standard;
use punctual::zone::{DefaultZone, Zone};
use serde_json::{Value, json};

/// Deaths of the daemon after which a run is lost.
pub const MAX_CRASHES: u32 = 3;

/// An instant, in seconds from a beginning.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

/// The source of the jobs that are declared.
pub const SOURCE: &str = "jobs.toml";

/// Rules with one pool, called `default`, of processes: nothing is handed over before one of them is free.
pub fn rules(max_workers: usize) -> Rules {
    let mut registry = Registry::default();
    standard::register(&mut registry);
    let pool = PoolSettings { kind: ExecutorKind::ProcessPool, max_workers };
    let executors = BTreeMap::from([("default".to_owned(), pool)]);
    let zone = DefaultZone { zone: Zone::utc(), source: "the test".to_owned() };
    Rules {
        zone,
        defaults: PolicyInput::default(),
        executors,
        max_crashes: MAX_CRASHES,
        builtins: Arc::new(registry),
        source: SOURCE.into(),
        rights: None,
    }
}

/// A job, defined at the beginning; what is not given is an interval of ten seconds and a no-op.
pub fn job(given: &Value) -> Job {
    job_at(given, at(0))
}

/// A job, defined at an instant.
pub fn job_at(given: &Value, now: Timestamp) -> Job {
    let mut definition = json!({"trigger": {"type": "interval", "seconds": 10}, "task": {"type": "builtin", "name": "noop"}});
    definition.as_object_mut().unwrap().extend(given.as_object().unwrap().clone());
    rules(1).admit(Definition::parse(definition).unwrap(), Origin::Socket, now).unwrap()
}

/// A waiting run of a job; ids rise in the order in which they are made.
pub fn run(job_id: &str, scheduled_at: Option<Timestamp>) -> Run {
    use std::sync::atomic::{AtomicU64, Ordering};
    static MADE: AtomicU64 = AtomicU64::new(0);
    Run {
        id: RunId(format!("run-{:06}", MADE.fetch_add(1, Ordering::Relaxed)).into()),
        job_id: JobId::parse(job_id).unwrap(),
        anchor: at(0),
        cause: Cause::Schedule,
        scheduled_at,
        due_at: scheduled_at.unwrap_or(at(10)),
        attempt: 1,
        crashes: 0,
        executor: "default".to_owned(),
        node: "here".into(),
        created_at: at(10),
        state: RunState::Pending,
    }
}
