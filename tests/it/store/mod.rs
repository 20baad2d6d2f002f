//! The stores: one conformance suite for all, and what only some of them can do.

mod conformance;
mod migrations;
mod shared;
mod sqlite;
