//! What a process inherits from its starter, beside its environment: blocked and ignored signals, open files,
//! limits. None of it can be trusted, so it is set to known values before anything else happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::SigSet;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getrlimit, set_dumpable_behavior, setrlimit,
};
use signal_hook::flag;

/// Signals that would end a process, and mean nothing to the daemon.
const MEANINGLESS: [Signal; 9] = [
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
/// Signals that programs may use as they like: they would end a process too.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;
/// The first descriptor beyond the standard ones.
const FIRST_FILE: i32 = 3;

/// What is left to know of it.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    /// The limit of open files before it was raised; none if it was not.
    files: Option<Rlimit>,
    /// Whether a reload was asked for before anybody listened.
    hangup: Arc<AtomicBool>,
    /// What could not be set, for the log, which begins later.
    faults: Vec<String>,
}

impl Inherited {
    /// Settles the daemon. Nothing may have been started before.
    pub(super) fn settle() -> Self {
        let mut inherited = Self::default();
        inherited.settle_common();
        inherited.settle_signals();
        inherited.raise_files();
        inherited
    }

    /// Settles a worker process.
    pub(super) fn settle_worker() -> Self {
        let mut inherited = Self::default();
        inherited.settle_common();
        inherited
    }

    fn note<T, E: std::fmt::Display>(&mut self, what: &str, result: Result<T, E>) {
        if let Err(error) = result {
            self.faults.push(format!("{what}: {error}"));
        }
    }

    fn settle_common(&mut self) {
        self.note("signals stay blocked", SigSet::empty().thread_set_mask());
        // Our own files are closed on `exec` anyway: none of another process's passes through us to a command.
        close_fds::set_fds_cloexec(FIRST_FILE, &[]);
        // The environment of this process, in which there may be secrets, is not for the commands of its user.
        let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        self.note("commands of the same user can read the environment of this process", hidden);
    }

    /// Has signals do no more than they should. A handled signal has its default effect again in what is started.
    fn settle_signals(&mut self) {
        let hangup = flag::register(Signal::HUP.as_raw(), Arc::clone(&self.hangup));
        self.note("an early SIGHUP ends the daemon", hangup);
        let unread = Arc::new(AtomicBool::new(false));
        let meaningless = MEANINGLESS.map(Signal::as_raw).into_iter().chain(REAL_TIME);
        // While this is ignored, the kernel throws away how children have ended.
        let child = Some(Signal::CHILD.as_raw()).filter(|number| is_ignored(*number));
        for number in meaningless.chain(child) {
            let handled = flag::register(number, Arc::clone(&unread));
            self.note(&crate::run::describe_signal(number), handled);
        }
    }

    /// Lets the daemon have as many files open as it may.
    fn raise_files(&mut self) {
        let before = getrlimit(Resource::Nofile);
        if before.current == before.maximum {
            return;
        }
        let raised = Rlimit { current: before.maximum, maximum: before.maximum };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => self.files = Some(before),
            Err(error) => {
                self.faults.push(format!("the limit of open files cannot be raised: {error}"));
            }
        }
    }

    /// Logs what could not be set.
    pub(super) fn report(&self) {
        for fault in &self.faults {
            tracing::warn!("inherited state: {fault}");
        }
    }

    /// The limit of open files that commands get, where it is not the daemon's.
    pub(super) fn files(&self) -> Option<Rlimit> {
        self.files
    }

    /// Whether a reload was asked for so far.
    pub(super) fn take_hangup(&self) -> bool {
        self.hangup.swap(false, Ordering::Relaxed)
    }
}

/// Whether this process ignores a signal.
fn is_ignored(number: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| (mask >> (number - 1)) & 1 == 1)
}
