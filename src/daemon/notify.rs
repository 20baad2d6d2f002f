//! What systemd is told: ready, reloading, stopping, and how things stand. Without systemd these
//! say nothing.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::printable::escaped;

/// The variable that names the socket of the service manager.
const SOCKET: &str = "NOTIFY_SOCKET";

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = send(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// Sends a notification that is repeated: if one is lost, the next one makes up for it.
fn mention(state: NotifyState<'_>) {
    match send(&[state]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            tracing::debug!(%error, "the service manager could not be told");
        }
        Err(error) => tracing::warn!(%error, "the service manager could not be told"),
        Ok(()) => {}
    }
}

/// Sends a message without waiting: a service manager that does not read must not hold up the daemon.
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

/// Notifies the watchdog that the scheduler's loop makes progress (`WATCHDOG=1`).
pub(super) fn alive() {
    mention(NotifyState::Watchdog);
}

/// Everything is up, and this is how it stands.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&escaped(status))]);
}

/// Sets the status line (`STATUS=`).
pub(super) fn status(status: &str) {
    mention(NotifyState::Status(&escaped(status)));
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

/// Asks for more time to stop (`EXTEND_TIMEOUT_USEC=`): the service manager must not kill the daemon before it is over.
pub(super) fn extend(by: Duration) {
    let micros = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::ExtendTimeoutUsec(micros)]);
}
