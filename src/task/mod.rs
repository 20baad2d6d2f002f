//! The seam between a run and the code that does its work: the registry of builtins, and what such code shares with the
//! executor, which is the cancel and the output of the run.

pub mod builtin;
pub mod context;
pub mod log;
mod mask;
mod panics;
pub mod standard;
