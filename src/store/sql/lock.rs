//! One daemon per database file: a lock that dies with its process, however it dies.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::store::StoreError;

/// A held lock. The system frees it when the process ends.
#[derive(Debug)]
pub(super) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock beside a database file, or says who holds it.
    pub(super) fn take(database: &Path) -> Result<Self, StoreError> {
        let mut name = database.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let shown = path.display();
        let fail =
            |error: std::io::Error| StoreError::Unusable(format!("cannot lock {shown}: {error}"));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(fail)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(fail)?;
            let holder = holder.trim();
            let message = format!("{} is in use by another daemon ({holder})", database.display());
            return Err(StoreError::Unusable(message));
        }
        // The text is for people; the lock itself is what counts.
        file.set_len(0).map_err(fail)?;
        file.rewind().map_err(fail)?;
        writeln!(file, "process {}", std::process::id()).map_err(fail)?;
        Ok(Self { _file: file })
    }
}
