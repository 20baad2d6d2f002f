//! The builtins that every daemon has, for tests, demonstrations and benchmarks: `noop`, `sleep` and `fail`.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::builtin::{Args, BuiltinFunction, Call, Registry, TaskError};
use crate::invalid::{self, Invalid};

/// The longest sleep in seconds: one day.
const SLEEP_SECONDS_MAX: f64 = 86_400.0;

pub fn register(registry: &mut Registry) {
    registry.register(Noop);
    registry.register(Sleep);
    registry.register(Fail);
}

fn read<T: DeserializeOwned>(args: &Args) -> Result<T, Invalid> {
    invalid::read(Value::Object(args.clone()))
}

/// The arguments were checked when the job was added, but somebody may have edited the store since.
fn unreadable(invalid: &Invalid) -> TaskError {
    TaskError::permanent(format!("args: {invalid}"))
}

/// Does nothing and returns its arguments.
struct Noop;

impl BuiltinFunction for Noop {
    fn name(&self) -> &'static str {
        "noop"
    }

    fn check(&self, _: &Args) -> Result<(), Invalid> {
        Ok(())
    }

    fn run(&self, call: &Call) -> Result<Value, TaskError> {
        Ok(Value::Object(call.args.clone()))
    }
}

/// Waits for `seconds`, and ends early if it is cancelled.
struct Sleep;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SleepArgs {
    seconds: f64,
}

impl BuiltinFunction for Sleep {
    fn name(&self) -> &'static str {
        "sleep"
    }

    fn check(&self, args: &Args) -> Result<(), Invalid> {
        let SleepArgs { seconds } = read(args)?;
        if (0.0..=SLEEP_SECONDS_MAX).contains(&seconds) {
            return Ok(());
        }
        Err(Invalid::new("seconds", format!("must be between 0 and {SLEEP_SECONDS_MAX}")))
    }

    fn run(&self, call: &Call) -> Result<Value, TaskError> {
        self.check(&call.args).map_err(|invalid| unreadable(&invalid))?;
        let SleepArgs { seconds } = read(&call.args).map_err(|invalid| unreadable(&invalid))?;
        if call.wait(Duration::from_secs_f64(seconds)) {
            return Err(TaskError::Cancelled);
        }
        Ok(json!({ "seconds": seconds }))
    }
}

/// Fails with `message`, so that no retry can succeed if `permanent`.
struct Fail;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FailArgs {
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    permanent: bool,
}

impl BuiltinFunction for Fail {
    fn name(&self) -> &'static str {
        "fail"
    }

    fn check(&self, args: &Args) -> Result<(), Invalid> {
        read::<FailArgs>(args).map(drop)
    }

    fn run(&self, call: &Call) -> Result<Value, TaskError> {
        let FailArgs { message, permanent } =
            read(&call.args).map_err(|invalid| unreadable(&invalid))?;
        let message = message.unwrap_or_else(|| "failed as asked".to_owned());
        Err(if permanent { TaskError::Permanent(message) } else { TaskError::Passing(message) })
    }
}
