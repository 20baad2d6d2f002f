//! The shim: this program, started as `punctual exec` in place of a command that wants what `posix_spawn` cannot set (a
//! user, a umask, limits, a working directory). It sets that on itself and then becomes the command.
//!
//! [`handshake`] is what the daemon and the shim say to each other; [`child`] runs in the shim's process. The daemon's
//! side is in `start.rs`, which writes the request, and in `outcome.rs`, which reads the result.

mod child;
mod handshake;

pub use child::exec;
pub(super) use handshake::{SharedBlock, ShimRequest, ShimResult};
