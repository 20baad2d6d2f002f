//! What a job does: the seam between a run and the code that does its work.

pub mod builtin;
pub mod cancellation;
pub mod context;
pub mod log;
mod mask;
mod panics;
pub mod standard;
