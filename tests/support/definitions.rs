//! Definitions of jobs as a client of the control socket sends them.

use serde_json::{Value, json};

/// An instant in UTC that does not come while tests run: a job that is due then runs only on request.
pub const NEVER: &str = "2100-01-01 00:00:00";

/// A job that is due once, at an instant in UTC.
pub fn once(id: &str, at: &str, task: Value) -> Value {
    json!({"id": id, "trigger": {"type": "date", "run_date": at, "timezone": "UTC"}, "task": task})
}

/// A job that runs only on request.
pub fn by_hand(id: &str, task: Value) -> Value {
    once(id, NEVER, task)
}

/// A task that does nothing.
pub fn noop() -> Value {
    builtin("noop", json!({}))
}

pub fn builtin(name: &str, args: Value) -> Value {
    json!({"type": "builtin", "name": name, "args": args})
}

/// A command that a shell runs.
pub fn shell(script: &str) -> Value {
    json!({"type": "command", "argv": ["/bin/sh", "-c", script]})
}

/// A task, a trigger or a job with more keys.
pub fn with(mut value: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("{more}") };
    value.as_object_mut().unwrap().extend(more);
    value
}
