//! The daemon's end of a worker process: what it says on its socket, and what it prints meanwhile.

use std::time::Duration;

use super::frame::{FrameError, Frames, encode};
use super::message::{Answer, Request};
use super::outputs::Outputs;
use super::socket::Socket;
use super::spawner::Spawned;
use crate::output::Stream;
use crate::task::cancellation::Ending;

/// Why a worker is of no more use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// Its socket has ended.
    #[error("it ended")]
    Ended,
    /// It has ended without having read all that it was sent.
    #[error("it ended before it had read all that it was sent")]
    EndedUnread,
    /// The socket failed.
    #[error("its socket failed: {0}")]
    Socket(std::io::Error),
    /// It said what it must not.
    #[error("it broke the protocol: {0}")]
    Protocol(String),
    /// It gave no sign of life.
    #[error("it did not answer for {}s", .0.as_secs_f64())]
    Silent(Duration),
    /// It was asked to end its call, and did not, or ended itself.
    #[error("it was asked to end its call")]
    Asked(Ending),
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        // What is sent to a socket whose other end is closed does not arrive; and when an end is closed where something
        // has arrived that was not read, the other one is told so.
        let is_unread = matches!(error.kind(), BrokenPipe | ConnectionReset);
        if is_unread { Self::EndedUnread } else { Self::Socket(error) }
    }
}

impl From<FrameError> for Broken {
    fn from(error: FrameError) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// A worker's socket and its outputs.
#[derive(Debug)]
pub(super) struct Line {
    socket: Socket,
    frames: Frames,
    outputs: Outputs,
    sending: Vec<u8>,
}

impl Line {
    /// The line of a process that was just started, and the process.
    pub(super) fn new(spawned: Spawned) -> (Self, tokio::process::Child) {
        let Spawned { child, socket, stdout, stderr } = spawned;
        let (frames, outputs) = (Frames::default(), Outputs::new(stdout, stderr));
        (Self { socket, frames, outputs, sending: Vec::new() }, child)
    }

    /// The next message; what is printed meanwhile goes to `sink`. It is cancel-safe.
    pub(super) async fn hear(&mut self, sink: impl Fn(Stream, &[u8])) -> Result<Answer, Broken> {
        loop {
            if let Some(answer) = self.frames.next()? {
                return Ok(answer);
            }
            tokio::select! {
                biased;
                read = self.socket.read(self.frames.space()) => match read? {
                    0 => return Err(Broken::Ended),
                    count => self.frames.fill(count),
                },
                (stream, bytes) = self.outputs.next() => sink(stream, bytes),
            }
        }
    }

    /// Gives what was printed and not read yet.
    pub(super) fn take_printed(&mut self, sink: impl Fn(Stream, &[u8])) {
        self.outputs.take_waiting(sink);
    }

    /// Sends a message.
    pub(super) async fn say(&mut self, request: &Request<'_>) -> Result<(), Broken> {
        if !self.begin_to_say(request)? {
            self.say_rest().await?;
        }
        Ok(())
    }

    /// Sends a message as far as it goes at once, which is all of a usual one; answers whether it was all.
    pub(super) fn begin_to_say(&mut self, request: &Request<'_>) -> Result<bool, FrameError> {
        self.sending.clear();
        encode(request, &mut self.sending)?;
        // An error is met again by what sends the rest.
        let sent = self.socket.write_now(&self.sending).unwrap_or(0);
        self.sending.drain(..sent);
        Ok(self.sending.is_empty())
    }

    /// Sends the rest of it. If this is cancelled, nothing more can be sent.
    pub(super) async fn say_rest(&mut self) -> Result<(), Broken> {
        Ok(self.socket.write(&self.sending).await?)
    }

    /// Says that nothing more will be said.
    pub(super) fn hang_up(&self) {
        // An error means that the other end is closed already.
        drop(self.socket.hang_up());
    }

    /// Whether a worker that has ended has left something unread.
    pub(super) fn was_left_unread(&self) -> bool {
        let read = rustix::io::read(&self.socket, &mut [0; 1]);
        read == Err(rustix::io::Errno::CONNRESET)
    }
}
