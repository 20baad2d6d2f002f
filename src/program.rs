//! The subcommands with which the daemon starts this program again, as one of its helper processes.

pub const NAME: &str = "punctual";
/// A worker process, which runs builtins.
pub const WORKER: &str = "worker";
/// The shim, which sets user and limits on itself and then becomes the command.
pub const SHIM: &str = "exec";
/// A launcher, which starts commands in its cgroup.
pub const LAUNCHER: &str = "launch";
