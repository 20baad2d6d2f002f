//! Worker processes: that they work, and what is left when they crash, hang, lie and flood.
//!
//! A program of its own, because each test counts the children and the open files of its whole process, one test at a
//! time. It is also a worker itself: `torture` starts it again.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::exit,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unnecessary_wraps,
    reason = "a test that cannot go on panics, and what is tested here misbehaves"
)]

mod program;
mod torture;
