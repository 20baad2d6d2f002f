//! The daemon's end of a worker process: the socket for messages, and the pipes of what the worker prints.

use super::error::WorkerError;
use super::protocol::frame::{FrameError, FrameReader, encode};
use super::protocol::message::{DaemonMessage, WorkerMessage};
use super::socket::WorkerSocket;
use super::spawn::SpawnedWorker;
use crate::executor::pipes::OutputPipes;
use crate::output::Stream;

#[derive(Debug)]
pub(super) struct WorkerConnection {
    socket: WorkerSocket,
    frames: FrameReader,
    outputs: OutputPipes,
    sending: Vec<u8>,
}

impl WorkerConnection {
    /// Takes over a process that was just started.
    pub(super) fn new(spawned: SpawnedWorker) -> (Self, tokio::process::Child) {
        let SpawnedWorker { child, socket, stdout, stderr } = spawned;
        let (frames, outputs) = (FrameReader::default(), OutputPipes::new(stdout, stderr));
        (Self { socket, frames, outputs, sending: Vec::new() }, child)
    }

    /// Waits for the next message, and passes what the worker prints meanwhile to `sink`. Cancel-safe.
    pub(super) async fn receive(
        &mut self,
        sink: impl Fn(Stream, &[u8]),
    ) -> Result<WorkerMessage, WorkerError> {
        loop {
            if let Some(message) = self.frames.next()? {
                return Ok(message);
            }
            tokio::select! {
                biased;
                read = self.socket.read(self.frames.space()) => match read? {
                    0 => return Err(WorkerError::Ended),
                    count => self.frames.fill(count),
                },
                Some((stream, bytes)) = self.outputs.next() => sink(stream, bytes),
            }
        }
    }

    /// Passes what was printed and has not been read to `sink`.
    pub(super) fn drain_outputs(&mut self, sink: impl Fn(Stream, &[u8])) {
        self.outputs.drain(sink);
    }

    pub(super) async fn send(&mut self, message: &DaemonMessage<'_>) -> Result<(), WorkerError> {
        if !self.try_send(message)? {
            self.send_rest().await?;
        }
        Ok(())
    }

    /// Sends as much of a message as the socket takes at once, which is usually all of it. If the answer is false,
    /// [`Self::send_rest`] has to follow.
    pub(super) fn try_send(&mut self, message: &DaemonMessage<'_>) -> Result<bool, FrameError> {
        self.sending.clear();
        encode(message, &mut self.sending)?;
        // `send_rest` meets an error again.
        let sent = self.socket.write_now(&self.sending).unwrap_or(0);
        self.sending.drain(..sent);
        Ok(self.sending.is_empty())
    }

    /// Sends the rest of a message. Not cancel-safe: after a cancel nothing more can be sent.
    pub(super) async fn send_rest(&mut self) -> Result<(), WorkerError> {
        Ok(self.socket.write(&self.sending).await?)
    }

    /// Closes the socket for writing, which tells the worker to end.
    pub(super) fn close_writing(&self) {
        // An error means that the other end is closed already.
        drop(self.socket.close_writing());
    }

    /// Whether a worker that has ended has left something unread.
    pub(super) fn was_left_unread(&self) -> bool {
        let read = rustix::io::read(&self.socket, &mut [0; 1]);
        read == Err(rustix::io::Errno::CONNRESET)
    }
}
