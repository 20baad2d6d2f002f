//! The store at a start: a server may come up later than its daemons, so it is waited for. What no
//! waiting would mend, such as a wrong password or a newer schema, ends the start.

use std::time::Duration;

use super::notify;
use super::signals::{Asked, Signals};
use crate::store::StoreError;
use crate::store::sql::{SqlStore, StorePlace};

/// Time between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// Opens the store, as soon as it is there. None if the daemon was asked to stop before.
pub(super) async fn open(
    place: &StorePlace,
    signals: &mut Signals,
) -> Result<Option<SqlStore>, StoreError> {
    let mut is_waiting = false;
    loop {
        match SqlStore::open(place).await {
            Ok(store) => return Ok(Some(store)),
            Err(StoreError::Unavailable(error)) => {
                if !is_waiting {
                    tracing::warn!(%error, "the store is not there yet; waiting for it");
                    notify::waiting(&format!("waiting for the store: {error}"));
                    is_waiting = true;
                }
            }
            Err(
                error @ (StoreError::Conflict(_)
                | StoreError::Rejected(_)
                | StoreError::Unusable(_)),
            ) => return Err(error),
        }
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => return Ok(None),
                // It is read for the first time when the store is there.
                Asked::Reload => {}
            },
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}
