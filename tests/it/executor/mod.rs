//! The executor without a scheduler: each kind of task, and heartbeats.

mod command;
mod heartbeat;
mod http;
mod mail;
mod pools;
