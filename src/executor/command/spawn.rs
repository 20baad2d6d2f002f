//! How a process is created: by `posix_spawn`, which costs the same however much memory the daemon has. The process has
//! a session of its own and so no terminal, every signal has its default effect, none is blocked, and of the open files
//! it gets the three standard ones alone, since all others of the daemon are closed on `exec`.

use std::collections::BTreeMap;
use std::ffi::{CString, NulError, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use rustix::process::Pid;

/// `POSIX_SPAWN_SETSID`, which has this value in every C library of Linux.
const SETSID: nix::libc::c_int = 0x80;

/// A process to be created.
#[derive(Debug)]
pub(super) struct Spawn {
    /// The file to execute: an absolute path, or one from the daemon's folder.
    program: PathBuf,
    argv: Vec<CString>,
    env: Vec<CString>,
    /// Standard input, output and error.
    files: [OwnedFd; 3],
}

impl Spawn {
    /// Prepares it. An error means that an argument or a variable has a NUL byte.
    pub(super) fn new(
        program: &Path,
        argv: &[String],
        env: BTreeMap<OsString, OsString>,
        files: [OwnedFd; 3],
    ) -> Result<Self, NulError> {
        let argv = argv.iter().map(|word| CString::new(word.as_str())).collect::<Result<_, _>>()?;
        Ok(Self { program: program.to_owned(), argv, env: environment(env)?, files })
    }

    /// Creates the process. Its number is also that of its session and of its process group.
    pub(super) fn start(&self) -> io::Result<Pid> {
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_sigmask(&SigSet::empty())?;
        attributes.set_sigdefault(&SigSet::all())?;
        attributes.set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
                | PosixSpawnFlags::from_bits_retain(SETSID),
        )?;
        let mut actions = PosixSpawnFileActions::init()?;
        for (number, file) in (0..).zip(&self.files) {
            actions.add_dup2(file.as_raw_fd(), number)?;
        }
        let program = self.program.as_path();
        let pid = posix_spawn(program, &actions, &attributes, &self.argv, &self.env)?;
        Pid::from_raw(pid.as_raw()).ok_or_else(|| io::Error::other("a process without a number"))
    }
}

/// Variables as the kernel takes them.
pub(super) fn environment(env: BTreeMap<OsString, OsString>) -> Result<Vec<CString>, NulError> {
    let entry = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        CString::new(name.into_encoded_bytes())
    };
    env.into_iter().map(entry).collect()
}
