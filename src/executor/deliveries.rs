//! Counts what became of heartbeats and mails since the start of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts heartbeats and mails. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Deliveries(Arc<DeliveryCounters>);

#[derive(Debug, Default)]
struct DeliveryCounters {
    heartbeats_delivered: AtomicU64,
    heartbeats_failed: AtomicU64,
    heartbeats_dropped: AtomicU64,
    mails_sent: AtomicU64,
    mails_failed: AtomicU64,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeliveryCounts {
    pub heartbeats_delivered: u64,
    /// Heartbeats that could not be delivered.
    pub heartbeats_failed: u64,
    /// Heartbeats that were never sent, because too many waited.
    pub heartbeats_dropped: u64,
    /// Mails that the server has taken.
    pub mails_sent: u64,
    /// Attempts to send a mail that failed.
    pub mails_failed: u64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Deliveries {
    pub(super) fn heartbeat(&self, is_delivered: bool) {
        let DeliveryCounters { heartbeats_delivered, heartbeats_failed, .. } = &*self.0;
        count(if is_delivered { heartbeats_delivered } else { heartbeats_failed });
    }

    pub(super) fn heartbeat_dropped(&self) {
        count(&self.0.heartbeats_dropped);
    }

    pub(super) fn mail(&self, is_sent: bool) {
        let DeliveryCounters { mails_sent, mails_failed, .. } = &*self.0;
        count(if is_sent { mails_sent } else { mails_failed });
    }

    pub fn read(&self) -> DeliveryCounts {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DeliveryCounts {
            heartbeats_delivered: value(&self.0.heartbeats_delivered),
            heartbeats_failed: value(&self.0.heartbeats_failed),
            heartbeats_dropped: value(&self.0.heartbeats_dropped),
            mails_sent: value(&self.0.mails_sent),
            mails_failed: value(&self.0.mails_failed),
        }
    }
}
