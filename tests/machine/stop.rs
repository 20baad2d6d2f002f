//! How the daemon ends under systemd: when it is stopped, and when a job kills it.

use super::machine::{Machine, UNIT};

fn state_of_last_run(machine: &Machine, job: &str) -> (String, String) {
    let runs = machine.json(&["runs", job]);
    let text = |key: &str| runs["runs"][0][key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("error"))
}

#[test]
fn a_job_that_kills_its_daemon_is_lost_after_three_deaths_and_the_unit_is_active() {
    let Some(machine) = Machine::installed() else { return };
    machine.add(
        "poison",
        &[],
        "kill -9 $(systemctl show --property=MainPID --value punctual); sleep 60",
    );
    // The daemon may die before it answers.
    drop(machine.run(&["punctual", "run", "poison"]));
    machine.wait_until("the daemon has died three times and is back", |machine| {
        machine.property("NRestarts") == "3" && machine.property("ActiveState") == "active"
    });
    let (state, error) = state_of_last_run(&machine, "poison");
    assert_eq!((state.as_str(), error.as_str()), ("lost", "the daemon died 3 times while it ran"));
    assert_eq!(machine.property("StartLimitIntervalUSec"), "0");
    // systemd restarts it however often it dies.
    for restarts in 4..=8 {
        machine.ok(&["systemctl", "kill", "--signal=KILL", "--kill-whom=main", UNIT]);
        machine.wait_until("it is back", |machine| {
            machine.property("NRestarts") == restarts.to_string()
                && machine.property("ActiveState") == "active"
        });
    }
}

#[test]
fn a_drain_may_be_longer_than_the_time_that_the_unit_gives_it() {
    let Some(machine) = Machine::installed() else { return };
    machine.drop_in("short", "[Service]\nTimeoutStopSec=8\n");
    machine.shell("printf '[scheduler]\\ndrain_seconds = 60\\n' > /etc/punctual/jobs.toml");
    machine.ok(&["systemctl", "restart", UNIT]);
    machine.add("long", &[], "trap '' TERM; sleep 14; exit 0");
    machine.ok(&["punctual", "run", "long"]);
    machine.wait_until("it runs", |machine| state_of_last_run(machine, "long").0 == "running");
    machine.ok(&["systemctl", "stop", UNIT]);
    assert_eq!(machine.property("Result"), "success");
    machine.ok(&["systemctl", "start", UNIT]);
    assert_eq!(state_of_last_run(&machine, "long").0, "succeeded");
}
