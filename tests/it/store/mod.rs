//! The stores: one conformance suite for all, and what only some of them can do.

mod conformance;
mod migrations;
mod shared;
mod sqlite;

use punctual::store::StoreError;
use punctual::store::sql::StoreUrl;
use support::servers::{Kind, Server};

/// The pools of the node that claims.
fn pools() -> Vec<String> {
    vec!["default".to_owned()]
}

fn is_conflict(result: &Result<(), StoreError>) -> bool {
    matches!(result, Err(StoreError::Conflict(_)))
}

/// A new database of this test's own, on the server that all tests share.
fn database<K: Kind>(server: Option<&Server<K>>, test: &str) -> Option<StoreUrl> {
    // The name of a database is shorter than that of some tests.
    let name: String = test.chars().take(60).collect();
    Some(StoreUrl::parse(&server?.database(&name)).unwrap())
}
