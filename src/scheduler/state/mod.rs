//! What this process keeps in memory between steps. All of it can be rebuilt from the store.

pub(crate) mod bisection;
pub(crate) mod capacity;
pub(crate) mod due_cache;
