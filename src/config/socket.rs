//! Where the control socket is, for the daemon and for its clients: they look at the same places.
//!
//! In order: the flag or `PUNCTUAL_SOCKET`, `[control] socket` of the file, the runtime folder of the
//! environment. Only where there is none of these a daemon listens where it was started, and a
//! client looks in its own folder and then where the systemd unit has its socket. What another user
//! may have put into a client's way is not trusted.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Config, DEFAULT_FILE};
use crate::invalid::Invalid;

/// Name of the control socket in the folder that is found for it.
const SOCKET_NAME: &str = "punctual.sock";
/// Where the systemd unit has its socket.
const SYSTEM_SOCKET: &str = "/run/punctual/punctual.sock";
/// Bytes of a file that a client reads to find its daemon, at most.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Where a client finds its daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSocket {
    /// The socket.
    pub path: PathBuf,
    /// Users that the daemon there may run as; none if it may be any.
    pub users: Option<Vec<u32>>,
}

impl Config {
    /// The socket that a client of this file's daemon uses, if the file names one.
    pub fn socket(&self) -> Option<ClientSocket> {
        Some(ClientSocket { path: self.socket.clone()?, users: None })
    }

    /// Where the daemon listens: at the chosen path, else where the file says, else where the environment says.
    pub fn listens_at(&self, chosen: Option<PathBuf>) -> Result<PathBuf, Invalid> {
        if let Some(path) = chosen.or_else(|| self.socket.clone()) {
            return Ok(path);
        }
        Ok(runtime_folder()?.map(|(folder, _)| folder).unwrap_or_default().join(SOCKET_NAME))
    }
}

/// Where a client looks for a daemon if no path was chosen. The error says what is unusable.
pub fn client_socket() -> Result<ClientSocket, Invalid> {
    if let Some(path) = configured_socket(Path::new(DEFAULT_FILE)) {
        return Ok(ClientSocket { path, users: None });
    }
    let users = trusted_users();
    let own = runtime_folder()?.map(|(folder, is_service)| ClientSocket {
        path: folder.join(SOCKET_NAME),
        // The service manager makes the folder of a service, whose user may be another one.
        users: (!is_service).then(|| users.clone()),
    });
    let here = ClientSocket { path: SOCKET_NAME.into(), users: Some(users.clone()) };
    let system = ClientSocket { path: SYSTEM_SOCKET.into(), users: None };
    let mut foreign = None;
    for place in own.iter().chain([&here, &system]) {
        let Ok(found) = std::fs::symlink_metadata(&place.path) else { continue };
        if place.users.as_ref().is_none_or(|users| users.contains(&found.uid())) {
            return Ok(place.clone());
        }
        foreign = foreign.or(Some((place.path.clone(), found.uid())));
    }
    match foreign {
        Some((path, user)) => {
            let path = path.display();
            let message = format!(
                "{path} belongs to user {user}, neither to root nor to you, and is not used (--socket {path} uses it all the same)"
            );
            Err(Invalid::new("socket", message))
        }
        None => Ok(own.unwrap_or(here)),
    }
}

/// Users whose daemon may be found in a folder of the client: root, and the client's own.
fn trusted_users() -> Vec<u32> {
    vec![0, rustix::process::geteuid().as_raw()]
}

#[derive(Deserialize)]
struct Outline {
    control: Option<ControlOutline>,
}

#[derive(Deserialize)]
struct ControlOutline {
    socket: Option<PathBuf>,
}

/// `[control] socket` of a file of root's or the client's own. A file that cannot be read says nothing about it: that
/// it is faulty is for the daemon and `check` to tell.
fn configured_socket(file: &Path) -> Option<PathBuf> {
    let found = std::fs::metadata(file).ok()?;
    let is_trusted = trusted_users().contains(&found.uid());
    if !found.is_file() || found.len() > FILE_BYTES_MAX || !is_trusted {
        return None;
    }
    let text = std::fs::read_to_string(file).ok()?;
    toml::from_str::<Outline>(&text).ok()?.control?.socket
}

/// The folder for sockets that the environment names, and whether it is that of a service.
fn runtime_folder() -> Result<Option<(PathBuf, bool)>, Invalid> {
    for (variable, is_service) in [("RUNTIME_DIRECTORY", true), ("XDG_RUNTIME_DIR", false)] {
        if let Some(folder) = usable_folder(variable)? {
            return Ok(Some((folder, is_service)));
        }
    }
    Ok(None)
}

/// The folder that a variable names; none if the variable is not set or empty. systemd gives a list with colons where
/// a unit has several folders, of which the first counts.
pub(super) fn usable_folder(variable: &str) -> Result<Option<PathBuf>, Invalid> {
    let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let folder = std::env::split_paths(&value).next().unwrap_or_default();
    let why = if !folder.is_absolute() {
        "is not an absolute path"
    } else if !folder.is_dir() {
        "is not a folder"
    } else {
        return Ok(Some(folder));
    };
    Err(Invalid::new(variable, format!("\"{}\" {why}", folder.display())))
}
