//! The jobs that are due next, in memory: for each pool its earliest jobs, in order. The rest stays in the store, so that
//! memory does not grow with the number of jobs, and a job that falls due needs no query.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::job::{Job, JobId};
use crate::store::CLAIM_BYTES;

/// Jobs of a pool that are fetched at once. At most twice as many are cached.
pub(crate) const CACHED_JOBS: usize = 1000;

/// How far the cached jobs are complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Coverage {
    #[default]
    Nothing,
    /// Every job that is due before this instant is cached.
    Until(Timestamp),
    All,
}

/// When the next cached job is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextDue {
    /// The store has to be asked.
    Unknown,
    /// `None` if no job will be due.
    At(Option<Timestamp>),
}

/// Which jobs of a pool are fetched from the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FetchWindow {
    /// Jobs that are due at or before this instant; all jobs if it is `None`.
    pub(crate) until: Option<Timestamp>,
    /// Most jobs.
    pub(crate) limit: usize,
}

impl Default for FetchWindow {
    fn default() -> Self {
        Self { until: None, limit: CACHED_JOBS }
    }
}

#[derive(Debug, Default)]
struct PoolCache {
    jobs: BTreeMap<(Timestamp, JobId), Arc<Job>>,
    /// Bytes of their definitions.
    bytes: usize,
    due: BTreeMap<JobId, Timestamp>,
    reach: Coverage,
}

#[derive(Debug, Default)]
pub(crate) struct DueCache {
    pools: BTreeMap<String, PoolCache>,
}

impl DueCache {
    pub(crate) fn clear(&mut self) {
        self.pools.clear();
    }

    /// Whether the store has to be asked for the jobs of a pool that are due.
    pub(crate) fn needs_fetch(&self, pool: &str, now: Timestamp) -> bool {
        self.pools.get(pool).is_none_or(|pool| pool.needs_fetch(now))
    }

    /// Caches the earliest jobs of a pool. Returns those that cannot be read.
    pub(crate) fn fill(&mut self, pool: &str, window: FetchWindow, jobs: Vec<Job>) -> Vec<Job> {
        let (cache, unreadable) = PoolCache::of(window, jobs);
        self.pools.insert(pool.to_owned(), cache);
        unreadable
    }

    /// The cached jobs of a pool that are due at `now`, earliest first.
    pub(crate) fn due_at(&self, pool: &str, now: Timestamp) -> impl Iterator<Item = &Arc<Job>> {
        self.pools.get(pool).into_iter().flat_map(move |pool| pool.due_at(now))
    }

    /// When the next job of these pools is due.
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

    /// When the first cached job is due.
    pub(crate) fn first_due(&self) -> Option<Timestamp> {
        let firsts = self.pools.values().filter_map(|pool| pool.jobs.keys().next());
        firsts.map(|(due_at, _)| *due_at).min()
    }

    /// Whether a job of a pool that is due at this instant belongs into the cache.
    pub(crate) fn reaches(&self, pool: &str, due_at: Timestamp) -> bool {
        self.pools.get(pool).is_some_and(|pool| pool.reaches(due_at))
    }

    /// A job was written.
    pub(crate) fn put(&mut self, job: Arc<Job>) {
        self.remove(&job.id);
        if let Some(pool) = self.pools.get_mut(&job.executor) {
            pool.put(job);
        }
    }

    /// Jobs were read again: updates those that are cached.
    pub(crate) fn refresh<'a>(&mut self, jobs: impl Iterator<Item = &'a Arc<Job>>) {
        for job in jobs {
            if self.pools.values().any(|pool| pool.due.contains_key(&job.id)) {
                self.put(Arc::clone(job));
            }
        }
    }

    pub(crate) fn remove(&mut self, id: &JobId) {
        for pool in self.pools.values_mut() {
            pool.remove(id);
        }
    }
}

impl PoolCache {
    fn of(window: FetchWindow, jobs: Vec<Job>) -> (Self, Vec<Job>) {
        let bytes: usize = jobs.iter().map(|job| job.bytes).sum();
        let is_all = jobs.len() < window.limit && bytes < CLAIM_BYTES;
        let (active, unreadable): (Vec<Job>, Vec<Job>) =
            jobs.into_iter().partition(|job| job.next().is_some());
        let last = active.iter().filter_map(|job| Some(job.next()?.due_at)).max();
        let reach = match last {
            _ if is_all => window.until.map_or(Coverage::All, Coverage::Until),
            Some(last) => Coverage::Until(last),
            None => Coverage::Nothing,
        };
        let mut cache = Self { reach, ..Self::default() };
        for job in active {
            cache.insert(Arc::new(job));
        }
        (cache, unreadable)
    }

    fn needs_fetch(&self, now: Timestamp) -> bool {
        match self.reach {
            Coverage::Nothing => true,
            // The cached jobs are due earlier than those in the store.
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

    /// Drops the later half.
    fn shrink(&mut self) {
        let mut bytes = 0_usize;
        let nearest = self.jobs.values().take_while(|job| {
            bytes = bytes.saturating_add(job.bytes);
            bytes <= CLAIM_BYTES
        });
        let count = nearest.take(CACHED_JOBS).count();
        let Some(key) = self.jobs.keys().nth(count).cloned() else { return };
        for (_, id) in self.jobs.split_off(&key).into_keys() {
            self.due.remove(&id);
        }
        self.bytes = self.jobs.values().map(|job| job.bytes).sum();
        self.reach = Coverage::Until(key.0);
    }
}
