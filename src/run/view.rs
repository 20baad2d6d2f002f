//! The JSON forms of runs and attempts in the API.

use chrono::TimeDelta;
use serde_json::{Map, Value, json};

use super::{Attempt, Cause, Cost, Outcome, Run, RunState};
use crate::clock::{Timestamp, rfc3339};

impl Run {
    pub fn to_value(&self) -> Value {
        let subject = match &self.cause {
            Cause::Event { subject, .. } => Some(&*subject.0),
            Cause::Schedule | Cause::Manual => None,
        };
        let mut value = json!({
            "id": &*self.id.0,
            "job_id": self.job_id,
            "state": self.state.word(),
            "cause": self.cause.word(),
            "subject": subject,
            "attempt": self.attempt,
            "scheduled_at": self.scheduled_at.map(rfc3339),
            "due_at": rfc3339(self.due_at),
            "started_at": null,
            "finished_at": null,
            "executor": self.executor,
            "node": &*self.node,
            "exit_code": null,
            "signal": null,
            "error": null,
            "result": null,
            "reason": null,
            "wall_time": null,
            "cpu_time": null,
            "peak_memory": null,
            "last_scheduled_at": null,
            "count": 1,
        });
        let Value::Object(map) = &mut value else { return value };
        match &self.state {
            RunState::Pending => {}
            RunState::Running { started_at } => {
                map.insert("started_at".to_owned(), rfc3339(*started_at).into());
            }
            RunState::Ended { started_at, finished_at, outcome, cost } => {
                set_end(map, *started_at, *finished_at, outcome, *cost);
            }
            RunState::Skipped { reason, last_scheduled_at, count } => {
                map.insert("reason".to_owned(), reason.word().into());
                let last = rfc3339(*last_scheduled_at);
                map.insert("last_scheduled_at".to_owned(), last.into());
                map.insert("count".to_owned(), json!(count));
            }
        }
        value
    }
}

impl Attempt {
    pub fn to_value(&self) -> Value {
        let mut map = Map::from_iter([
            ("attempt".to_owned(), json!(self.number)),
            ("node".to_owned(), json!(&*self.node)),
            ("state".to_owned(), json!(self.outcome.word())),
        ]);
        set_end(&mut map, self.started_at, self.finished_at, &self.outcome, self.cost);
        map.remove("result");
        Value::Object(map)
    }
}

/// Sets the keys of an attempt that has ended.
fn set_end(
    map: &mut Map<String, Value>,
    started_at: Timestamp,
    finished_at: Timestamp,
    outcome: &Outcome,
    cost: Cost,
) {
    let mut set = |key: &str, value: Value| map.insert(key.to_owned(), value);
    set("started_at", rfc3339(started_at).into());
    set("finished_at", rfc3339(finished_at).into());
    match outcome {
        Outcome::Succeeded { result, exit_code } => {
            set("result", result.clone().unwrap_or_default());
            set("exit_code", json!(exit_code));
        }
        Outcome::Failed { error, exit_code, signal, permanent } => {
            set("error", error.as_str().into());
            set("exit_code", json!(exit_code));
            set("signal", json!(signal));
            set("reason", json!(permanent.then_some("permanent")));
        }
        Outcome::Cancelled { reason: error }
        | Outcome::TimedOut { error }
        | Outcome::Lost { error } => {
            set("error", error.as_str().into());
        }
    }
    set("wall_time", finished_at.signed_duration_since(started_at).as_seconds_f64().into());
    let cpu = cost.cpu_micros.and_then(|micros| i64::try_from(micros).ok());
    set("cpu_time", json!(cpu.map(TimeDelta::microseconds).map(TimeDelta::as_seconds_f64)));
    set("peak_memory", json!(cost.peak_memory));
}
