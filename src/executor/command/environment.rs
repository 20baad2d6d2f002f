//! The variables that commands inherit from the daemon, without those that are the daemon's own business.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use nix::unistd::{Uid, User};

use super::identity::home_or_root;
use super::start::SHELL;

/// Variables of the service manager and of the configuration that are meant for the daemon alone.
const DAEMONS_OWN: [&str; 12] = [
    "NOTIFY_SOCKET",
    "CREDENTIALS_DIRECTORY",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "SYSTEMD_EXEC_PID",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "FDSTORE",
    "PUNCTUAL_LOG",
    "PUNCTUAL_CGROUP",
];
/// What the names of further ones begin with.
const DAEMONS_OWN_PREFIXES: [&str; 2] = ["WATCHDOG_", "LISTEN_"];

/// Whether a variable is meant for the daemon, and not for what it starts.
pub(in crate::executor) fn is_daemons_own(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    DAEMONS_OWN.contains(&name)
        || DAEMONS_OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The variables of this process that a command may inherit. As with cron, `SHELL` is what carries out scripts: that of a
/// system user is no shell. `HOME` is a folder that exists.
pub(super) fn inherited() -> BTreeMap<OsString, OsString> {
    let mut env: BTreeMap<OsString, OsString> =
        std::env::vars_os().filter(|(name, _)| !is_daemons_own(name)).collect();
    env.insert("SHELL".into(), SHELL.into());
    if !env.get(OsStr::new("HOME")).is_some_and(|home| Path::new(home).is_dir()) {
        let entry = User::from_uid(Uid::effective()).ok().flatten();
        env.insert("HOME".into(), home_or_root(entry.map(|user| user.dir)).into());
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_service_manager_tells_the_daemon_is_told_to_nobody_else() {
        for name in
            ["NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_FDNAMES", "PUNCTUAL_LOG"]
        {
            assert!(is_daemons_own(OsStr::new(name)), "{name}");
        }
        for name in ["PATH", "HOME", "RUNTIME_DIRECTORY", "PUNCTUAL_SOCKET", "LISTENER"] {
            assert!(!is_daemons_own(OsStr::new(name)), "{name}");
        }
    }
}
