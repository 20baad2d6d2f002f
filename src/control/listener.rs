//! The listener of the control socket, the connections that it accepts, and who is at their other end.

use std::future::pending;
use std::io::{ErrorKind, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::server::{self, Limits};

/// The limits of the control socket.
pub const LIMITS: Limits = Limits {
    connections: 512,
    reserve: 64,
    per_user: 256,
    head: Duration::from_secs(30),
    write: Duration::from_secs(30),
    drain: Duration::from_secs(2),
};

#[derive(Debug)]
pub struct Listener {
    current: UnixListener,
    /// New listeners, each of which replaces one whose file was removed.
    next: mpsc::Receiver<UnixListener>,
}

impl Listener {
    pub(super) fn new(current: UnixListener, next: mpsc::Receiver<UnixListener>) -> Self {
        Self { current, next }
    }
}

impl axum::serve::Listener for Listener {
    type Io = SharedStream;
    type Addr = SocketPeer;

    async fn accept(&mut self) -> (SharedStream, SocketPeer) {
        let stream = loop {
            tokio::select! {
                (stream, _) = axum::serve::Listener::accept(&mut self.current) => break stream,
                Some(next) = self.next.recv() => self.current = next,
            }
        };
        let process = stream.peer_cred().ok();
        let stream = Arc::new(stream);
        (SharedStream(Arc::clone(&stream)), SocketPeer { process, stream })
    }

    fn local_addr(&self) -> std::io::Result<SocketPeer> {
        // The server never asks for its own address, which is not a client.
        Err(ErrorKind::Unsupported.into())
    }
}

/// The client at the other end of a connection.
#[derive(Debug, Clone)]
pub struct SocketPeer {
    /// The process that has connected, as the kernel recorded it.
    process: Option<UCred>,
    stream: Arc<UnixStream>,
}

impl server::PeerUser for SocketPeer {
    fn user(&self) -> Option<u32> {
        self.process.map(|process| process.uid())
    }
}

impl SocketPeer {
    /// The process id of the client; none if it is not visible from here.
    pub(super) fn pid(&self) -> Option<i32> {
        self.process.and_then(|process| process.pid()).filter(|pid| *pid > 0)
    }

    /// Resolves when the client has closed the connection. A client that has only shut down its own side still waits for its
    /// answer, and is not gone.
    ///
    /// The server itself would notice only at its next write, and while a request waits there is nothing to write.
    pub(super) async fn gone(&self) {
        // Ready when the client has shut down its side. This does not consume the readiness that reading needs.
        if self.stream.ready(Interest::PRIORITY).await.is_err() {
            return;
        }
        // Whether the other side is closed as well can only be learnt from readiness to write, which has to be reset after
        // each look. That needs a descriptor of its own, so as not to disturb writing.
        let Some(watched) = duplicate(&self.stream) else { return pending().await };
        while let Ok(ready) = watched.ready(Interest::WRITABLE).await {
            if ready.is_write_closed() {
                return;
            }
            let seen: std::io::Result<()> =
                watched.try_io(Interest::WRITABLE, || Err(ErrorKind::WouldBlock.into()));
            drop(seen);
        }
    }
}

/// The same connection through a descriptor of its own.
fn duplicate(stream: &UnixStream) -> Option<UnixStream> {
    let descriptor = stream.as_fd().try_clone_to_owned().ok()?;
    UnixStream::from_std(descriptor.into()).ok()
}

/// A connection that the server reads and writes while a handler watches it through `SocketPeer::gone`. A `UnixStream`
/// itself can only be read and written by its one owner.
#[derive(Debug)]
pub struct SharedStream(Arc<UnixStream>);

impl AsyncRead for SharedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(context))?;
            match self.0.try_read_buf(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(drop)),
            }
        }
    }
}

impl AsyncWrite for SharedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(context))?;
            match self.0.try_write_vectored(slices) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let done = rustix::net::shutdown(self.0.as_fd(), rustix::net::Shutdown::Write);
        Poll::Ready(done.map_err(Into::into))
    }
}
