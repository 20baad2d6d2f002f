//! Daemons under load that are killed, stopped, or lose their database: what they have acknowledged is kept, and nothing
//! happens twice.
//!
//! A program of its own, because each test drives several daemons for as long as the rest of a module takes, and the
//! moments at which it kills them are in milliseconds: beside other tests they would seldom hit what they aim at.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on panics"
)]

mod demo;
mod kills;
mod nodes;
mod outage;
