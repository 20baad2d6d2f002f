//! What the daemon and a launcher tell each other, over a socket that keeps messages apart. Files go along with them.

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

/// Bytes of a message. The longest thing in one is a path.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// Files that go along with a message: a description of the command, and its standard three.
pub(super) const FILES_MAX: usize = 4;

/// What the daemon asks for. Each request has one reply.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Enter the cgroup. This is the first request, and is made once.
    Enter {
        /// The cgroup.
        folder: PathBuf,
        /// The soft limit of open files that commands get, if that is not the daemon's own.
        files: Option<u64>,
    },
    /// Start a command. Its description comes along as a file, and so do its standard input and outputs.
    Start,
    /// Wait for the command, which has ended.
    Reap,
}

/// What a launcher answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// It is in the cgroup.
    Entered,
    /// The command has this process number.
    Started(i32),
    /// The command has been waited for.
    Ended {
        /// How it ended, as the kernel puts it.
        status: i32,
        cost: Cost,
        /// Whether nothing but the launcher is left in the cgroup.
        is_alone: bool,
    },
    /// It could not be done.
    Failed {
        /// The system's number for the reason, if it has one.
        errno: Option<i32>,
        why: String,
    },
}

impl Reply {
    pub(super) fn failed(error: &io::Error) -> Self {
        Self::Failed { errno: error.raw_os_error(), why: error.to_string() }
    }
}

/// Sends a message, and files with it.
pub(super) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    files: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !along.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other("too many files for a message"));
    }
    let flags = flags | SendFlags::NOSIGNAL;
    retry_on_intr(|| sendmsg(&socket, &[IoSlice::new(&text)], &mut along, flags))?;
    Ok(())
}

/// The next message, and the files that came with it; none if the other side is gone.
pub(super) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    flags: RecvFlags,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut text = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut along = RecvAncillaryBuffer::new(&mut space);
    let received = retry_on_intr(|| {
        let buffers = &mut [IoSliceMut::new(&mut text)];
        recvmsg(&socket, buffers, &mut along, flags | RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut files = Vec::new();
    for message in along.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            files.extend(more);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        // A lack of descriptors cuts the files off.
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
    fn a_message_arrives_with_its_files_and_the_end_of_the_other_side_is_seen() {
        let kind = SocketType::SEQPACKET;
        let (here, there) =
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        let (reader, writer) = io::pipe().unwrap();
        send(&here, &Request::Start, &[writer.as_fd()], SendFlags::empty()).unwrap();
        send(&here, &Request::Reap, &[], SendFlags::empty()).unwrap();
        drop((writer, here));
        let (request, files) = receive::<Request>(&there, RecvFlags::empty()).unwrap().unwrap();
        assert_eq!((request, files.len()), (Request::Start, 1));
        File::from(files.into_iter().next().unwrap()).write_all(b"x").unwrap();
        let mut text = String::new();
        File::from(OwnedFd::from(reader)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
        let (request, files) = receive::<Request>(&there, RecvFlags::empty()).unwrap().unwrap();
        assert_eq!((request, files.len()), (Request::Reap, 0));
        assert!(receive::<Request>(&there, RecvFlags::empty()).unwrap().is_none());
    }
}
