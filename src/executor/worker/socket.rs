//! The daemon's end of a worker's socket. The runtime is asked to tell when there is something to read, and, unlike with a
//! socket of its own, not each time when there is room to write again: that is after each call, and wakes it for nothing.

use std::io::{ErrorKind, Read, Result, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A socket that is watched for what can be read.
#[derive(Debug)]
pub(super) struct Socket(AsyncFd<UnixStream>);

impl Socket {
    pub(super) fn new(socket: UnixStream) -> Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(watched(socket, Interest::READABLE)?))
    }

    /// Reads what is there, once there is something; 0 at the end. It is cancel-safe.
    pub(super) async fn read(&self, space: &mut [u8]) -> Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            let read = self.0.get_ref().read(space);
            // There was no more, and if there is meanwhile, that is told.
            if read.as_ref().is_ok_and(|count| *count < space.len()) {
                ready.clear_ready();
            }
            match read {
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    /// Writes as much as there is room for now.
    pub(super) fn write_now(&self, bytes: &[u8]) -> Result<usize> {
        match self.0.get_ref().write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

    /// Writes all of it, however long that takes.
    pub(super) async fn write(&self, mut bytes: &[u8]) -> Result<()> {
        let room = watched(self.0.get_ref().try_clone()?, Interest::WRITABLE)?;
        while !bytes.is_empty() {
            let mut ready = room.writable().await?;
            let written = self.write_now(bytes)?;
            if written == 0 {
                ready.clear_ready();
            }
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Nothing more will be written.
    pub(super) fn hang_up(&self) -> Result<()> {
        self.0.get_ref().shutdown(std::net::Shutdown::Write)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; a socket that is owned here cannot be closed behind its back"
)]
fn watched(socket: UnixStream, interest: Interest) -> Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(socket, interest)
}
