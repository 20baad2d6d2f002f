//! A file that lists the running commands and outlives the daemon. After a crash the next daemon finds their processes
//! by it, including those that have cleared or rewritten their environment.
//!
//! The file has one slot for each command: the id of its process, which is also the id of its session, and its start time.
//! The daemon keeps the file locked. Its content is of no use after a crash of the machine, so it is never synced.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::Pid;

use super::orphans::{self, ProcessId};

/// Bytes of a slot. The first slot holds the id of the machine's boot.
const SLOT_BYTES: usize = 64;
/// Bytes of an existing file that are read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The kernel's id of the machine's boot: process ids of an earlier boot mean nothing.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[derive(Debug)]
pub(super) struct CommandRecords {
    path: PathBuf,
    file: File,
    /// The slots in use.
    used: Mutex<BTreeSet<u64>>,
}

/// The slot of a running command. Dropping it clears the slot.
#[derive(Debug)]
pub(super) struct CommandRecord<'a> {
    slot: u64,
    records: &'a CommandRecords,
}

impl CommandRecords {
    /// Locks the file and kills the commands that a dead daemon has left in it. This blocks until they have ended.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(i32::try_from(OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?)
            .open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let boot_id = std::fs::read_to_string(BOOT_ID)?;
        let mut text = String::new();
        // A file that is not text was not written by a daemon.
        let read = (&mut file).take(FILE_BYTES_MAX).read_to_string(&mut text);
        let ended = read.map_or(0, |_| orphans::kill_sessions(&recorded(&text, boot_id.trim())));
        if ended > 0 {
            tracing::warn!(processes = ended, "ended commands whose daemon died");
        }
        file.set_len(0)?;
        let used = Mutex::default();
        let records = Self { path: path.to_owned(), file, used };
        records.write(0, boot_id.trim())?;
        Ok(records)
    }

    /// Records a command that was just started. If that fails, the command runs without a record.
    pub(super) fn note(&self, pid: Pid) -> Option<CommandRecord<'_>> {
        let ProcessId { started, .. } = ProcessId::of(pid)?;
        let slot = {
            let mut used = self.used();
            let taken = used.iter().zip(1..).take_while(|(slot, number)| *slot == number);
            let slot = taken.last().map_or(1, |(slot, _)| slot + 1);
            used.insert(slot);
            slot
        };
        let record = CommandRecord { slot, records: self };
        match self.write(slot, &format!("{} {started}", pid.as_raw_pid())) {
            Ok(()) => Some(record),
            Err(error) => {
                tracing::warn!(%error, "a command could not be recorded, so it would not be found after a crash");
                None
            }
        }
    }

    fn write(&self, slot: u64, text: &str) -> io::Result<()> {
        let line = format!("{text:<width$}\n", width = SLOT_BYTES - 1);
        let bytes = u64::try_from(SLOT_BYTES).map_err(io::Error::other)?;
        self.file.write_all_at(line.as_bytes(), slot.saturating_mul(bytes))
    }

    fn used(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CommandRecords {
    /// After an orderly end no command is left to be found.
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the file of running commands could not be removed");
        }
    }
}

impl Drop for CommandRecord<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.records.write(self.slot, "") {
            tracing::debug!(%error, "the record of a command could not be cleared");
        }
        self.records.used().remove(&self.slot);
    }
}

/// The commands that a file lists, if it was written since this boot.
fn recorded(text: &str, boot_id: &str) -> Vec<ProcessId> {
    let mut lines = text.lines().map(str::trim);
    if lines.next() != Some(boot_id) {
        return Vec::new();
    }
    let process = |line: &str| {
        let (pid, started) = line.split_once(' ')?;
        let pid = Pid::from_raw(i32::try_from(pid.parse::<u32>().ok()?).ok()?)?;
        Some(ProcessId { pid, started: started.parse().ok()? })
    };
    lines.filter_map(process).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Vec<ProcessId> {
        let boot_id = std::fs::read_to_string(BOOT_ID).unwrap();
        recorded(&std::fs::read_to_string(path).unwrap(), boot_id.trim())
    }

    #[test]
    fn a_command_is_in_the_file_while_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("commands");
        let records = CommandRecords::open(&path).unwrap();
        let own = rustix::process::getpid();
        let (first, second) = (records.note(own).unwrap(), records.note(own).unwrap());
        let entry = ProcessId::of(own).unwrap();
        assert_eq!(read(&path), [entry, entry]);
        drop(first);
        assert_eq!(read(&path), [entry]);
        let third = records.note(own).unwrap();
        assert_eq!(path.metadata().unwrap().len(), 3 * 64, "a free slot is used again");
        drop((second, third));
        assert_eq!(read(&path), []);
        drop(records);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_belongs_to_one_daemon_and_invalid_or_outdated_records_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("commands");
        let records = CommandRecords::open(&path).unwrap();
        assert!(CommandRecords::open(&path).is_err(), "its daemon lives");
        drop(records);
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert!(CommandRecords::open(&path).is_ok());
        assert!(recorded("another boot\n1 2\n", "this boot").is_empty());
        let text = "this boot\nx y\n\n0 1\n17 4\n-3 5\n";
        let found = recorded(text, "this boot");
        assert_eq!(found, [ProcessId { pid: Pid::from_raw(17).unwrap(), started: 4 }]);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(CommandRecords::open(&link).is_err(), "no link is followed");
    }
}
