//! The listener: a Unix socket with its mode, at a path where nobody else listens.

use std::future::pending;
use std::io::{ErrorKind, IoSlice};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{UnixListener, UnixStream};

use crate::server::Limits;

/// What the control socket allows. Its clients are trusted, and may keep a connection for a while.
pub const LIMITS: Limits =
    Limits { connections: 512, head: Duration::from_secs(30), drain: Duration::from_secs(2) };

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there.
    #[error("another daemon listens at {}", .0.display())]
    InUse(PathBuf),
    /// Something that is not a socket stands there.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen at {}: {}", .0.display(), .1)]
    Io(PathBuf, std::io::Error),
}

/// Listens at a path. A socket that a dead daemon left there is replaced; a living daemon's is not.
pub fn bind(path: &Path, mode: u32) -> Result<Listener, BindError> {
    let fail = |error| BindError::Io(path.to_owned(), error);
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(fail)?;
            }
            Ok(_) => return Err(BindError::InUse(path.to_owned())),
            Err(error) => return Err(fail(error)),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(fail(error)),
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(fail)?;
    Ok(Listener(listener))
}

/// Whoever listens at the socket.
#[derive(Debug)]
pub struct Listener(UnixListener);

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = Peer;

    async fn accept(&mut self) -> (Connection, Peer) {
        let (stream, _) = axum::serve::Listener::accept(&mut self.0).await;
        let stream = Arc::new(stream);
        (Connection(Arc::clone(&stream)), Peer(Some(stream)))
    }

    fn local_addr(&self) -> std::io::Result<Peer> {
        Ok(Peer(None))
    }
}

/// The client at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer(Option<Arc<UnixStream>>);

impl Peer {
    /// Returns when the client has closed the connection. One that has only said that it will ask no more is there.
    ///
    /// The server itself would find out when it next writes, and of a run that says nothing there is nothing to write.
    pub(super) async fn gone(&self) {
        let Some(watched) = self.0.as_deref().and_then(again) else { return pending().await };
        while let Ok(ready) = watched.ready(Interest::WRITABLE).await {
            if ready.is_write_closed() {
                return;
            }
            // That it can be written to is no news; the next change is.
            let seen: std::io::Result<()> =
                watched.try_io(Interest::WRITABLE, || Err(ErrorKind::WouldBlock.into()));
            drop(seen);
        }
    }
}

/// The same connection through a descriptor of its own, so that looking at it takes nothing from those who use it.
fn again(stream: &UnixStream) -> Option<UnixStream> {
    let descriptor = stream.as_fd().try_clone_to_owned().ok()?;
    UnixStream::from_std(descriptor.into()).ok()
}

/// A connection, which the one who answers can look at while it is read and written.
#[derive(Debug)]
pub struct Connection(Arc<UnixStream>);

impl Connection {
    /// Reads what is there. Where that is less than there is room for, nothing is left, and the next read waits without
    /// trying: to whoever looks after the readiness, that is the same as a read that would have to wait.
    fn read_now(&self, room: &mut [u8]) -> (usize, std::io::Result<()>) {
        let (mut count, size) = (0, room.len());
        let read = self.0.try_io(Interest::READABLE, || {
            count = rustix::io::read(self.0.as_fd(), room)?;
            let is_drained = 0 < count && count < size;
            if is_drained { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        (count, read)
    }

    /// Tries to write until it is done or has to be waited for.
    fn poll_with(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&UnixStream) -> std::io::Result<usize>,
    ) -> Poll<std::io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(context))?;
            match write(&self.0) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(context))?;
            match self.read_now(buffer.initialize_unfilled()) {
                (0, Err(error)) if error.kind() == ErrorKind::WouldBlock => {}
                (0, Err(error)) => return Poll::Ready(Err(error)),
                (count, _) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.poll_with(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.poll_with(context, |stream| stream.try_write_vectored(slices))
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
