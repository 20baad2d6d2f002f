//! Places for connections: how many there are, and whose connection is closed when they run out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Limits;

/// A connection that is idle for less than this may have a request on its way, and makes room only as a last resort.
const GRACE: Duration = Duration::from_secs(1);
/// The state of a seat whose client is being served. Any lower value says since when the client is idle.
const BUSY: u64 = u64::MAX - 1;
/// The state of a seat that was given to another client.
const CLOSED: u64 = u64::MAX;

/// The places of one server.
#[derive(Debug)]
pub(super) struct Places {
    limits: Limits,
    /// The user of this process.
    own_user: u32,
    started: Instant,
    seats: Mutex<Seats>,
}

/// The seats that are taken, by the order of arrival.
#[derive(Debug, Default)]
struct Seats {
    next: u64,
    taken: BTreeMap<u64, Arc<Seat>>,
}

#[derive(Debug)]
struct Seat {
    user: Option<u32>,
    is_reserve: bool,
    state: AtomicU64,
    closed: CancellationToken,
}

impl Places {
    /// Places for as many connections as the limits say.
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        let own_user = rustix::process::geteuid().as_raw();
        Arc::new(Self { limits, own_user, started: Instant::now(), seats: Mutex::default() })
    }

    /// A place for a client of this user. None if all are taken by clients that are being served.
    pub(super) fn take(self: &Arc<Self>, user: Option<u32>) -> Option<Place> {
        self.take_at(self.now(), user)
    }

    fn take_at(self: &Arc<Self>, now: u64, user: Option<u32>) -> Option<Place> {
        let mut seats = self.seats();
        let is_trusted = user.is_some_and(|user| user == 0 || user == self.own_user);
        let of_user = |seat: &Seat| seat.user == user;
        let has_share = user.is_none() || is_trusted || seats.count(of_user) < self.limits.per_user;
        let is_meant = |seat: &Seat| !seat.is_reserve && (has_share || of_user(seat));
        let is_regular = (has_share
            && seats.count(|seat| !seat.is_reserve) < self.limits.connections)
            || seats.close_oldest(now.saturating_sub(micros(GRACE)), is_meant);
        let kept = if is_trusted { 0 } else { self.limits.reserve / 4 };
        let has_reserve = seats.count(|seat| seat.is_reserve) < self.limits.reserve - kept;
        let is_reserve =
            !is_regular && (has_reserve || seats.close_oldest(now, |seat| seat.is_reserve));
        if !is_regular && !is_reserve && !seats.close_oldest(now, is_meant) {
            return None;
        }
        let number = seats.next;
        seats.next += 1;
        let (state, closed) = (AtomicU64::new(now), CancellationToken::new());
        let seat = Arc::new(Seat { user, is_reserve, state, closed });
        seats.taken.insert(number, Arc::clone(&seat));
        drop(seats);
        Some(Place { number, seat, places: Arc::clone(self) })
    }

    fn now(&self) -> u64 {
        micros(self.started.elapsed())
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(BUSY - 1)
}

impl Seat {
    /// Since when the client is idle, if it is.
    fn idle_since(&self) -> Option<u64> {
        let state = self.state.load(Ordering::Relaxed);
        (state < BUSY).then_some(state)
    }
}

impl Seats {
    fn count(&self, is_meant: impl Fn(&Seat) -> bool) -> usize {
        self.taken.values().filter(|seat| is_meant(seat)).count()
    }

    /// Closes the connection that has been idle for longest, and at least since `until`, among those that are meant.
    /// False if there is none.
    fn close_oldest(&mut self, until: u64, is_meant: impl Fn(&Seat) -> bool) -> bool {
        loop {
            let meant = self.taken.iter().filter(|(_, seat)| is_meant(seat));
            let idle = meant.filter_map(|(number, seat)| Some((seat.idle_since()?, *number, seat)));
            let idle = idle.filter(|(since, ..)| *since <= until);
            let oldest = idle.min_by_key(|(since, number, _)| (*since, *number));
            let Some((since, number, seat)) = oldest else { return false };
            // It may just have become busy.
            let closed =
                seat.state.compare_exchange(since, CLOSED, Ordering::Relaxed, Ordering::Relaxed);
            if closed.is_ok() {
                seat.closed.cancel();
                self.taken.remove(&number);
                return true;
            }
        }
    }
}

/// The place of a connection, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    seat: Arc<Seat>,
    places: Arc<Places>,
}

impl Place {
    /// Whether the connection is only for one request.
    pub(super) fn is_reserve(&self) -> bool {
        self.seat.is_reserve
    }

    /// A request is complete and is being served: the connection is not closed in favour of another one.
    pub(super) fn set_busy(&self) {
        self.set(BUSY);
    }

    /// The connection waits for its client.
    pub(super) fn set_idle(&self) {
        self.set(self.places.now());
    }

    fn set(&self, state: u64) {
        let open = |before| (before != CLOSED).then_some(state);
        // A connection that was closed stays closed.
        self.seat
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, open)
            .unwrap_or_default();
    }

    /// Returns when the connection has to be closed in favour of another one.
    pub(super) async fn closed(&self) {
        self.seat.closed.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.seats().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRANGER: Option<u32> = Some(4_000_000);
    const OTHER: Option<u32> = Some(4_000_001);
    const ROOT: Option<u32> = Some(0);
    /// Long after everything that has happened before.
    const LATER: u64 = 1_000_000_000;

    fn places(connections: usize, reserve: usize, per_user: usize) -> Arc<Places> {
        let (head, write, drain) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        Places::new(Limits { connections, reserve, per_user, head, write, drain })
    }

    fn busy(places: &Arc<Places>, user: Option<u32>) -> Option<Place> {
        let place = places.take_at(LATER, user);
        if let Some(place) = &place {
            place.set_busy();
        }
        place
    }

    fn is_closed(place: &Place) -> bool {
        place.seat.closed.is_cancelled()
    }

    #[test]
    fn the_connection_that_was_idle_for_longest_is_closed_first() {
        let places = places(3, 0, 3);
        let held = [1, 2, 3].map(|now| places.take_at(now, ROOT).unwrap());
        held[0].set_busy();
        // The second was served meanwhile, so that the third has been idle for longer.
        held[1].set(4);
        let _next = busy(&places, ROOT).unwrap();
        assert_eq!(held.each_ref().map(is_closed), [false, false, true]);
        let _last = busy(&places, ROOT).unwrap();
        assert_eq!(held.each_ref().map(is_closed), [false, true, true]);
        assert!(busy(&places, ROOT).is_none(), "everyone is being served");
        drop(held);
        assert!(busy(&places, ROOT).is_some(), "a place is free again");
    }

    #[test]
    fn a_closed_connection_does_not_become_busy_again() {
        let places = places(1, 0, 1);
        let first = places.take_at(0, ROOT).unwrap();
        let _second = busy(&places, ROOT).unwrap();
        first.set_busy();
        assert!(is_closed(&first));
        assert_eq!(first.seat.idle_since(), None);
        assert!(busy(&places, ROOT).is_none());
    }

    #[test]
    fn a_connection_that_has_just_come_makes_room_only_when_the_reserve_is_taken() {
        let places = places(1, 1, 1);
        let first = places.take_at(LATER - 1, ROOT).unwrap();
        let second = busy(&places, ROOT).unwrap();
        assert!(second.is_reserve() && !is_closed(&first));
        let third = busy(&places, ROOT).unwrap();
        assert!(!third.is_reserve() && is_closed(&first));
        assert!(busy(&places, ROOT).is_none());
    }

    #[test]
    fn one_user_has_a_share_and_closes_only_its_own_connections_beyond_it() {
        let places = places(4, 0, 2);
        let others = places.take_at(0, OTHER).unwrap();
        let first = places.take_at(1, STRANGER).unwrap();
        let second = busy(&places, STRANGER).unwrap();
        let third = busy(&places, STRANGER).unwrap();
        assert!(is_closed(&first) && !is_closed(&others) && !is_closed(&second));
        assert!(busy(&places, STRANGER).is_none(), "its share is being served");
        assert!(busy(&places, ROOT).is_some());
        drop(third);
        assert!(busy(&places, STRANGER).is_some());
    }

    #[test]
    fn when_all_are_busy_a_reserve_is_left_and_a_part_of_it_for_root() {
        let places = places(2, 4, 2);
        let _busy = [busy(&places, STRANGER), busy(&places, OTHER)].map(Option::unwrap);
        let reserve: Vec<Place> = (0..3).map(|_| busy(&places, STRANGER).unwrap()).collect();
        assert!(reserve.iter().all(Place::is_reserve));
        assert!(busy(&places, OTHER).is_none());
        let root = busy(&places, ROOT).unwrap();
        assert!(root.is_reserve());
        assert!(busy(&places, ROOT).is_none());
        drop(root);
        let idle = places.take_at(0, ROOT).unwrap();
        assert!(busy(&places, STRANGER).is_some(), "an idle one makes room in the reserve, too");
        assert!(is_closed(&idle));
    }
}
