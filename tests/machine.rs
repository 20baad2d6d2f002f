//! Everything that needs a real systemd: the package, the unit, and the daemon under them.
//!
//! To add a test, put it into the module of its subject (`tests/machine/*.rs`, declared here) and begin it with
//! `let Some(machine) = Machine::installed() else { return };`. It then has a machine of its own with the package
//! installed and the daemon running; `Machine::boot()` leaves the installation to the test. Commands run inside with
//! `machine.ok(&["systemctl", "status", "punctual"])`, as other users with `machine.run_as("anna", …)`. Nothing
//! sleeps: `machine.wait_until("it is active again", |machine| …)` looks again whenever the machine logs something.
//! A machine costs about two seconds, so what does not disturb each other shares one.

#[path = "machine/commands.rs"]
mod commands;
#[path = "machine/databases.rs"]
mod databases;
#[path = "machine/drop_ins.rs"]
mod drop_ins;
#[path = "machine/life.rs"]
mod life;
#[path = "machine/log.rs"]
mod log;
#[path = "support/machine.rs"]
mod machine;
#[path = "machine/package.rs"]
mod package;
#[path = "machine/sandbox.rs"]
mod sandbox;
#[path = "machine/shortage.rs"]
mod shortage;
#[path = "machine/stop.rs"]
mod stop;
mod support;
#[path = "machine/watchdog.rs"]
mod watchdog;
