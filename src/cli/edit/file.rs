//! The file that an editor opens. It is readable for its user only, since a job may say what others must not see.

use std::fs::{self, OpenOptions};
use std::io::{Error, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::error::CliError;

/// The editor if none is chosen.
const DEFAULT_EDITOR: &str = "vi";
/// Bytes of a text that are read back, far more than a job has.
const TEXT_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// A file that is removed when it is not needed any more.
#[derive(Debug)]
pub(super) struct EditedFile {
    path: PathBuf,
    is_kept: bool,
}

impl EditedFile {
    pub(super) fn create() -> Result<Self, CliError> {
        let name = format!("punctual-{}.toml", uuid::Uuid::now_v7());
        let path = std::env::temp_dir().join(name);
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        created.map_err(|error| failed(&path, &error))?;
        Ok(Self { path, is_kept: false })
    }

    pub(super) fn write(&self, text: &str) -> Result<(), CliError> {
        // An editor may have removed it.
        let file =
            OpenOptions::new().write(true).truncate(true).create(true).mode(0o600).open(&self.path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| failed(&self.path, &error))
    }

    pub(super) fn read(&self) -> Result<String, CliError> {
        let bytes = fs::metadata(&self.path).map_err(|error| failed(&self.path, &error))?.len();
        if bytes > TEXT_BYTES_MAX {
            return Err(CliError::Refused(format!(
                "the text has more than {TEXT_BYTES_MAX} bytes"
            )));
        }
        fs::read_to_string(&self.path).map_err(|error| failed(&self.path, &error))
    }

    /// Leaves the file where it is.
    pub(super) fn keep(mut self) -> PathBuf {
        self.is_kept = true;
        self.path.clone()
    }

    /// Opens the file in the user's editor, and waits for its end.
    pub(super) fn open_in_editor(&self) -> Result<(), CliError> {
        let chosen = |name| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty());
        let editor = chosen("VISUAL").or_else(|| chosen("EDITOR"));
        let editor = editor.unwrap_or_else(|| DEFAULT_EDITOR.to_owned());
        // Ctrl-C is for the editor: this process is not ended by it meanwhile.
        let _interrupts = signal(SignalKind::interrupt());
        // The variable may hold options too, which the shell splits as in other programs.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("{editor} \"$@\""), &editor]).arg(&self.path);
        let status = command.status();
        let status = status.map_err(|error| CliError::Refused(format!("{editor}: {error}")))?;
        if status.success() {
            return Ok(());
        }
        Err(CliError::Refused(format!(
            "the editor ({editor}) failed with {status}; nothing was changed"
        )))
    }
}

impl Drop for EditedFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // It may have been removed by the editor.
            drop(fs::remove_file(&self.path));
        }
    }
}

fn failed(path: &Path, error: &Error) -> CliError {
    CliError::Refused(format!("{}: {error}", path.display()))
}
