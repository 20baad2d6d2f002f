//! The example application, embedded and with a real Redis.

mod api;
mod embedded;
mod redis;
mod site;
mod statistics;
