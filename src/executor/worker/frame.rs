//! Frames: a length in four bytes, and that many bytes of JSON. Both sides of a worker's socket read as many of them at
//! a time as are there.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of one message: a job's arguments, a result and a batch of lines are bounded far below it, even with every
/// byte escaped.
pub(super) const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a length.
const HEAD_BYTES: usize = 4;
/// Bytes that are read at a time, and kept when a longer message has gone.
const READ_BYTES: usize = 8 * 1024;

/// Why something is no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a message of {0} bytes is longer than {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    #[error("not a message of this protocol: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// Puts a message behind what is to be sent already. What is too long is not put there.
pub(super) fn encode(message: &impl Serialize, sending: &mut Vec<u8>) -> Result<(), FrameError> {
    let at = sending.len();
    sending.extend_from_slice(&[0; HEAD_BYTES]);
    let written = serde_json::to_writer(&mut *sending, message);
    let length = sending.len() - at - HEAD_BYTES;
    let head = u32::try_from(length).ok().filter(|_| length <= MESSAGE_BYTES_MAX);
    match (written, head, sending.get_mut(at..at + HEAD_BYTES)) {
        (Ok(()), Some(length), Some(head)) => {
            head.copy_from_slice(&length.to_be_bytes());
            Ok(())
        }
        (written, ..) => {
            sending.truncate(at);
            written?;
            Err(FrameError::TooLong(length))
        }
    }
}

/// What has been read and not been taken yet.
#[derive(Debug, Default)]
pub(super) struct Frames {
    buffer: Vec<u8>,
    /// What is before it has been taken.
    taken: usize,
    /// What is behind it is free.
    filled: usize,
}

impl Frames {
    /// The next message, if all of it is there.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let waiting = self.buffer.get(self.taken..self.filled).unwrap_or_default();
        let Some((head, rest)) = waiting.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        let Some(message) = rest.get(..length) else {
            self.make_room(HEAD_BYTES + length);
            return Ok(None);
        };
        let message = serde_json::from_slice(message)?;
        self.taken += HEAD_BYTES + length;
        if self.taken == self.filled {
            (self.taken, self.filled) = (0, 0);
        }
        Ok(Some(message))
    }

    /// Where more can be read to: never nothing.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.filled == 0 && self.buffer.len() > READ_BYTES {
            self.buffer = Vec::new();
        }
        if self.filled == self.buffer.len() {
            self.make_room(self.filled - self.taken + READ_BYTES);
        }
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }

    /// So much was read to the space.
    pub(super) fn fill(&mut self, count: usize) {
        self.filled = (self.filled + count).min(self.buffer.len());
    }

    /// Makes room for this many bytes, counted from the first one that has not been taken.
    fn make_room(&mut self, bytes: usize) {
        self.buffer.copy_within(self.taken..self.filled, 0);
        (self.taken, self.filled) = (0, self.filled - self.taken);
        if self.buffer.len() < bytes {
            self.buffer.resize(bytes, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives these bytes in pieces of that size, and takes what comes out.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<String>, FrameError> {
        let (mut frames, mut messages) = (Frames::default(), Vec::new());
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = frames.space();
            let count = space.len().min(piece).min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            frames.fill(count);
            rest = &rest[count..];
            while let Some(message) = frames.next()? {
                messages.push(message);
            }
        }
        assert!(frames.space().len() <= READ_BYTES + MESSAGE_BYTES_MAX);
        Ok(messages)
    }

    #[test]
    fn messages_come_out_whole_in_whatever_pieces_they_come() {
        let long = "x".repeat(3 * READ_BYTES);
        let messages = ["", "short", long.as_str(), "again", long.as_str(), "last"];
        let mut bytes = Vec::new();
        for message in messages {
            encode(&message, &mut bytes).unwrap();
        }
        for piece in [1, 3, 5, 4096, bytes.len()] {
            assert_eq!(read(&bytes, piece).unwrap(), messages, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_too_long_is_neither_sent_nor_waited_for() {
        let mut sending = b"before".to_vec();
        let error = encode(&"x".repeat(MESSAGE_BYTES_MAX), &mut sending).unwrap_err();
        assert!(matches!(error, FrameError::TooLong(length) if length == MESSAGE_BYTES_MAX + 2));
        assert_eq!(sending, b"before");
        let error = read(&[0xff; 16], 16).unwrap_err().to_string();
        assert_eq!(error, "a message of 4294967295 bytes is longer than 1048576");
        assert!(read(b"\0\0\0\x03abc", 7).unwrap_err().to_string().contains("not a message"));
    }
}
