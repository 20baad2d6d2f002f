//! Creating a process with `posix_spawn`, whose cost does not grow with the daemon's memory. The process leads a session
//! of its own, so it has no terminal; every signal has its default effect and none is blocked. It gets the three standard
//! files only, since the daemon closes all others on `exec`.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, NulError, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use rustix::fs::{MemfdFlags, memfd_create};
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
    /// An error means that an argument or a variable has a NUL byte.
    pub(super) fn new(
        program: &Path,
        argv: &[String],
        env: BTreeMap<OsString, OsString>,
        files: [OwnedFd; 3],
    ) -> Result<Self, NulError> {
        let argv = argv.iter().map(|word| CString::new(word.as_str())).collect::<Result<_, _>>()?;
        Ok(Self { program: program.to_owned(), argv, env: kernel_environment(env)?, files })
    }

    /// The standard files.
    pub(super) fn files(&self) -> [BorrowedFd<'_>; 3] {
        self.files.each_ref().map(AsFd::as_fd)
    }

    /// Everything but the standard files, for a launcher: the number of arguments, the program, the arguments and the
    /// variables, each followed by a NUL byte.
    pub(super) fn description(&self) -> io::Result<File> {
        let mut bytes = format!("{}\0", self.argv.len()).into_bytes();
        bytes.extend(self.program.as_os_str().as_encoded_bytes());
        bytes.push(0);
        for text in self.argv.iter().chain(&self.env) {
            bytes.extend(text.as_bytes_with_nul());
        }
        memory_file("punctual-command", &bytes)
    }

    /// Reads the result of [`Self::description`].
    pub(super) fn read(mut description: &File, files: [OwnedFd; 3]) -> io::Result<Self> {
        let mut bytes = Vec::new();
        description.rewind()?;
        description.read_to_end(&mut bytes)?;
        let mut texts = bytes.split_inclusive(|byte| *byte == 0).map(CStr::from_bytes_with_nul);
        let mut next = || texts.next()?.ok().map(CStr::to_owned);
        let cut = || io::Error::other("the description of a command is incomplete");
        let count = next().and_then(|count| count.to_str().ok()?.parse().ok()).ok_or_else(cut)?;
        let program = PathBuf::from(OsStr::from_bytes(next().ok_or_else(cut)?.as_bytes()));
        let argv: Vec<CString> = std::iter::from_fn(&mut next).take(count).collect();
        if argv.len() < count {
            return Err(cut());
        }
        Ok(Self { program, argv, env: std::iter::from_fn(next).collect(), files })
    }

    /// Creates the process. Its id is also the id of its session and of its process group.
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
        Pid::from_raw(pid.as_raw()).ok_or_else(|| io::Error::other("a process without an id"))
    }
}

/// Variables in the form `NAME=value`, as the kernel takes them.
pub(super) fn kernel_environment(
    env: BTreeMap<OsString, OsString>,
) -> Result<Vec<CString>, NulError> {
    let entry = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        CString::new(name.into_encoded_bytes())
    };
    env.into_iter().map(entry).collect()
}

/// The stdin of a command: a text, or nothing.
pub(super) fn stdin_file(text: Option<&str>) -> io::Result<File> {
    match text {
        Some(text) => memory_file("punctual-input", text.as_bytes()),
        None => File::open("/dev/null"),
    }
}

/// A file in memory with this content, to be read from its start. Unlike a pipe, all of it is written at once, whether
/// or not the process that gets the file reads it.
pub(super) fn memory_file(name: &str, content: &[u8]) -> io::Result<File> {
    let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.write_all_at(content, 0)?;
    Ok(file)
}

/// Why a program could not be executed, in words: the kernel uses one error number for several reasons.
pub(super) fn explain(error: &io::Error, program: &Path, cwd: Option<&str>) -> String {
    if let Some(cwd) = cwd
        && let Some(why) = why_not_entered(Path::new(cwd))
    {
        return format!("the working directory \"{cwd}\" {why}");
    }
    let kind = error.kind();
    let why = if kind == io::ErrorKind::NotFound && program.exists() {
        "the interpreter that it names was not found".to_owned()
    } else if kind == io::ErrorKind::PermissionDenied && program.is_dir() {
        "it is a directory".to_owned()
    } else if kind == io::ErrorKind::ArgumentListTooLong {
        "its arguments and its environment are too long".to_owned()
    } else {
        error.to_string()
    };
    format!("\"{}\" could not be started: {why}", program.display())
}

fn why_not_entered(folder: &Path) -> Option<String> {
    match folder.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            let error = rustix::fs::access(folder, rustix::fs::Access::EXEC_OK).err()?;
            Some(format!("cannot be entered: {}", io::Error::from(error)))
        }
        Ok(_) => Some("is not a directory".to_owned()),
        Err(error) => Some(format!("cannot be entered: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read_as_it_was_written() {
        let files = || [(); 3].map(|()| OwnedFd::from(File::open("/dev/null").unwrap()));
        let argv = ["sh", "-c", "", "a\nb"].map(str::to_owned);
        let value = OsStr::from_bytes(b"\xff=1").to_owned();
        let env = BTreeMap::from([("A".into(), value), ("B".into(), OsString::new())]);
        let spawn = Spawn::new(Path::new("/bin/sh"), &argv, env, files()).unwrap();
        let description = spawn.description().unwrap();
        let read = Spawn::read(&description, files()).unwrap();
        assert_eq!(read.program, spawn.program);
        assert_eq!((&read.argv, &read.env), (&spawn.argv, &spawn.env));
        description.set_len(12).unwrap();
        assert!(Spawn::read(&description, files()).is_err(), "it was cut");
    }

    #[test]
    fn a_file_in_memory_is_read_from_its_start() {
        let mut text = String::new();
        memory_file("test", b"content").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
    }
}
