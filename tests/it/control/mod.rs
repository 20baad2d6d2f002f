//! The control socket: what it takes and refuses, and what it answers.

mod batch;
mod contract;
mod metrics;
mod modify;
mod output;
mod socket;
