//! Punctual: a standalone job scheduler daemon, as a library and one thin binary.
//!
//! # Layout
//!
//! ```text
//! 5 composition   main, daemon, config        daemon is the only module that names concrete types
//! 4 doors         cli, client, control, server  toutiao: an application that uses the client
//! 3 core          scheduler, history, explain
//! 2 seams         store, executor, task
//! 1 words         job, run, output, trigger, zone, instant, duration, clock, filter, preview, file, invalid, json,
//!                 printable, program, secret, user
//! ```
//!
//! Arrows point down only; `tests/architecture.rs` holds them. A due job flows
//! `scheduler::tick` → `store.commit` (one transaction: advance the job, write the ledger row) →
//! `executor` → completion → `scheduler` → `store.commit` → `history`. `docs/ARCHITECTURE.md`
//! walks through it.

pub mod clock;
pub mod duration;
pub mod instant;
pub mod invalid;

pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod daemon;
pub mod executor;
pub mod explain;
pub mod file;
pub mod filter;
pub mod history;
pub mod job;
pub mod json;
pub mod output;
pub mod preview;
pub mod printable;
pub mod program;
pub mod run;
pub mod scheduler;
pub mod secret;
pub mod server;
pub mod store;
pub mod task;
pub mod toutiao;
pub mod trigger;
pub mod user;
pub mod zone;
