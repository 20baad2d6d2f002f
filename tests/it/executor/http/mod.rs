//! Calls over HTTP against a server whose every byte the test decides.

mod answers;
mod asks;
mod ends;
mod secrets;
mod tls;

use punctual::executor::Completion;
use punctual::run::Outcome;
use punctual::task::builtin::Registry;
use serde_json::Value;
use support::pools::Bench;

/// The pools `threads` and `processes`; calls are made in the first one.
fn bench() -> Bench {
    Bench::two_pools(Registry::default())
}

/// The result of a run that has succeeded.
fn result(completion: &Completion) -> &Value {
    let Outcome::Succeeded { result: Some(result), .. } = &completion.outcome else {
        panic!("{completion:?}");
    };
    result
}

/// The error of a run that has failed, and whether it would fail again.
fn failure(completion: &Completion) -> (&str, bool) {
    let Outcome::Failed { error, permanent, .. } = &completion.outcome else {
        panic!("{completion:?}");
    };
    (error, *permanent)
}
