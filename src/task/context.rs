//! What the code that carries out a run shares with the code that watches it: whether it is to end, and what it writes.

use super::cancellation::Cancellation;
use super::log::Log;

/// One attempt of a run, while it is carried out.
#[derive(Debug, Default)]
pub struct Context {
    /// Whether it is to end.
    pub cancellation: Cancellation,
    /// What it writes.
    pub log: Log,
}
