//! The limits of a server.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// The connections of one server may use at most one third of the process's file descriptors.
const DESCRIPTOR_SHARE: u64 = 3;

/// What a server allows its clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of open connections. When all are taken, the one that has been idle for longest is closed.
    pub connections: usize,
    /// Connections beyond `connections`, for clients that connect while all others are busy. Each serves one request. A
    /// quarter of them is kept for root and the daemon's own user.
    pub reserve: usize,
    /// Maximum connections per user, if the listener knows users. Root and the daemon's own user are exempt.
    pub per_user: usize,
    /// Maximum time for the head of a request to arrive, and maximum idle time of a connection.
    pub head: Duration,
    /// Maximum time that a client may go without reading any part of its answer.
    pub write: Duration,
    /// How long open requests may go on after the shutdown began.
    pub drain: Duration,
}

impl Limits {
    /// Reduces the number of connections to a share of the descriptors that the process may open.
    pub(super) fn within_descriptors(self) -> Self {
        let Some(descriptors) = getrlimit(Resource::Nofile).current else { return self };
        let share = usize::try_from(descriptors / DESCRIPTOR_SHARE).unwrap_or(usize::MAX).max(1);
        let connections = self.connections.min(share);
        Self { connections, reserve: self.reserve.min(share / 4 + 1), ..self }
    }
}
