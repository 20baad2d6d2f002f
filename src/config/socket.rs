//! Finds the control socket, for the daemon and for its clients.
//!
//! The daemon listens at `--socket` or `PUNCTUAL_SOCKET`, else at `[control] socket` of its file, else at
//! `punctual.sock` in the runtime folder that the environment names, or else in the current folder. A client looks at
//! the same places, with `jobs.toml` of the current folder as the file, and uses the first one that has a socket. Its
//! last place is the socket of the machine: `[control] socket` of `/etc/punctual/jobs.toml`, or that of the systemd unit.
//! Another user may have put a socket into the current folder or `$XDG_RUNTIME_DIR`, so one found there is used only if
//! it belongs to root or to the client's own user.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::paths::{FILE_BYTES_MAX, LOCAL_FILE, SYSTEM_FILE, runtime_folder};
use crate::file;
use crate::invalid::Invalid;

/// Name of the control socket in a folder.
const SOCKET_NAME: &str = "punctual.sock";
/// The socket of the systemd unit.
const SYSTEM_SOCKET: &str = "/run/punctual/punctual.sock";
/// Paths of the systemd unit: installed by hand, and by the package.
const UNITS: [&str; 2] =
    ["/etc/systemd/system/punctual.service", "/usr/lib/systemd/system/punctual.service"];

/// Where a client expects the socket of its daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSocket {
    /// The path of the socket.
    pub path: PathBuf,
    /// Users that the daemon there may run as; `None` allows any user.
    pub users: Option<Vec<u32>>,
    /// The other paths that were searched, if no socket was found anywhere.
    pub elsewhere: Option<String>,
}

impl ClientSocket {
    pub(super) fn new(path: impl Into<PathBuf>, users: Option<Vec<u32>>) -> Self {
        Self { path: path.into(), users, elsewhere: None }
    }
}

/// True if the daemon is installed on this machine as a systemd service.
pub fn is_service_installed() -> bool {
    UNITS.iter().any(|unit| Path::new(unit).exists())
}

/// Where a daemon listens if neither the command line nor its file names a socket.
pub(super) fn default_socket() -> Result<PathBuf, Invalid> {
    Ok(runtime_folder()?.map(|(folder, _)| folder).unwrap_or_default().join(SOCKET_NAME))
}

/// Finds the socket for a client that was given none. The error says which path cannot be used, and why.
pub fn client_socket() -> Result<ClientSocket, Invalid> {
    if let Some(path) = configured_socket(LOCAL_FILE) {
        return Ok(ClientSocket::new(path, None));
    }
    let users = trusted_users();
    let own = runtime_folder()?.map(|(folder, is_service)| {
        // The folder of a service is made by systemd, and its daemon may run as any user.
        ClientSocket::new(folder.join(SOCKET_NAME), (!is_service).then(|| users.clone()))
    });
    let here = ClientSocket::new(SOCKET_NAME, Some(users));
    let system = configured_socket(SYSTEM_FILE).filter(|path| path.is_absolute());
    let system = ClientSocket::new(system.unwrap_or_else(|| SYSTEM_SOCKET.into()), None);
    let (mut foreign, mut empty) = (None, Vec::new());
    for place in own.iter().chain([&here, &system]) {
        match place.check() {
            SocketCheck::Usable => return Ok(place.clone()),
            SocketCheck::Foreign(user) => foreign = foreign.or(Some((place.path.clone(), user))),
            SocketCheck::Missing => empty.push(place.path.as_path()),
        }
    }
    if let Some((path, user)) = foreign {
        let path = path.display();
        let message = format!(
            "{path} belongs to user {user}, not to root or you, so it is not used (--socket {path} would use it); \
             there is none at {}",
            listed(&empty)
        );
        return Err(Invalid::new("socket", message));
    }
    let elsewhere = Some(listed(empty.get(1..).unwrap_or_default()));
    Ok(ClientSocket { elsewhere, ..own.unwrap_or(here) })
}

/// The absolute paths as a list in words, without repetitions.
fn listed(paths: &[&Path]) -> String {
    let mut names: Vec<String> = Vec::new();
    for path in paths {
        // This fails if the current folder was deleted.
        let path = std::path::absolute(path).unwrap_or_else(|_| (*path).to_owned());
        let name = path.display().to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    match names.as_slice() {
        [] => String::new(),
        [name] => name.clone(),
        [names @ .., last] => format!("{} or {last}", names.join(", ")),
    }
}

/// What a client finds at a path.
enum SocketCheck {
    Usable,
    /// It belongs to this user, and the client does not trust that user there.
    Foreign(u32),
    Missing,
}

impl ClientSocket {
    fn check(&self) -> SocketCheck {
        let found = std::fs::symlink_metadata(&self.path);
        let is_hidden = |error: &std::io::Error| error.kind() == ErrorKind::PermissionDenied;
        match (found, &self.users) {
            (Ok(found), Some(users)) if !users.contains(&found.uid()) => {
                SocketCheck::Foreign(found.uid())
            }
            // The attempt to connect will give the right error.
            (Err(error), None) if is_hidden(&error) => SocketCheck::Usable,
            (Err(_), _) => SocketCheck::Missing,
            (Ok(_), _) => match std::fs::metadata(&self.path) {
                Ok(target) if !target.file_type().is_socket() => SocketCheck::Missing,
                Err(error) if !is_hidden(&error) => SocketCheck::Missing,
                Ok(_) | Err(_) => SocketCheck::Usable,
            },
        }
    }
}

/// Users whose files and sockets a client trusts: root and the client's own user.
fn trusted_users() -> Vec<u32> {
    vec![0, rustix::process::geteuid().as_raw()]
}

/// The only part of a configuration file that a client reads.
#[derive(Deserialize)]
struct FileOutline {
    control: Option<ControlOutline>,
}

#[derive(Deserialize)]
struct ControlOutline {
    socket: Option<PathBuf>,
}

/// `[control] socket` of a file, if it belongs to a trusted user. A faulty file counts as one without the key; the
/// daemon and `punctual check` report its fault.
fn configured_socket(file: &str) -> Option<PathBuf> {
    let owner = std::fs::metadata(file).ok()?.uid();
    if !trusted_users().contains(&owner) {
        return None;
    }
    let text = file::read_text(Path::new(file), FILE_BYTES_MAX).ok()?;
    toml::from_str::<FileOutline>(&text).ok()?.control?.socket
}
