//! The daemon as a real process: its start, its log, its jobs, and the other processes and databases around it.

mod declared;
mod execution;
mod jobs;
mod log;
mod nodes_changes;
mod nodes_start;
mod postgres;
mod processes;
mod retention;
mod secrets;
mod start;
mod systemd;
