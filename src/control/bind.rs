//! The file of the control socket: it appears when the daemon can answer, and is removed when it cannot any more.
//!
//! The socket is bound under a temporary name, gets its mode, listens, and is then renamed. So a client finds either no
//! socket or one that accepts connections. A file at the path is identified by its inode: only a dead daemon's socket is
//! replaced, and only this daemon's own socket is removed.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, RenameFlags, fchmod, renameat_with};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};

/// The kernel's limit for the path of a socket, in bytes.
const PATH_BYTES_MAX: usize = 107;
/// The most connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// How many temporary names are tried, and how often publishing the socket is tried.
const ATTEMPTS: u16 = 16;

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A process listens there. Its id is none if it is not visible from here.
    #[error("another daemon listens at {}{}", .0.display(), process(*.1))]
    InUse(PathBuf, Option<i32>),
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    #[error("cannot listen at {}: {}", .0.display(), .1)]
    Io(PathBuf, std::io::Error),
}

fn process(id: Option<i32>) -> String {
    id.map_or_else(String::new, |id| format!(" (process {id})"))
}

/// Identifies a file, whatever its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Inode {
    device: u64,
    inode: u64,
}

impl Inode {
    fn of(path: &Path) -> std::io::Result<Self> {
        let found = std::fs::symlink_metadata(path)?;
        Ok(Self { device: found.dev(), inode: found.ino() })
    }
}

/// The file of this daemon's socket. Dropping it removes the file, unless another file has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    id: Inode,
}

impl SocketFile {
    /// Whether the file still is at its path. The socket has to be open, since its inode can be reused otherwise.
    pub(super) fn is_there(&self) -> bool {
        Inode::of(&self.path).is_ok_and(|found| found == self.id)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_there()
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::debug!(%error, "the control socket could not be removed");
        }
    }
}

/// A socket that accepts connections, but is not at its path yet.
#[derive(Debug)]
pub struct BoundSocket {
    listener: UnixListener,
    /// Under its temporary name.
    file: SocketFile,
    path: PathBuf,
}

/// Listens for a path at which no other process listens. The socket has the permissions `mode`, and is moved to the path by
/// [`BoundSocket::publish`].
pub fn bind(path: &Path, mode: u32) -> Result<BoundSocket, BindError> {
    let fail = |error: std::io::Error| BindError::Io(path.to_owned(), error);
    let length = path.as_os_str().len();
    if length > PATH_BYTES_MAX {
        let why =
            format!("the path has {length} bytes, and a socket's has at most {PATH_BYTES_MAX}");
        return Err(fail(std::io::Error::new(ErrorKind::InvalidInput, why)));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(fail)?;
    stale_socket(path)?;
    let (listener, file) = listen(folder, mode).map_err(fail)?;
    Ok(BoundSocket { listener, file, path: path.to_owned() })
}

fn listen(folder: &Path, mode: u32) -> std::io::Result<(UnixListener, SocketFile)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file is created with the mode that the socket has now, so it is never open to other users.
    fchmod(&socket, Mode::from_raw_mode(mode & 0o600))?;
    let mut names = (0..ATTEMPTS).map(|attempt| {
        let name = std::process::id().wrapping_mul(31).wrapping_add(attempt.into()) & 0xffff;
        folder.join(format!(".{name:x}"))
    });
    let path = loop {
        let Some(path) = names.next() else { return Err(ErrorKind::AddrInUse.into()) };
        match rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?) {
            Ok(()) => break path,
            Err(Errno::ADDRINUSE) => {}
            Err(error) => return Err(error.into()),
        }
    };
    let file = SocketFile { id: Inode::of(&path)?, path };
    std::fs::set_permissions(&file.path, std::fs::Permissions::from_mode(mode))?;
    rustix::net::listen(socket.as_fd(), BACKLOG)?;
    Ok((UnixListener::from_std(socket.into())?, file))
}

/// The socket that a dead daemon has left at a path; none if nothing is there.
fn stale_socket(path: &Path) -> Result<Option<Inode>, BindError> {
    let fail = |error| BindError::Io(path.to_owned(), error);
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    }
    let found = Inode::of(path).map_err(fail)?;
    match connect(path) {
        Err(Errno::CONNREFUSED) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Ok(process) => Err(BindError::InUse(path.to_owned(), process)),
        // The queue of connections is full, so a daemon lives.
        Err(Errno::AGAIN) => Err(BindError::InUse(path.to_owned(), None)),
        Err(error) => Err(fail(error.into())),
    }
}

/// Connects without waiting, and hangs up. Returns the process that listens, if it is visible from here.
fn connect(path: &Path) -> rustix::io::Result<Option<i32>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let peer = UnixStream::from_std(socket.into()).and_then(|stream| stream.peer_cred());
    Ok(peer.ok().and_then(|peer| peer.pid()).filter(|process| *process > 0))
}

impl BoundSocket {
    /// Moves the socket to its path. A dead daemon's socket there is replaced; a living daemon's is not.
    pub fn publish(self) -> Result<(UnixListener, SocketFile), BindError> {
        let Self { listener, mut file, path } = self;
        let fail = |error: std::io::Error| BindError::Io(path.clone(), error);
        for _ in 0..ATTEMPTS {
            let is_published = match stale_socket(&path)? {
                None => rename_new(&file.path, &path),
                Some(dead) => replace(&file.path, &path, dead),
            };
            if is_published.map_err(fail)? {
                file.path = path;
                return Ok((listener, file));
            }
        }
        Err(BindError::InUse(path, None))
    }
}

/// Renames a file; false if another file is at the new path by now.
fn rename_new(from: &Path, to: &Path) -> std::io::Result<bool> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        // The file system does not support the flag.
        Err(Errno::INVAL) => std::fs::rename(from, to).map(|()| true),
        Err(error) => Err(error.into()),
    }
}

/// Replaces a dead daemon's socket; false if another file is there by now.
fn replace(from: &Path, to: &Path, dead: Inode) -> std::io::Result<bool> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(false),
        Err(Errno::INVAL) => return std::fs::rename(from, to).map(|()| true),
        Err(error) => return Err(error.into()),
    }
    if Inode::of(from)? == dead {
        std::fs::remove_file(from)?;
        return Ok(true);
    }
    // Another daemon was faster: its socket goes back to the path.
    renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE)?;
    Ok(false)
}
