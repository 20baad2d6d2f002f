//! Sets what a process inherits from its parent to known values: blocked and ignored signals, open files, and limits. The
//! parent is not trusted, so this comes before anything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::SigSet;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getrlimit, set_dumpable_behavior, setrlimit,
};
use signal_hook::flag;

/// Signals that would end the process and have no meaning for the daemon.
const IGNORED: [Signal; 9] = [
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
    Signal::VTALARM,
    Signal::PROF,
    Signal::IO,
    Signal::POWER,
    Signal::XFSZ,
];
/// The real-time signals, which would end the process too.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;
/// The first file descriptor after stdin, stdout and stderr.
const FIRST_FILE: i32 = 3;

/// What the rest of the program has to know about the inherited state.
#[derive(Debug, Default)]
pub(super) struct ProcessState {
    /// The inherited limit of open files, if it was raised. Commands get it.
    pub(super) file_limit: Option<Rlimit>,
    /// True if SIGHUP was received before [`super::signals`] handled it.
    hangup: Arc<AtomicBool>,
    /// What could not be set. The log starts later.
    faults: Vec<String>,
}

impl ProcessState {
    /// Sets the state of the daemon. No thread or process may have been started before.
    pub(super) fn set_for_daemon() -> Self {
        let mut state = Self::set_for_child();
        state.handle_signals();
        state.raise_file_limit();
        state
    }

    /// Sets the state of a child process of the daemon.
    pub(super) fn set_for_child() -> Self {
        let mut state = Self::default();
        state.note("signals stay blocked", SigSet::empty().thread_set_mask());
        // No command may get files of another process through this one. Our own files are closed on `exec` anyway.
        close_fds::set_fds_cloexec(FIRST_FILE, &[]);
        // The environment of this process may contain secrets, which the commands of the same user must not read.
        let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        state.note("commands of the same user can read the environment of this process", hidden);
        state
    }

    fn note<T, E: std::fmt::Display>(&mut self, what: &str, result: Result<T, E>) {
        if let Err(error) = result {
            self.faults.push(format!("{what}: {error}"));
        }
    }

    /// Makes signals without a meaning do nothing. They are handled rather than ignored, since a handled signal has its
    /// default effect again in child processes.
    fn handle_signals(&mut self) {
        let hangup = flag::register(Signal::HUP.as_raw(), Arc::clone(&self.hangup));
        self.note("an early SIGHUP ends the daemon", hangup);
        let unread = Arc::new(AtomicBool::new(false));
        let ignored = IGNORED.map(Signal::as_raw).into_iter().chain(REAL_TIME);
        // While SIGCHLD is ignored, the kernel discards the exit status of children.
        let child = Some(Signal::CHILD.as_raw()).filter(|number| is_ignored(*number));
        for number in ignored.chain(child) {
            let handled = flag::register(number, Arc::clone(&unread));
            self.note(&crate::run::describe_signal(number), handled);
        }
    }

    /// Raises the limit of open files as far as the process may.
    fn raise_file_limit(&mut self) {
        let before = getrlimit(Resource::Nofile);
        if before.current == before.maximum {
            return;
        }
        let raised = Rlimit { current: before.maximum, maximum: before.maximum };
        let raised = setrlimit(Resource::Nofile, raised);
        self.file_limit = raised.is_ok().then_some(before);
        self.note("the limit of open files cannot be raised", raised);
    }

    /// Logs what could not be set.
    pub(super) fn log_faults(&self) {
        for fault in &self.faults {
            tracing::warn!("inherited state: {fault}");
        }
    }

    /// True if SIGHUP was received since the last call.
    pub(super) fn take_hangup(&self) -> bool {
        self.hangup.swap(false, Ordering::Relaxed)
    }
}

fn is_ignored(number: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| (mask >> (number - 1)) & 1 == 1)
}
