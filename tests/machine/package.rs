//! The Debian package: what an installation starts, what an upgrade keeps, and what a removal leaves.

use crate::machine::Machine;

#[test]
fn an_installation_starts_the_daemon_and_enables_it() {
    let Some(machine) = Machine::installed() else { return };
    assert_eq!(machine.property("SubState"), "running");
    assert_eq!(machine.property("UnitFileState"), "enabled");
    assert_eq!(machine.ok(&["dpkg", "--verify", "punctual"]), "");
}
