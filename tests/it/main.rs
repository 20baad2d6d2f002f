//! Integration tests. The modules mirror `src`; what they share is the crate in `tests/support`.
//!
//! They are one program, because linking is most of the cost of a small test program. A test that needs a process of its
//! own is in another program, whose head says why.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::print_stdout,
    reason = "a test that cannot go on panics, one that is left out says so, and helpers are short to call"
)]

mod cli;
mod config;
mod control;
mod daemon;
mod executor;
mod explain;
mod scheduler;
mod servers;
mod store;
mod toutiao;
mod trigger;
