//! Where the control socket is, for the daemon and for its clients: they look at the same places.
//!
//! A daemon listens at the flag or `PUNCTUAL_SOCKET`, else at `[control] socket` of its file, else at `punctual.sock` in
//! the runtime folder of the environment, or in the current folder if there is none. A client looks at the same places,
//! with `jobs.toml` of the current folder as the file, and takes the first one that has a socket. Its last place is the
//! socket of the machine: `[control] socket` of `/etc/punctual/jobs.toml`, or where the systemd unit has it. Another user
//! may have put a socket into the current folder or `$XDG_RUNTIME_DIR`: only one of root's or the client's own is used.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Config, FILE_BYTES_MAX, LOCAL_FILE, SYSTEM_FILE};
use crate::file;
use crate::invalid::Invalid;

/// Name of the control socket in the folder that is found for it.
const SOCKET_NAME: &str = "punctual.sock";
/// Where the systemd unit has its socket.
const SYSTEM_SOCKET: &str = "/run/punctual/punctual.sock";
/// Where the systemd unit is, by hand and by the package.
const UNITS: [&str; 2] =
    ["/etc/systemd/system/punctual.service", "/usr/lib/systemd/system/punctual.service"];

/// Where a client finds its daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSocket {
    /// The socket.
    pub path: PathBuf,
    /// Users that the daemon there may run as; none if it may be any.
    pub users: Option<Vec<u32>>,
    /// Where else there is no socket, if none was found anywhere.
    pub elsewhere: Option<String>,
}

impl ClientSocket {
    fn new(path: impl Into<PathBuf>, users: Option<Vec<u32>>) -> Self {
        Self { path: path.into(), users, elsewhere: None }
    }
}

/// Whether the daemon is installed here as a systemd service.
pub fn is_service_installed() -> bool {
    UNITS.iter().any(|unit| Path::new(unit).exists())
}

impl Config {
    /// The socket that a client of this file's daemon uses, if the file names one.
    pub fn socket(&self) -> Option<ClientSocket> {
        Some(ClientSocket::new(self.socket.clone()?, None))
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
    if let Some(path) = configured_socket(LOCAL_FILE) {
        return Ok(ClientSocket::new(path, None));
    }
    let users = trusted_users();
    let own = runtime_folder()?.map(|(folder, is_service)| {
        // The service manager makes the folder of a service, whose user may be another one.
        ClientSocket::new(folder.join(SOCKET_NAME), (!is_service).then(|| users.clone()))
    });
    let here = ClientSocket::new(SOCKET_NAME, Some(users));
    let system = configured_socket(SYSTEM_FILE).filter(|path| path.is_absolute());
    let system = ClientSocket::new(system.unwrap_or_else(|| SYSTEM_SOCKET.into()), None);
    let (mut foreign, mut empty) = (None, Vec::new());
    for place in own.iter().chain([&here, &system]) {
        match place.look() {
            Found::Usable => return Ok(place.clone()),
            Found::Foreign(user) => foreign = foreign.or(Some((place.path.clone(), user))),
            Found::Nothing => empty.push(place.path.as_path()),
        }
    }
    if let Some((path, user)) = foreign {
        let path = path.display();
        let message = format!(
            "{path} belongs to user {user}, neither to root nor to you, and is not used (--socket {path} uses it all the same); \
            there is none at {}",
            listed(&empty)
        );
        return Err(Invalid::new("socket", message));
    }
    let elsewhere = Some(listed(empty.get(1..).unwrap_or_default()));
    Ok(ClientSocket { elsewhere, ..own.unwrap_or(here) })
}

/// Paths as a sentence has them, each one once and from the root.
fn listed(paths: &[&Path]) -> String {
    let mut names: Vec<String> = Vec::new();
    for path in paths {
        // A folder that is gone has no path from the root.
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

/// What a client sees at a place.
enum Found {
    Usable,
    /// Something of this user, who is not trusted there.
    Foreign(u32),
    Nothing,
}

impl ClientSocket {
    fn look(&self) -> Found {
        let found = std::fs::symlink_metadata(&self.path);
        let is_hidden = |error: &std::io::Error| error.kind() == ErrorKind::PermissionDenied;
        match (found, &self.users) {
            (Ok(found), Some(users)) if !users.contains(&found.uid()) => {
                Found::Foreign(found.uid())
            }
            // Connecting tells who may see it.
            (Err(error), None) if is_hidden(&error) => Found::Usable,
            (Err(_), _) => Found::Nothing,
            (Ok(_), _) => match std::fs::metadata(&self.path) {
                Ok(target) if !target.file_type().is_socket() => Found::Nothing,
                Err(error) if !is_hidden(&error) => Found::Nothing,
                Ok(_) | Err(_) => Found::Usable,
            },
        }
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
fn configured_socket(file: &str) -> Option<PathBuf> {
    let owner = std::fs::metadata(file).ok()?.uid();
    if !trusted_users().contains(&owner) {
        return None;
    }
    let text = file::read_text(Path::new(file), FILE_BYTES_MAX).ok()?;
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
