//! The daemon's end of a worker's socket. Unlike tokio's own `UnixStream` it is registered for readability only: a socket
//! becomes writable after each call, and each of these events would wake the runtime for nothing.

use std::io::{ErrorKind, Read, Result, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[derive(Debug)]
pub(super) struct WorkerSocket(AsyncFd<UnixStream>);

impl WorkerSocket {
    pub(super) fn new(socket: UnixStream) -> Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(register(socket, Interest::READABLE)?))
    }

    /// Waits until there is something to read, and reads it; 0 at the end. Cancel-safe.
    pub(super) async fn read(&self, space: &mut [u8]) -> Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            let read = self.0.get_ref().read(space);
            // A short read means that the socket is empty; more bytes cause a new event.
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

    /// Writes as much as the socket takes at once.
    pub(super) fn write_now(&self, bytes: &[u8]) -> Result<usize> {
        match self.0.get_ref().write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

    /// Writes all bytes, and waits for space where necessary.
    pub(super) async fn write(&self, mut bytes: &[u8]) -> Result<()> {
        let socket = register(self.0.get_ref().try_clone()?, Interest::WRITABLE)?;
        while !bytes.is_empty() {
            let mut ready = socket.writable().await?;
            let written = self.write_now(bytes)?;
            if written == 0 {
                ready.clear_ready();
            }
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    pub(super) fn close_writing(&self) -> Result<()> {
        self.0.get_ref().shutdown(std::net::Shutdown::Write)
    }
}

impl AsFd for WorkerSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; a socket that is owned here cannot be closed behind its back"
)]
fn register(socket: UnixStream, interest: Interest) -> Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(socket, interest)
}
