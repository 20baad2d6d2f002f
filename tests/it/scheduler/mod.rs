//! The scheduler by itself, in a world whose store, executor and clock belong to the test.

mod bulk;
mod clock;
mod declared;
mod modify;
mod nodes;
mod pause;
mod retries;
mod tick;
