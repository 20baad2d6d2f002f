//! Punctual: a standalone job scheduler daemon, as a library and one thin binary.
//!
//! `docs/ARCHITECTURE.md` has the layers of these modules, which `tests/architecture` enforces, and follows a job from
//! the command line to its recorded run.

pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod duration;
pub mod executor;
pub mod explain;
pub mod file;
pub mod filter;
pub mod history;
pub mod instant;
pub mod invalid;
pub mod job;
pub mod json;
pub mod output;
pub mod preview;
pub mod printable;
pub mod program;
pub mod retention;
pub mod run;
pub mod scheduler;
pub mod secret;
pub mod server;
pub mod splitmix;
pub mod store;
pub mod task;
pub mod toutiao;
pub mod trigger;
pub mod user;
mod words;
pub mod zone;
