//! The commands that run, in a file that outlives the daemon: after a crash the next daemon finds their processes by it,
//! also those that have cleared or rewritten their environment.
//!
//! The file has one slot for each command: the number of its process, which is also that of its session, and when it
//! was started. It is locked for as long as its daemon lives. Nothing of it has to survive a crash of the machine, so it is
//! never synced.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::Pid;

use super::leftovers;
use super::stat::Stat;

/// Bytes of a slot. The first one holds the id of the machine's boot.
const SLOT_BYTES: usize = 64;
/// Bytes of a file that are read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Where the kernel names the machine's boot: the numbers of processes mean nothing after another one.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The file with the commands that run.
#[derive(Debug)]
pub(super) struct Records {
    path: PathBuf,
    file: File,
    slots: Mutex<Slots>,
}

#[derive(Debug)]
struct Slots {
    free: Vec<u64>,
    /// The first slot that was never used.
    next: u64,
}

/// The record of a command that runs. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Record<'a> {
    slot: u64,
    of: &'a Records,
}

impl Records {
    /// Takes over the file, and ends what a daemon that has died has left running according to it. This blocks until
    /// that has ended.
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
        // What cannot be read as text was not written by a daemon.
        let read = (&mut file).take(FILE_BYTES_MAX).read_to_string(&mut text);
        let ended = read.map_or(0, |_| leftovers::end_sessions(&sessions(&text, boot_id.trim())));
        if ended > 0 {
            tracing::warn!(processes = ended, "ended commands whose daemon died");
        }
        file.set_len(0)?;
        let slots = Mutex::new(Slots { free: Vec::new(), next: 1 });
        let records = Self { path: path.to_owned(), file, slots };
        records.write(0, boot_id.trim())?;
        Ok(records)
    }

    /// Notes a command that was just started. Without a record it runs all the same.
    pub(super) fn note(&self, pid: Pid) -> Option<Record<'_>> {
        let started = Stat::read(pid)?.started;
        let slot = {
            let mut slots = self.slots();
            slots.free.pop().unwrap_or_else(|| {
                let slot = slots.next;
                slots.next += 1;
                slot
            })
        };
        let record = Record { slot, of: self };
        match self.write(slot, &format!("{} {started}", pid.as_raw_pid())) {
            Ok(()) => Some(record),
            Err(error) => {
                tracing::warn!(%error, "a command could not be noted; it would not be found after a crash");
                None
            }
        }
    }

    fn write(&self, slot: u64, text: &str) -> io::Result<()> {
        let line = format!("{text:<width$}\n", width = SLOT_BYTES - 1);
        let bytes = u64::try_from(SLOT_BYTES).map_err(io::Error::other)?;
        self.file.write_all_at(line.as_bytes(), slot.saturating_mul(bytes))
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Records {
    /// After an orderly end there is nothing to find.
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the file of running commands stays");
        }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.of.write(self.slot, "") {
            tracing::debug!(%error, "the record of a command stays");
        }
        self.of.slots().free.push(self.slot);
    }
}

/// The sessions of a file that were begun since this boot, and when.
fn sessions(text: &str, boot_id: &str) -> Vec<(Pid, u64)> {
    let mut lines = text.lines().map(str::trim);
    if lines.next() != Some(boot_id) {
        return Vec::new();
    }
    let session = |line: &str| {
        let (pid, started) = line.split_once(' ')?;
        let pid = i32::try_from(pid.parse::<u32>().ok()?).ok()?;
        Some((Pid::from_raw(pid)?, started.parse().ok()?))
    };
    lines.filter_map(session).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Vec<(i32, u64)> {
        let boot_id = std::fs::read_to_string(BOOT_ID).unwrap();
        let found = sessions(&std::fs::read_to_string(path).unwrap(), boot_id.trim());
        found.into_iter().map(|(pid, started)| (pid.as_raw_pid(), started)).collect()
    }

    #[test]
    fn a_command_is_in_the_file_for_as_long_as_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("commands");
        let records = Records::open(&path).unwrap();
        let own = rustix::process::getpid();
        let (first, second) = (records.note(own).unwrap(), records.note(own).unwrap());
        let entry = (own.as_raw_pid(), Stat::read(own).unwrap().started);
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
    fn a_file_has_one_daemon_and_what_is_no_record_or_of_an_earlier_boot_means_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("commands");
        let records = Records::open(&path).unwrap();
        assert!(Records::open(&path).is_err(), "its daemon lives");
        drop(records);
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert!(Records::open(&path).is_ok());
        assert!(sessions("another boot\n1 2\n", "this boot").is_empty());
        let text = "this boot\nx y\n\n0 1\n17 4\n-3 5\n";
        let found = sessions(text, "this boot");
        assert_eq!(found, [(Pid::from_raw(17).unwrap(), 4)]);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(Records::open(&link).is_err(), "no link is followed");
    }
}
