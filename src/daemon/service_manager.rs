//! Notifications to the service manager (`sd_notify`). Without systemd they do nothing.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::printable::escaped;

const SOCKET: &str = "NOTIFY_SOCKET";

/// Sends a notification that is sent only once.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = send(states) {
        tracing::warn!(%error, "the service manager could not be notified");
    }
}

/// Sends a notification that is repeated, so that a lost one does not matter.
fn notify_again(state: NotifyState<'_>) {
    match send(&[state]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            tracing::debug!(%error, "the service manager could not be notified");
        }
        Err(error) => tracing::warn!(%error, "the service manager could not be notified"),
        Ok(()) => {}
    }
}

/// Sends a message without waiting, since a service manager that does not read must not block the daemon. `sd_notify`'s
/// own function would wait.
fn send(states: &[NotifyState<'_>]) -> io::Result<()> {
    let Some(path) = std::env::var_os(SOCKET) else { return Ok(()) };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(lines.join("\n").as_bytes(), &address).map(drop)
}

/// Tells the watchdog that the scheduler's loop makes progress (`WATCHDOG=1`).
pub(super) fn watchdog() {
    notify_again(NotifyState::Watchdog);
}

/// The daemon is ready (`READY=1`), with its status line.
pub(super) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(&escaped(status))]);
}

/// Sets the status line (`STATUS=`).
pub(super) fn status(status: &str) {
    notify_again(NotifyState::Status(&escaped(status)));
}

/// The daemon reloads its configuration (`RELOADING=1`). systemd expects the time in the same message.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the monotonic clock could not be read"),
    }
}

/// The daemon stops (`STOPPING=1`).
pub(super) fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(&escaped(status))]);
}

/// Asks for more time to stop (`EXTEND_TIMEOUT_USEC=`), in which the service manager must not kill the daemon.
pub(super) fn extend_timeout(by: Duration) {
    let micros = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::ExtendTimeoutUsec(micros)]);
}
