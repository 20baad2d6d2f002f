//! Worker processes: this program, started again to run builtins in isolation. A builtin that crashes, leaks or blocks
//! there harms its worker only.
//!
//! A run goes through these files: the [`pool`] queues it and hands it to an idle worker ([`pool_state`]); the worker's
//! [`supervisor`] sends it as a call through its [`handle`] and [`connection`]; in the worker process, [`child`] runs the
//! builtin and answers. A worker's stdin is a socket to its daemon, on which both sides send [`protocol`] messages: a
//! hello and its answer, then one call at a time, keep-alives during a long call, and the end of the call. What a builtin
//! prints goes to the worker's stdout and stderr, which the daemon reads as pipes.
//!
//! What must hold: a worker has one call at a time; a run whose worker has certainly not read its call is tried once with
//! another worker, and any other run fails with its worker; and no worker outlives its daemon, however the daemon ends:
//! the socket ends, and the kernel kills the worker with the thread that started it ([`spawn`]), even if it is stopped.

mod call;
mod child;
mod connection;
mod error;
mod handle;
mod pool;
mod pool_state;
mod program;
mod protocol;
mod socket;
mod spawn;
mod supervisor;

pub use child::serve;
pub(super) use pool::ProcessPool;
pub use program::{WorkerProgram, WorkerTimes};
