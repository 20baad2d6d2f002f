//! Composition: the only module that names concrete types. It builds the parts from the configuration, connects them,
//! and closes them in order.
//!
//! [`lifecycle`] is `punctual serve` and goes through the phases of a daemon's life: [`settings`], [`start`] (with
//! [`assembly`]), [`serve`](mod@serve) and [`stop`]. [`child`], [`check`](mod@check) and [`migrate`](mod@migrate) are the
//! other commands that need concrete types. No other module imports this one, except `main`.

mod application;
mod assembly;
mod check;
mod child;
mod config_loader;
mod context;
mod demo;
mod file_jobs;
mod lifecycle;
mod logging;
mod migrate;
mod process_state;
mod scheduler_thread;
mod secret_variables;
mod serve;
mod service_manager;
mod settings;
mod signals;
mod start;
mod startup_error;
mod status_line;
mod stop;
mod watchdog;

pub use check::check;
pub use child::{exec, launch, worker};
pub use lifecycle::serve;
pub use migrate::migrate;
