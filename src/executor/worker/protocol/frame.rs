//! Frames: the length of a message as four bytes, big-endian, and then the message as JSON.
//!
//! `tokio_util`'s length-delimited codec is not used: the worker's side has no runtime, and the codec allocates and copies
//! for each message, where [`FrameReader`] decodes out of one buffer that is kept.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of one message. A job's arguments, a result and a batch of lines are bounded far below it, even with every byte
/// escaped.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a length.
const HEAD_BYTES: usize = 4;
/// Bytes of one read, and of the buffer that is kept after a longer message.
const READ_BYTES: usize = 8 * 1024;

/// Why bytes are not a message, or a message cannot be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a message of {0} bytes is longer than {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    #[error("not a message of this protocol: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// Appends a message to `sending`. In case of an error `sending` is unchanged.
pub(crate) fn encode(message: &impl Serialize, sending: &mut Vec<u8>) -> Result<(), FrameError> {
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

/// Splits the bytes that were read into messages.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    buffer: Vec<u8>,
    /// Start of the bytes that have not been decoded.
    taken: usize,
    /// End of the bytes that have been read.
    filled: usize,
}

impl FrameReader {
    /// Decodes the next message; `None` if it has not been read to its end.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let unread = self.buffer.get(self.taken..self.filled).unwrap_or_default();
        let Some((head, rest)) = unread.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        let Some(message) = rest.get(..length) else {
            self.reserve(HEAD_BYTES + length);
            return Ok(None);
        };
        let message = serde_json::from_slice(message)?;
        self.taken += HEAD_BYTES + length;
        if self.taken == self.filled {
            (self.taken, self.filled) = (0, 0);
        }
        Ok(Some(message))
    }

    /// Where to read more bytes to; never empty.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.filled == 0 && self.buffer.len() > READ_BYTES {
            self.buffer = Vec::new();
        }
        if self.filled == self.buffer.len() {
            self.reserve(self.filled - self.taken + READ_BYTES);
        }
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }

    /// Takes note that `count` bytes were read to the space.
    pub(crate) fn fill(&mut self, count: usize) {
        self.filled = (self.filled + count).min(self.buffer.len());
    }

    /// Makes the buffer long enough for `bytes` bytes from the first undecoded one.
    fn reserve(&mut self, bytes: usize) {
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

    /// Reads the bytes in pieces of `piece` bytes, and decodes all messages.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<String>, FrameError> {
        let (mut frames, mut messages) = (FrameReader::default(), Vec::new());
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
    fn messages_are_decoded_from_pieces_of_any_size() {
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
    fn a_message_that_is_too_long_is_neither_sent_nor_read() {
        let mut sending = b"before".to_vec();
        let error = encode(&"x".repeat(MESSAGE_BYTES_MAX), &mut sending).unwrap_err();
        assert!(matches!(error, FrameError::TooLong(length) if length == MESSAGE_BYTES_MAX + 2));
        assert_eq!(sending, b"before");
        let error = read(&[0xff; 16], 16).unwrap_err().to_string();
        assert_eq!(error, "a message of 4294967295 bytes is longer than 1048576");
        assert!(read(b"\0\0\0\x03abc", 7).unwrap_err().to_string().contains("not a message"));
    }
}
