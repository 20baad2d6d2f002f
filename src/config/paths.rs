//! Where the configuration file is, and the folders that systemd or the login session provides.

use std::io::ErrorKind;
use std::path::PathBuf;

use crate::invalid::Invalid;

/// The configuration file in the current folder.
pub(super) const LOCAL_FILE: &str = "jobs.toml";
/// The configuration file of the machine, which the systemd unit uses.
pub(super) const SYSTEM_FILE: &str = "/etc/punctual/jobs.toml";
/// Maximum size of a configuration file in bytes: enough for more than ten thousand jobs.
pub(super) const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The configuration file of a daemon that is started without `--config`: `jobs.toml` in the current folder, or
/// `/etc/punctual/jobs.toml` if only that one exists. A file that exists but cannot be read is not skipped.
pub fn default_file() -> PathBuf {
    let is_missing = |file: &str| {
        std::fs::symlink_metadata(file).is_err_and(|error| error.kind() == ErrorKind::NotFound)
    };
    let is_system = is_missing(LOCAL_FILE) && !is_missing(SYSTEM_FILE);
    PathBuf::from(if is_system { SYSTEM_FILE } else { LOCAL_FILE })
}

/// The folder for files that must outlive the daemon: systemd's `STATE_DIRECTORY`. Without systemd the path is empty, so
/// that paths below it are relative to the current folder.
pub fn state_directory() -> Result<PathBuf, Invalid> {
    Ok(folder_of_variable("STATE_DIRECTORY")?.unwrap_or_default())
}

/// The folder for sockets, and whether it is the one of a systemd service.
pub(super) fn runtime_folder() -> Result<Option<(PathBuf, bool)>, Invalid> {
    for (variable, is_service) in [("RUNTIME_DIRECTORY", true), ("XDG_RUNTIME_DIR", false)] {
        if let Some(folder) = folder_of_variable(variable)? {
            return Ok(Some((folder, is_service)));
        }
    }
    Ok(None)
}

/// The folder that an environment variable names; `None` if the variable is unset or empty. systemd sets a list with
/// colons where a unit has several folders; the first one counts.
fn folder_of_variable(variable: &str) -> Result<Option<PathBuf>, Invalid> {
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
