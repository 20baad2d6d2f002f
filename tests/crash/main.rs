//! Daemons under load that are killed, suspended, or lose their database. They keep what they have acknowledged, and do
//! nothing twice.
//!
//! A program of its own, because each test drives several daemons at full load and kills them at moments that are a few
//! milliseconds apart. With other tests on the same processors, the kills would seldom hit what they aim at.
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
