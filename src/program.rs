//! How this program starts itself: the arguments by which a daemon's helper processes know what they are.

/// The name of the program.
pub const NAME: &str = "punctual";
/// Makes it a worker, which runs builtins.
pub const WORKER: &str = "worker";
/// Makes it a shim, which sets users and limits on itself and becomes a command.
pub const SHIM: &str = "exec";
/// Makes it a launcher, which starts commands in a cgroup.
pub const LAUNCHER: &str = "launch";
