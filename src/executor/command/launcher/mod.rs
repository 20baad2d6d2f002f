//! Launchers: each is a small process in a cgroup of its own, which starts commands there, one after the other. A new process
//! is born in the cgroup of its parent at no cost, while moving it there later takes the kernel about 10 ms. A launcher
//! pays that once, usually before a command needs it.
//!
//! [`pool`] is the daemon's side, [`child`] runs in the launcher's process, and [`protocol`] is what both say to each other.

mod child;
mod pool;
mod protocol;

pub use child::launch;
pub(super) use pool::{Launcher, LauncherPool, LauncherProgram, ReapedCommand};
