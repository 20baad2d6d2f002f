//! Shortages of the system: no descriptor, process, thread or memory is free at the moment. What could not be
//! started for that reason has not begun, and is not the fault of its job: it waits and is tried again.

use std::io;
use std::time::Duration;

use rustix::io::Errno;

use crate::run::RunId;
use crate::task::cancellation::Ending;
use crate::task::context::Context;

/// First pause before a start is tried again, doubled up to the last one.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LAST: Duration = Duration::from_secs(5);
/// Time until a thread that could not be started is tried again.
pub(super) const THREAD_PAUSE: Duration = Duration::from_millis(200);

/// Whether an error says that the system has no place for the moment.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM))
}

/// A run that could not be started because of a shortage, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shortage(pub(super) String);

/// The pauses between the attempts to start one run while there is a shortage.
#[derive(Debug)]
pub(super) struct Pauses {
    next: Duration,
    is_short: bool,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { next: PAUSE_FIRST, is_short: false }
    }
}

impl Pauses {
    /// Waits until it is worth to try again. If the run is to end meanwhile, the answer says why.
    pub(super) async fn wait(
        &mut self,
        run_id: &RunId,
        Shortage(why): Shortage,
        context: &Context,
    ) -> Option<Ending> {
        if !self.is_short {
            self.is_short = true;
            tracing::warn!(run = %run_id.0, error = %why, "there is no place for a run at the moment; it waits and is tried again");
        }
        let pause = self.next;
        self.next = (pause * 2).min(PAUSE_LAST);
        tokio::select! {
            () = tokio::time::sleep(pause) => None,
            ending = context.cancellation.cancelled() => Some(ending),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_told_apart_from_a_fault() {
        let of = |errno: Errno| is_shortage(&io::Error::from_raw_os_error(errno.raw_os_error()));
        for errno in [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM] {
            assert!(of(errno), "{errno}");
        }
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::TOOBIG, Errno::NOEXEC, Errno::PERM] {
            assert!(!of(errno), "{errno}");
        }
    }
}
