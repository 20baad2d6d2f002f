//! Everything that needs a real systemd: the package, the unit, and the daemon under them.
//!
//! To add a test, put it into the module of its subject (`tests/machine/*.rs`, declared here) and begin it with
//! `let Some(machine) = Machine::installed() else { return };`. It then has a machine of its own with the package
//! installed and the daemon running; `Machine::boot()` leaves the installation to the test. Commands run inside with
//! `machine.ok(&["systemctl", "status", "punctual"])`, as other users with `machine.run_as("anna", …)`. Nothing
//! sleeps: `machine.wait_until("it is active again", |machine| …)` checks again whenever the machine logs something.
//! A machine costs about two seconds, so checks that do not disturb each other share one.
//!
//! It is a program of its own, because a booted system is heavy and takes most of a machine.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot go on panics, and one that is left out says so"
)]

mod commands;
mod databases;
mod drop_ins;
mod life;
mod log;
mod machine;
mod package;
mod sandbox;
mod shortage;
mod stop;
mod watchdog;
