//! The listener: a Unix socket with its mode, at a path where nobody else listens.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixListener;

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
pub fn bind(path: &Path, mode: u32) -> Result<UnixListener, BindError> {
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
    Ok(listener)
}
