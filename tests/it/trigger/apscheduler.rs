//! Our triggers against APScheduler itself: its own test suites with Punctual as the engine, and random triggers asked
//! of both side by side. Where the two differ on purpose is written down in `tests/apscheduler/`.

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use support::{is_required, left_out, program};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Whether Python, APScheduler and its tests are there. Once for all tests: they must not be installed twice at a time.
///
/// Where they are not: installed if `PUNCTUAL_REQUIRE_SERVERS` is 1, else a loud line.
static IS_READY: LazyLock<bool> = LazyLock::new(|| {
    if is_required() {
        run("tests/apscheduler/setup.sh", &[]);
        return true;
    }
    let is_ready = Path::new(ROOT).join("target/apscheduler/stamp").exists();
    if !is_ready {
        left_out(
            "tests/apscheduler/setup.sh was not run, so nothing was compared with APScheduler",
        );
    }
    is_ready
});

/// Runs a tool of this repository, which has to succeed. Its output is shown if it does not.
fn run(tool: &str, arguments: &[&str]) {
    let output = Command::new(tool).args(arguments).current_dir(ROOT).output();
    let output = output.unwrap_or_else(|error| panic!("{tool}: {error}"));
    assert!(
        output.status.success(),
        "{tool} {arguments:?}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_trigger_tests_of_apscheduler_3_pass_with_punctual_as_their_engine() {
    if *IS_READY {
        run("tests/apscheduler/suites/run.sh", &["3.11.3", program()]);
    }
}

#[test]
fn the_trigger_tests_of_apscheduler_4_pass_with_punctual_as_their_engine() {
    if *IS_READY {
        run("tests/apscheduler/suites/run.sh", &["4.0.0a6", program()]);
    }
}

#[test]
fn random_triggers_fire_when_those_of_apscheduler_do_but_for_the_differences_that_are_written_down()
{
    if *IS_READY {
        let python = "target/apscheduler/venv/bin/python";
        let arguments = ["-B", "tests/apscheduler/differential.py", "--punctual", program()];
        run(python, &[&arguments[..], &["--seed", "2", "--cases", "10000"]].concat());
    }
}
