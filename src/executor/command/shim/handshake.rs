//! The handshake between the daemon and a shim, over a block of memory that both share.
//!
//! The daemon writes a request into the block and gives the block to the shim as its stdin. The shim reads the request,
//! empties the block, and becomes the command; if it cannot, it writes the reason into the block. So an empty block at
//! the end means that the command was really executed. The command sees nothing of the handshake: neither its arguments
//! nor its environment hold any of it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::executor::command::error::CommandStartError;
use crate::executor::command::spawn::memory_file;

/// Size limit of a block in bytes. A request holds the arguments and the stdin of a command.
const BLOCK_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The command that the shim becomes, and what it sets on itself before that.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShimRequest {
    /// A path, or a name to look up in the command's `PATH`.
    pub(crate) program: PathBuf,
    /// The program's name as the definition has it, and its arguments.
    pub(crate) argv: Vec<String>,
    pub(crate) cwd: Option<String>,
    pub(crate) stdin: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) umask: Option<u32>,
    pub(crate) nice: Option<i32>,
    /// Limit of the address space in bytes.
    pub(crate) memory: Option<u64>,
    /// Limit of CPU time in seconds.
    pub(crate) cpu: Option<u64>,
    /// Limit of open files.
    pub(crate) files: Option<u64>,
    /// Soft limit of open files if `files` is not given and commands do not get the daemon's own limit.
    pub(crate) soft_files: Option<u64>,
    /// The environment of the command. The shim itself is not started with it: it may have more rights than the command,
    /// and variables such as `LD_PRELOAD` would make it run code of the command's owner.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Names of variables that the definition gives. Those of the user's login do not replace them.
    pub(crate) variables: Vec<String>,
    /// Whether a command that names the daemon's own user starts in that user's home, as commands of other users do.
    pub(crate) begins_at_home: bool,
}

/// The content of the block when the shim's process has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ShimResult {
    /// The shim became the command.
    Executed,
    Refused(CommandStartError),
    /// The shim ended without a result.
    Silent,
}

/// The memory that the daemon and the shim share.
#[derive(Debug)]
pub(crate) struct SharedBlock(File);

impl SharedBlock {
    pub(crate) fn with(request: &ShimRequest) -> io::Result<Self> {
        Ok(Self(memory_file("punctual-request", &serde_json::to_vec(request)?)?))
    }

    /// The same block, as the stdin of the shim.
    pub(crate) fn as_stdin(&self) -> io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
    }

    /// The block and the request that this process got as its stdin. The block is closed on `exec`.
    pub(super) fn received() -> io::Result<(Self, ShimRequest)> {
        let block = Self(io::stdin().as_fd().try_clone_to_owned()?.into());
        let request = serde_json::from_slice(&block.read()?)?;
        block.0.set_len(0)?;
        Ok((block, request))
    }

    /// Tells the daemon that the shim could not become the command.
    pub(super) fn refuse(&self, error: &CommandStartError) -> io::Result<()> {
        self.0.write_all_at(&serde_json::to_vec(error)?, 0)
    }

    /// What became of the shim, once its process has ended.
    pub(crate) fn result(&self) -> ShimResult {
        let Ok(bytes) = self.read() else { return ShimResult::Silent };
        if bytes.is_empty() {
            return ShimResult::Executed;
        }
        serde_json::from_slice(&bytes).map_or(ShimResult::Silent, ShimResult::Refused)
    }

    /// Reads from the start, wherever the shim has left the file position that both processes share.
    fn read(&self) -> io::Result<Vec<u8>> {
        let length = self.0.metadata()?.len();
        if length > BLOCK_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.0.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_says_whether_the_command_was_executed() {
        let request = ShimRequest { argv: vec!["x".to_owned()], ..ShimRequest::default() };
        let block = SharedBlock::with(&request).unwrap();
        assert_eq!(block.result(), ShimResult::Silent, "no shim has read the request");
        block.0.set_len(0).unwrap();
        assert_eq!(block.result(), ShimResult::Executed);
        block.refuse(&CommandStartError::permanent("no")).unwrap();
        assert_eq!(block.result(), ShimResult::Refused(CommandStartError::permanent("no")));
    }
}
