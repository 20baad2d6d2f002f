//! The messages between the daemon and a launcher: JSON over a `SEQPACKET` socket, which keeps messages apart. Open files
//! can be sent along with a message.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::run::Cost;

/// Size limit of a message in bytes. Its longest part is a path.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// Files that are sent with a message: the description of a command, its stdin, stdout and stderr.
const FILES_MAX: usize = 4;

/// A request of the daemon. Each has one reply.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum LauncherRequest {
    /// Enter the cgroup. This is the first request, and is made once.
    Enter {
        folder: PathBuf,
        /// The soft limit of open files of commands, if that is not the daemon's own.
        files: Option<u64>,
    },
    /// Start a command. Its description is sent along as a file, and so are its stdin, stdout and stderr.
    Start,
    /// Reap the command, which has ended.
    Reap,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum LauncherReply {
    /// The launcher is in the cgroup.
    Entered,
    /// The process id of the command.
    Started(i32),
    /// The command has been reaped.
    Ended {
        /// The wait status, as the kernel encodes it.
        status: i32,
        cost: Cost,
        /// Whether nothing but the launcher is left in the cgroup.
        is_alone: bool,
    },
    Failed {
        /// The error number of the system, if it has one.
        errno: Option<i32>,
        why: String,
    },
}

impl LauncherReply {
    pub(super) fn failed(error: &io::Error) -> Self {
        Self::Failed { errno: error.raw_os_error(), why: error.to_string() }
    }
}

/// Sends a message, with files.
pub(super) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    files: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other("too many files for a message"));
    }
    let flags = flags | SendFlags::NOSIGNAL;
    retry_on_intr(|| sendmsg(&socket, &[IoSlice::new(&text)], &mut ancillary, flags))?;
    Ok(())
}

/// The next message and its files; none if the other side is gone.
pub(super) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    flags: RecvFlags,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut text = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = retry_on_intr(|| {
        let buffers = &mut [IoSliceMut::new(&mut text)];
        recvmsg(&socket, buffers, &mut ancillary, flags | RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut files = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            files.extend(more);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        // The kernel drops files for which the receiver has no free descriptor.
        return Err(rustix::io::Errno::MFILE.into());
    }
    let text = text.get(..received.bytes).unwrap_or_default();
    Ok(Some((serde_json::from_slice(text)?, files)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn a_message_arrives_with_its_files_and_a_closed_socket_is_noticed() {
        let kind = SocketType::SEQPACKET;
        let (here, there) =
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        let (reader, writer) = io::pipe().unwrap();
        send(&here, &LauncherRequest::Start, &[writer.as_fd()], SendFlags::empty()).unwrap();
        send(&here, &LauncherRequest::Reap, &[], SendFlags::empty()).unwrap();
        drop((writer, here));
        let (request, files) =
            receive::<LauncherRequest>(&there, RecvFlags::empty()).unwrap().unwrap();
        assert_eq!((request, files.len()), (LauncherRequest::Start, 1));
        File::from(files.into_iter().next().unwrap()).write_all(b"x").unwrap();
        let mut text = String::new();
        File::from(OwnedFd::from(reader)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
        let (request, files) =
            receive::<LauncherRequest>(&there, RecvFlags::empty()).unwrap().unwrap();
        assert_eq!((request, files.len()), (LauncherRequest::Reap, 0));
        assert!(receive::<LauncherRequest>(&there, RecvFlags::empty()).unwrap().is_none());
    }
}
