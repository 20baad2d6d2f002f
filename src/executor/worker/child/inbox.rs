//! The messages that a worker has read and not handled yet. Without I/O: two threads take turns in reading the socket, and
//! what one of them has read may be for the other.

use std::io::{Error, Result};

use crate::executor::worker::protocol::frame::FrameReader;
use crate::executor::worker::protocol::message::{
    BuiltinCall, CallId, DaemonMessage, HelloMessage,
};

#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) frames: FrameReader,
}

impl Inbox {
    fn next(&mut self) -> Result<Option<DaemonMessage<'static>>> {
        self.frames.next().map_err(Error::other)
    }

    /// The first message of the daemon, if it has been read.
    pub(super) fn hello(&mut self) -> Result<Option<HelloMessage<'static>>> {
        match self.next()? {
            Some(DaemonMessage::Hello(hello)) => Ok(Some(hello)),
            Some(_) => Err(Error::other("the first message is not a hello")),
            None => Ok(None),
        }
    }

    /// The next call, if it has been read. A cancel before it is for an earlier call and came too late.
    pub(super) fn next_call(&mut self) -> Result<Option<BuiltinCall<'static>>> {
        loop {
            match self.next()? {
                Some(DaemonMessage::Call(call)) => return Ok(Some(call)),
                Some(DaemonMessage::Cancel(_)) => {}
                Some(DaemonMessage::Hello(_)) => return Err(Error::other("a second hello")),
                None => return Ok(None),
            }
        }
    }

    /// Handles all messages that have been read during a call; true if one of them cancels it.
    pub(super) fn has_cancel(&mut self, running: &CallId<'_>) -> Result<bool> {
        let mut is_cancelled = false;
        while let Some(message) = self.next()? {
            match message {
                DaemonMessage::Cancel(id) => is_cancelled |= id == *running,
                DaemonMessage::Call(_) | DaemonMessage::Hello(_) => {
                    return Err(Error::other("a worker has one call at a time"));
                }
            }
        }
        Ok(is_cancelled)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use serde_json::json;

    use super::*;
    use crate::executor::worker::protocol::frame::encode;

    /// What happens in a worker.
    enum InboxEvent {
        /// A read of the socket returns these messages.
        Read(Vec<serde_json::Value>),
        /// A read of the socket returns these bytes.
        Bytes(&'static [u8]),
        /// The main thread wants the next call.
        NextCall,
        /// The watchdog looks for a cancel of attempt 1 of the run.
        Watch(&'static str),
    }
    use InboxEvent::{Bytes, NextCall, Read, Watch};

    fn call(run_id: &str) -> serde_json::Value {
        json!({"call": {
            "run_id": run_id, "job_id": "job", "attempt": 1, "scheduled_at": null, "name": "noop",
            "args": {}, "event": null,
        }})
    }

    fn cancel(run_id: &str, attempt: u32) -> serde_json::Value {
        json!({"cancel": {"run_id": run_id, "attempt": attempt}})
    }

    fn hello() -> serde_json::Value {
        json!({"hello": {"version": 1, "daemon": 2, "beat_millis": 3, "settings": null}})
    }

    fn frame(message: &serde_json::Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(message, &mut bytes).unwrap();
        bytes
    }

    /// What the last event leads to.
    fn result_of(events: &[InboxEvent]) -> String {
        let mut inbox = Inbox::default();
        let mut result = String::new();
        for event in events {
            let read = match event {
                Read(messages) => messages.iter().flat_map(frame).collect(),
                Bytes(bytes) => bytes.to_vec(),
                NextCall | Watch(_) => Vec::new(),
            };
            for piece in read.chunks(7) {
                inbox.frames.space()[..piece.len()].copy_from_slice(piece);
                inbox.frames.fill(piece.len());
            }
            let outcome = match event {
                NextCall => inbox.next_call().map(|call| {
                    call.map_or("no call".to_owned(), |call| format!("calls {}", call.run_id))
                }),
                Watch(run_id) => {
                    let id = CallId { run_id: Cow::Borrowed(run_id), attempt: 1 };
                    inbox.has_cancel(&id).map(|is| if is { "cancelled" } else { "goes on" }.into())
                }
                Read(_) | Bytes(_) => Ok(String::new()),
            };
            result = outcome.unwrap_or_else(|error| format!("error: {error}"));
        }
        result
    }

    #[test]
    fn a_cancel_reaches_its_own_call_only() {
        let cases: [(Vec<InboxEvent>, &str); 14] = [
            (vec![NextCall], "no call"),
            (vec![Read(vec![call("a")]), NextCall], "calls a"),
            (vec![Read(vec![call("a")]), NextCall, NextCall], "no call"),
            // The cancel is read together with its call, by the main thread, or later, by the watchdog.
            (vec![Read(vec![call("a"), cancel("a", 1)]), NextCall, Watch("a")], "cancelled"),
            (
                vec![Read(vec![call("a")]), NextCall, Read(vec![cancel("a", 1)]), Watch("a")],
                "cancelled",
            ),
            (vec![Read(vec![call("a")]), NextCall, Watch("a")], "goes on"),
            // The cancel comes after the end of its call: before the next call, and during it.
            (vec![Read(vec![cancel("a", 1), call("b")]), NextCall], "calls b"),
            (vec![Read(vec![cancel("a", 1), call("b")]), NextCall, Watch("b")], "goes on"),
            (vec![Read(vec![call("b"), cancel("a", 1)]), NextCall, Watch("b")], "goes on"),
            // Another attempt of the same run.
            (vec![Read(vec![call("a"), cancel("a", 2)]), NextCall, Watch("a")], "goes on"),
            (
                vec![Read(vec![call("a"), cancel("b", 1), cancel("a", 1)]), NextCall, Watch("a")],
                "cancelled",
            ),
            // Messages at the wrong time, and none at all.
            (
                vec![Read(vec![call("a"), call("b")]), NextCall, Watch("a")],
                "error: a worker has one call at a time",
            ),
            (vec![Read(vec![hello()]), NextCall], "error: a second hello"),
            (vec![Bytes(b"\0\0\0\x07garbage"), NextCall], "error: not a message of this protocol"),
        ];
        for (number, (events, expected)) in cases.iter().enumerate() {
            let result = result_of(events);
            assert!(result.starts_with(expected), "case {number}: {result} and not {expected}");
        }
    }

    #[test]
    fn the_first_message_has_to_be_a_hello() {
        let mut inbox = Inbox::default();
        assert!(inbox.hello().unwrap().is_none());
        let mut bytes = Vec::new();
        encode(&hello(), &mut bytes).unwrap();
        encode(&call("a"), &mut bytes).unwrap();
        inbox.frames.space()[..bytes.len()].copy_from_slice(&bytes);
        inbox.frames.fill(bytes.len());
        assert_eq!(inbox.hello().unwrap().unwrap().daemon, 2);
        assert_eq!(inbox.hello().unwrap_err().to_string(), "the first message is not a hello");
    }
}
