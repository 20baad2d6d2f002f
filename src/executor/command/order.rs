//! What the shim is told, and what it answers: on a sheet of memory that it shares with the daemon.
//!
//! The daemon writes an order, and gives the sheet to the shim as its standard input. The shim takes the order away
//! and becomes the command; if it cannot, it writes why. So a sheet that is empty at the end says that the command
//! was really executed, and nothing of this is seen by the command: not in its arguments, and not in its environment.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

/// Bytes of a sheet: an order holds the arguments and the input of a command.
const SHEET_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What the shim is to become, and what it sets before.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    /// A path, or a name that is looked for in the command's `PATH`.
    pub(super) program: PathBuf,
    /// The program's name, as it was given, and its arguments.
    pub(super) argv: Vec<String>,
    pub(super) cwd: Option<String>,
    pub(super) stdin: Option<String>,
    pub(super) user: Option<String>,
    pub(super) group: Option<String>,
    pub(super) umask: Option<u32>,
    pub(super) nice: Option<i32>,
    /// Bytes of address space.
    pub(super) memory: Option<u64>,
    /// Seconds on processors.
    pub(super) cpu: Option<u64>,
    /// Open files.
    pub(super) files: Option<u64>,
    /// Open files where no limit is given, if the daemon itself has another one.
    pub(super) soft_files: Option<u64>,
    /// The environment of the command. The shim itself never has it: it may run with more rights than the command, and
    /// variables such as `LD_PRELOAD` would have it run code of the command's owner.
    pub(super) env: Vec<(OsString, OsString)>,
    /// Variables that were given: a user's own do not take their place.
    pub(super) variables: Vec<String>,
    /// Whether a command that names the daemon's own user begins in the home of that user, as those of others do.
    pub(super) begins_at_home: bool,
}

/// Why the shim could not become the command.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) error: String,
    /// Whether trying again cannot help.
    pub(super) permanent: bool,
    /// Whether the system had no place for it at the moment, so that nothing has begun.
    pub(super) is_shortage: bool,
}

impl Refusal {
    pub(super) fn passing(error: impl Into<String>) -> Self {
        Self { error: error.into(), permanent: false, is_shortage: false }
    }

    pub(super) fn shortage(error: impl Into<String>) -> Self {
        Self { is_shortage: true, ..Self::passing(error) }
    }

    pub(super) fn permanent(error: impl Into<String>) -> Self {
        Self { permanent: true, ..Self::passing(error) }
    }
}

/// What stands on a sheet when the shim has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It became the command.
    Executed,
    /// It could not.
    Refused(Refusal),
    /// It ended before it could say anything.
    Nothing,
}

/// The memory that both share.
#[derive(Debug)]
pub(super) struct Sheet(File);

impl Sheet {
    /// A sheet with an order.
    pub(super) fn with(order: &Order) -> io::Result<Self> {
        Ok(Self(memory_file("punctual-order", &serde_json::to_vec(order)?)?))
    }

    /// The same sheet, for the shim.
    pub(super) fn stdin(&self) -> io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
    }

    /// The sheet that this process was given, and its order. It does not outlive `exec`.
    pub(super) fn received() -> io::Result<(Self, Order)> {
        let sheet = Self(io::stdin().as_fd().try_clone_to_owned()?.into());
        let order = serde_json::from_slice(&sheet.read()?)?;
        sheet.0.set_len(0)?;
        Ok((sheet, order))
    }

    /// Answers that the order could not be carried out.
    pub(super) fn refuse(&self, refusal: &Refusal) -> io::Result<()> {
        self.0.write_all_at(&serde_json::to_vec(refusal)?, 0)
    }

    /// What the shim has answered.
    pub(super) fn answer(&self) -> Answer {
        let Ok(bytes) = self.read() else { return Answer::Nothing };
        if bytes.is_empty() {
            return Answer::Executed;
        }
        serde_json::from_slice(&bytes).map_or(Answer::Nothing, Answer::Refused)
    }

    /// Its text. The shim shares the place where it was read last, so this begins at the start whatever that is.
    fn read(&self) -> io::Result<Vec<u8>> {
        let length = self.0.metadata()?.len();
        if length > SHEET_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.0.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// A file in memory with this content, to be read from its start. Unlike a pipe it is written at once, and the process
/// that gets it may read it or not.
pub(super) fn memory_file(name: &str, content: &[u8]) -> io::Result<File> {
    let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.write_all_at(content, 0)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_sheet_says_whether_the_order_was_carried_out() {
        let order = Order { argv: vec!["x".to_owned()], ..Order::default() };
        let sheet = Sheet::with(&order).unwrap();
        assert_eq!(sheet.answer(), Answer::Nothing, "nobody has taken the order");
        sheet.0.set_len(0).unwrap();
        assert_eq!(sheet.answer(), Answer::Executed);
        sheet.refuse(&Refusal::permanent("no")).unwrap();
        assert_eq!(sheet.answer(), Answer::Refused(Refusal::permanent("no")));
    }

    #[test]
    fn a_file_in_memory_is_read_from_its_start() {
        let mut text = String::new();
        memory_file("test", b"content").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
    }
}
