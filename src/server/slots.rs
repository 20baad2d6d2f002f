//! Slots for connections: how many there are, and whose connection is closed when they run out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::limits::Limits;

/// A connection that has been idle for less than this may have a request on its way, and is closed only as a last resort.
const GRACE: Duration = Duration::from_secs(1);
/// State of a slot whose client is being served. Any lower value is the time since when the client has been idle, in
/// microseconds after the start of the server.
const BUSY: u64 = u64::MAX - 1;
/// State of a slot that was taken away from its client.
const CLOSED: u64 = u64::MAX;

/// The connection slots of one server.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    limits: Limits,
    /// The user of this process.
    own_user: u32,
    started: Instant,
    table: Mutex<SlotTable>,
}

/// The slots in use, in the order of arrival.
#[derive(Debug, Default)]
struct SlotTable {
    next_number: u64,
    slots: BTreeMap<u64, Arc<Slot>>,
}

#[derive(Debug)]
struct Slot {
    user: Option<u32>,
    is_reserve: bool,
    /// `BUSY`, `CLOSED`, or the time since when the client has been idle.
    state: AtomicU64,
    closed: CancellationToken,
}

impl ConnectionSlots {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        let own_user = rustix::process::geteuid().as_raw();
        Arc::new(Self { limits, own_user, started: Instant::now(), table: Mutex::default() })
    }

    /// Takes a slot for a client of this user. Returns `None` if clients that are being served have all slots.
    pub(super) fn take(self: &Arc<Self>, user: Option<u32>) -> Option<ConnectionSlot> {
        self.take_at(self.now(), user)
    }

    fn take_at(self: &Arc<Self>, now: u64, user: Option<u32>) -> Option<ConnectionSlot> {
        let mut table = self.lock();
        let is_trusted = user.is_some_and(|user| user == 0 || user == self.own_user);
        let of_user = |slot: &Slot| slot.user == user;
        let has_share = user.is_none() || is_trusted || table.count(of_user) < self.limits.per_user;
        let may_close = |slot: &Slot| !slot.is_reserve && (has_share || of_user(slot));
        let is_regular = (has_share
            && table.count(|slot| !slot.is_reserve) < self.limits.connections)
            || table.close_oldest(now.saturating_sub(micros(GRACE)), may_close);
        let kept = if is_trusted { 0 } else { self.limits.reserve / 4 };
        let has_reserve = table.count(|slot| slot.is_reserve) < self.limits.reserve - kept;
        let is_reserve =
            !is_regular && (has_reserve || table.close_oldest(now, |slot| slot.is_reserve));
        if !is_regular && !is_reserve && !table.close_oldest(now, may_close) {
            return None;
        }
        let number = table.next_number;
        table.next_number += 1;
        let (state, closed) = (AtomicU64::new(now), CancellationToken::new());
        let slot = Arc::new(Slot { user, is_reserve, state, closed });
        table.slots.insert(number, Arc::clone(&slot));
        drop(table);
        Some(ConnectionSlot { number, slot, slots: Arc::clone(self) })
    }

    fn now(&self) -> u64 {
        micros(self.started.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, SlotTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(BUSY - 1)
}

impl Slot {
    /// Since when the client has been idle; `None` if it is being served or its connection was closed.
    fn idle_since(&self) -> Option<u64> {
        let state = self.state.load(Ordering::Relaxed);
        (state < BUSY).then_some(state)
    }
}

impl SlotTable {
    fn count(&self, counts: impl Fn(&Slot) -> bool) -> usize {
        self.slots.values().filter(|slot| counts(slot)).count()
    }

    /// Closes the connection that has been idle for longest, and at least since `until`, among those that `may_close`
    /// selects. Returns false if there is none.
    fn close_oldest(&mut self, until: u64, may_close: impl Fn(&Slot) -> bool) -> bool {
        loop {
            let closable = self.slots.iter().filter(|(_, slot)| may_close(slot));
            let idle =
                closable.filter_map(|(number, slot)| Some((slot.idle_since()?, *number, slot)));
            let idle = idle.filter(|(since, ..)| *since <= until);
            let oldest = idle.min_by_key(|(since, number, _)| (*since, *number));
            let Some((since, number, slot)) = oldest else { return false };
            // The client may have sent a request in the meantime.
            let closed =
                slot.state.compare_exchange(since, CLOSED, Ordering::Relaxed, Ordering::Relaxed);
            if closed.is_ok() {
                slot.closed.cancel();
                self.slots.remove(&number);
                return true;
            }
        }
    }
}

/// The slot of a connection. Dropping it frees the slot.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    number: u64,
    slot: Arc<Slot>,
    slots: Arc<ConnectionSlots>,
}

impl ConnectionSlot {
    /// True if the connection may serve only one request, because it has a slot of the reserve.
    pub(super) fn is_reserve(&self) -> bool {
        self.slot.is_reserve
    }

    /// Marks the connection as serving a complete request, so that it is not closed in favour of another one.
    pub(super) fn set_busy(&self) {
        self.set(BUSY);
    }

    /// Marks the connection as waiting for its client.
    pub(super) fn set_idle(&self) {
        self.set(self.slots.now());
    }

    fn set(&self, state: u64) {
        // A connection that was closed stays closed.
        let change = |before| (before != CLOSED).then_some(state);
        self.slot
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, change)
            .unwrap_or_default();
    }

    /// Resolves when the connection has to be closed in favour of another one.
    pub(super) async fn closed(&self) {
        self.slot.closed.cancelled().await;
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.slots.lock().slots.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRANGER: Option<u32> = Some(4_000_000);
    const OTHER: Option<u32> = Some(4_000_001);
    const ROOT: Option<u32> = Some(0);
    /// Long after all earlier calls.
    const LATER: u64 = 1_000_000_000;

    fn slots(connections: usize, reserve: usize, per_user: usize) -> Arc<ConnectionSlots> {
        let (head, write, drain) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        ConnectionSlots::new(Limits { connections, reserve, per_user, head, write, drain })
    }

    fn busy(slots: &Arc<ConnectionSlots>, user: Option<u32>) -> Option<ConnectionSlot> {
        let slot = slots.take_at(LATER, user);
        if let Some(slot) = &slot {
            slot.set_busy();
        }
        slot
    }

    fn is_closed(slot: &ConnectionSlot) -> bool {
        slot.slot.closed.is_cancelled()
    }

    #[test]
    fn the_longest_idle_connection_is_closed_first() {
        let slots = slots(3, 0, 3);
        let held = [1, 2, 3].map(|now| slots.take_at(now, ROOT).unwrap());
        held[0].set_busy();
        // The second one was served in the meantime, so the third one has been idle for longer.
        held[1].set(4);
        let _next = busy(&slots, ROOT).unwrap();
        assert_eq!(held.each_ref().map(is_closed), [false, false, true]);
        let _last = busy(&slots, ROOT).unwrap();
        assert_eq!(held.each_ref().map(is_closed), [false, true, true]);
        assert!(busy(&slots, ROOT).is_none(), "all clients are being served");
        drop(held);
        assert!(busy(&slots, ROOT).is_some(), "a slot is free again");
    }

    #[test]
    fn a_closed_connection_does_not_become_busy_again() {
        let slots = slots(1, 0, 1);
        let first = slots.take_at(0, ROOT).unwrap();
        let _second = busy(&slots, ROOT).unwrap();
        first.set_busy();
        assert!(is_closed(&first));
        assert_eq!(first.slot.idle_since(), None);
        assert!(busy(&slots, ROOT).is_none());
    }

    #[test]
    fn a_new_connection_is_closed_only_when_the_reserve_is_taken() {
        let slots = slots(1, 1, 1);
        let first = slots.take_at(LATER - 1, ROOT).unwrap();
        let second = busy(&slots, ROOT).unwrap();
        assert!(second.is_reserve() && !is_closed(&first));
        let third = busy(&slots, ROOT).unwrap();
        assert!(!third.is_reserve() && is_closed(&first));
        assert!(busy(&slots, ROOT).is_none());
    }

    #[test]
    fn a_user_beyond_its_share_closes_only_its_own_connections() {
        let slots = slots(4, 0, 2);
        let others = slots.take_at(0, OTHER).unwrap();
        let first = slots.take_at(1, STRANGER).unwrap();
        let second = busy(&slots, STRANGER).unwrap();
        let third = busy(&slots, STRANGER).unwrap();
        assert!(is_closed(&first) && !is_closed(&others) && !is_closed(&second));
        assert!(busy(&slots, STRANGER).is_none(), "its share is being served");
        assert!(busy(&slots, ROOT).is_some());
        drop(third);
        assert!(busy(&slots, STRANGER).is_some());
    }

    #[test]
    fn when_all_are_busy_there_is_a_reserve_and_root_has_a_part_of_it() {
        let slots = slots(2, 4, 2);
        let _busy = [busy(&slots, STRANGER), busy(&slots, OTHER)].map(Option::unwrap);
        let reserve: Vec<ConnectionSlot> =
            (0..3).map(|_| busy(&slots, STRANGER).unwrap()).collect();
        assert!(reserve.iter().all(ConnectionSlot::is_reserve));
        assert!(busy(&slots, OTHER).is_none());
        let root = busy(&slots, ROOT).unwrap();
        assert!(root.is_reserve());
        assert!(busy(&slots, ROOT).is_none());
        drop(root);
        let idle = slots.take_at(0, ROOT).unwrap();
        assert!(
            busy(&slots, STRANGER).is_some(),
            "an idle connection of the reserve is closed, too"
        );
        assert!(is_closed(&idle));
    }
}
