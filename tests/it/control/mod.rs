//! The control socket: what it takes and refuses, and what it answers.

mod batch;
mod bulk;
mod contract;
mod executors;
mod lists;
mod metrics;
mod modify;
mod output;
mod socket;
