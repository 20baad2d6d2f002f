//! The protocol between a daemon and a worker process: JSON [`message`]s in length-prefixed [`frame`]s. Both sides use it.

pub(super) mod frame;
pub(super) mod message;
