//! The near part of the schedule, in memory: for each pool the jobs that are due next, in order.
//! The rest stays in the store until it is near, so that memory does not grow with the
//! jobs, and an instant that is reached needs no question to the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::job::{Job, JobId};
use crate::store::CLAIM_BYTES;

/// Jobs of a pool that are fetched at once. Twice as many are held at most.
pub(crate) const CACHED_JOBS: usize = 1000;

/// How far the held jobs are all that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Coverage {
    /// Nothing is known.
    #[default]
    Nothing,
    /// Every job that is due before this instant is held.
    Until(Timestamp),
    /// Every job is held.
    All,
}

/// When the scheduler has to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextDue {
    /// At once: the store has to be asked.
    Unknown,
    /// At this instant; never, if nothing is due.
    At(Option<Timestamp>),
}

/// What the store was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FetchWindow {
    /// Jobs that are due at or before this; all, if there is none.
    pub(crate) until: Option<Timestamp>,
    /// At most this many.
    pub(crate) limit: usize,
}

/// The jobs of one pool.
#[derive(Debug, Default)]
struct PoolCache {
    jobs: BTreeMap<(Timestamp, JobId), Arc<Job>>,
    /// Bytes of their definitions.
    bytes: usize,
    due: BTreeMap<JobId, Timestamp>,
    reach: Coverage,
}

/// The jobs that are due next.
#[derive(Debug, Default)]
pub(crate) struct DueCache {
    pools: BTreeMap<String, PoolCache>,
}

impl DueCache {
    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.pools.clear();
    }

    /// Whether the store has to be asked before it is known what of a pool is due.
    pub(crate) fn needs_fetch(&self, pool: &str, now: Timestamp) -> bool {
        self.pools.get(pool).is_none_or(|near| near.needs_fetch(now))
    }

    /// Takes up what the store has of a pool: its earliest jobs. Gives back those that cannot be read.
    pub(crate) fn fill(&mut self, pool: &str, asked: FetchWindow, jobs: Vec<Job>) -> Vec<Job> {
        let (near, unreadable) = PoolCache::of(asked, jobs);
        self.pools.insert(pool.to_owned(), near);
        unreadable
    }

    /// The held jobs of a pool that are due at `now`, earliest first.
    pub(crate) fn due_at(&self, pool: &str, now: Timestamp) -> impl Iterator<Item = &Arc<Job>> {
        self.pools.get(pool).into_iter().flat_map(move |near| near.due_at(now))
    }

    /// When to look again, if these pools have room.
    pub(crate) fn next(&self, pools: &[String]) -> NextDue {
        let mut first = None;
        for pool in pools {
            match self.pools.get(pool).map_or(NextDue::Unknown, PoolCache::next) {
                NextDue::Unknown => return NextDue::Unknown,
                NextDue::At(None) => {}
                NextDue::At(Some(at)) => {
                    first = Some(first.map_or(at, |first: Timestamp| first.min(at)));
                }
            }
        }
        NextDue::At(first)
    }

    /// When the first of the held jobs is due.
    pub(crate) fn first_due(&self) -> Option<Timestamp> {
        let firsts = self.pools.values().filter_map(|near| near.jobs.keys().next());
        firsts.map(|(due_at, _)| *due_at).min()
    }

    /// Whether a job that is due then belongs to what is held.
    pub(crate) fn reaches(&self, pool: &str, due_at: Timestamp) -> bool {
        self.pools.get(pool).is_some_and(|near| near.reaches(due_at))
    }

    /// A job is now this.
    pub(crate) fn put(&mut self, job: Arc<Job>) {
        self.remove(&job.id);
        if let Some(near) = self.pools.get_mut(&job.executor) {
            near.put(job);
        }
    }

    /// Jobs were read again: those that are held are this from now on.
    pub(crate) fn renew<'a>(&mut self, jobs: impl Iterator<Item = &'a Arc<Job>>) {
        for job in jobs {
            if self.pools.values().any(|near| near.due.contains_key(&job.id)) {
                self.put(Arc::clone(job));
            }
        }
    }

    /// A job is gone.
    pub(crate) fn remove(&mut self, id: &JobId) {
        for near in self.pools.values_mut() {
            near.remove(id);
        }
    }
}

impl PoolCache {
    fn of(asked: FetchWindow, jobs: Vec<Job>) -> (Self, Vec<Job>) {
        let bytes: usize = jobs.iter().map(|job| job.bytes).sum();
        let is_all = jobs.len() < asked.limit && bytes < CLAIM_BYTES;
        let (active, unreadable): (Vec<Job>, Vec<Job>) =
            jobs.into_iter().partition(|job| job.next().is_some());
        let last = active.iter().filter_map(|job| Some(job.next()?.due_at)).max();
        let reach = match last {
            _ if is_all => asked.until.map_or(Coverage::All, Coverage::Until),
            Some(last) => Coverage::Until(last),
            None => Coverage::Nothing,
        };
        let mut near = Self { reach, ..Self::default() };
        for job in active {
            near.insert(Arc::new(job));
        }
        (near, unreadable)
    }

    fn needs_fetch(&self, now: Timestamp) -> bool {
        match self.reach {
            Coverage::Nothing => true,
            // What is held comes first; it is due earlier.
            Coverage::Until(until) => until <= now && self.due_at(now).next().is_none(),
            Coverage::All => false,
        }
    }

    fn due_at(&self, now: Timestamp) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs.iter().take_while(move |((due_at, _), _)| *due_at <= now).map(|(_, job)| job)
    }

    fn next(&self) -> NextDue {
        let first = self.jobs.keys().next().map(|(due_at, _)| *due_at);
        match self.reach {
            Coverage::Nothing => NextDue::Unknown,
            Coverage::Until(until) => {
                NextDue::At(Some(first.map_or(until, |first| first.min(until))))
            }
            Coverage::All => NextDue::At(first),
        }
    }

    fn reaches(&self, due_at: Timestamp) -> bool {
        match self.reach {
            Coverage::Nothing => false,
            Coverage::Until(until) => due_at < until,
            Coverage::All => true,
        }
    }

    fn put(&mut self, job: Arc<Job>) {
        if job.next().is_some_and(|next| self.reaches(next.due_at)) {
            self.insert(job);
        }
        if self.jobs.len() > 2 * CACHED_JOBS || self.bytes > 2 * CLAIM_BYTES {
            self.shrink();
        }
    }

    fn remove(&mut self, id: &JobId) {
        let due_at = self.due.remove(id);
        if let Some(job) = due_at.and_then(|due_at| self.jobs.remove(&(due_at, id.clone()))) {
            self.bytes = self.bytes.saturating_sub(job.bytes);
        }
    }

    fn insert(&mut self, job: Arc<Job>) {
        let Some(next) = job.next() else { return };
        self.due.insert(job.id.clone(), next.due_at);
        self.bytes = self.bytes.saturating_add(job.bytes);
        self.jobs.insert((next.due_at, job.id.clone()), job);
    }

    /// Lets go of the far half.
    fn shrink(&mut self) {
        let mut bytes = 0_usize;
        let near = self.jobs.values().take_while(|job| {
            bytes = bytes.saturating_add(job.bytes);
            bytes <= CLAIM_BYTES
        });
        let count = near.take(CACHED_JOBS).count();
        let Some(key) = self.jobs.keys().nth(count).cloned() else { return };
        for (_, id) in self.jobs.split_off(&key).into_keys() {
            self.due.remove(&id);
        }
        self.bytes = self.jobs.values().map(|job| job.bytes).sum();
        self.reach = Coverage::Until(key.0);
    }
}
