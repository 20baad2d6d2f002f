//! Shortages of the system: at the moment it has no free descriptor, process, thread or memory. A run that could not be
//! started for that reason has not begun, and its job is not to blame: the run waits and is tried again.

use std::io;
use std::time::Duration;

use rustix::io::Errno;

use crate::run::RunId;
use crate::task::context::{Context, Ending};

/// First pause before a start is tried again, doubled up to the last one.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LAST: Duration = Duration::from_secs(5);
/// Pause before the start of a thread is tried again.
pub(super) const THREAD_PAUSE: Duration = Duration::from_millis(200);

/// Whether the error means that the system is short of a resource.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM))
}

/// Why a run could not be started, if the reason is a shortage.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shortage(pub(super) String);

/// The growing pauses between the tries to start one run during a shortage.
#[derive(Debug)]
pub(super) struct ShortageBackoff {
    next: Duration,
    was_logged: bool,
}

impl Default for ShortageBackoff {
    fn default() -> Self {
        Self { next: PAUSE_FIRST, was_logged: false }
    }
}

impl ShortageBackoff {
    /// Waits until the next try. If the run is cancelled meanwhile, the answer says why.
    pub(super) async fn wait(
        &mut self,
        run_id: &RunId,
        Shortage(why): Shortage,
        context: &Context,
    ) -> Option<Ending> {
        if !self.was_logged {
            self.was_logged = true;
            tracing::warn!(run = %run_id.0, error = %why, "the system is short of resources; the run waits and is tried again");
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
    fn only_errors_of_missing_resources_are_shortages() {
        let of = |errno: Errno| is_shortage(&io::Error::from_raw_os_error(errno.raw_os_error()));
        for errno in [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM] {
            assert!(of(errno), "{errno}");
        }
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::TOOBIG, Errno::NOEXEC, Errno::PERM] {
            assert!(!of(errno), "{errno}");
        }
    }
}
