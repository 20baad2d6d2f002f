//! What systemd is told: ready, reloading, stopping, and how things stand. Without systemd these
//! say nothing.

use sd_notify::NotifyState;

use crate::printable::escaped;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}

/// Everything is up, and this is how it stands.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&escaped(status))]);
}

/// Something is waited for before the daemon can be ready.
pub(super) fn waiting(status: &str) {
    tell(&[NotifyState::Status(&escaped(status))]);
}

/// The configuration is being read again. systemd wants the time in the same message.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the monotonic clock could not be read"),
    }
}

/// The daemon is about to end.
pub(super) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(&escaped(status))]);
}
