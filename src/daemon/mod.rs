//! Composition: the only module that names concrete types. It builds the parts from the
//! configuration, connects them, and takes them down in order.

mod app;
mod check;
mod core;
mod declared;
mod demo;
mod exec;
mod files;
mod frame;
mod inherited;
mod launch;
mod logging;
mod migrate;
mod notify;
mod retention;
mod secrets;
mod serve;
mod signals;
mod standing;
mod start;
mod stop;
mod watchdog;
mod worker;

pub use check::check;
pub use exec::exec;
pub use launch::launch;
pub use migrate::migrate;
pub use serve::serve;
pub use worker::worker;
