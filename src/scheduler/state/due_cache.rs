//! The jobs that are due next, in memory: for each pool its earliest jobs, in order. The rest stays in the store, so that
//! memory does not grow with the number of jobs, and a job that falls due needs no query. A paused job whose pause ends by
//! itself is among them: it is due for that when the pause ends.

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

    /// How many cached jobs are due.
    pub(crate) fn count_due(&self, now: Timestamp) -> usize {
        self.pools.values().map(|pool| pool.due_at(now).count()).sum()
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
            jobs.into_iter().partition(|job| job.wakes_at().is_some());
        let last = active.iter().filter_map(Job::wakes_at).max();
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
        if job.wakes_at().is_some_and(|at| self.reaches(at)) {
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
        let Some(at) = job.wakes_at() else { return };
        self.due.insert(job.id.clone(), at);
        self.bytes = self.bytes.saturating_add(job.bytes);
        self.jobs.insert((at, job.id.clone()), job);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobState;
    use crate::scheduler::fixtures::{at, due_again, due_job};

    const POOL: &str = "default";

    fn pools() -> [String; 1] {
        [POOL.to_owned()]
    }

    fn window(until: Option<i64>, limit: usize) -> FetchWindow {
        FetchWindow { until: until.map(at), limit }
    }

    /// The ids of the cached jobs that are due at this second, in order.
    fn due(cache: &DueCache, second: i64) -> Vec<String> {
        cache.due_at(POOL, at(second)).map(|job| job.id.to_string()).collect()
    }

    fn next_at(cache: &DueCache, second: i64) {
        assert_eq!(cache.next(&pools()), NextDue::At(Some(at(second))));
    }

    #[test]
    fn nothing_is_known_of_a_pool_that_was_not_fetched() {
        let mut cache = DueCache::default();
        assert!(cache.needs_fetch(POOL, at(0)));
        assert_eq!((cache.next(&pools()), cache.first_due()), (NextDue::Unknown, None));
        cache.put(Arc::new(due_job("a", 10)));
        assert!(due(&cache, 10).is_empty(), "it would be the only one of who knows how many");
    }

    #[test]
    fn when_all_jobs_were_fetched_the_store_is_not_asked_again() {
        let mut cache = DueCache::default();
        cache.fill(POOL, window(None, 10), vec![due_job("b", 20), due_job("a", 10)]);
        assert!(!cache.needs_fetch(POOL, at(1000)));
        next_at(&cache, 10);
        assert_eq!(
            (due(&cache, 9), due(&cache, 20)),
            (vec![], vec!["a".to_owned(), "b".to_owned()])
        );
        cache.put(Arc::new(due_job("c", 1_000_000)));
        assert!(cache.reaches(POOL, at(2_000_000)));
        for id in ["a", "b", "c"] {
            cache.remove(&JobId::parse(id).unwrap());
        }
        assert_eq!(cache.next(&pools()), NextDue::At(None), "no job will be due");
    }

    #[test]
    fn a_window_is_complete_up_to_its_end() {
        let mut cache = DueCache::default();
        cache.fill(POOL, window(Some(100), 10), vec![due_job("a", 10)]);
        cache.put(Arc::new(due_job("late", 100)));
        assert_eq!(due(&cache, 1000), ["a"], "there may be others like it in the store");
        next_at(&cache, 10);
        assert!(!cache.needs_fetch(POOL, at(100)), "a cached job is due before any other");
        cache.remove(&JobId::parse("a").unwrap());
        next_at(&cache, 100);
        assert!(!cache.needs_fetch(POOL, at(99)) && cache.needs_fetch(POOL, at(100)));
    }

    #[test]
    fn a_fetch_that_reached_its_limit_is_complete_up_to_its_last_job() {
        let mut cache = DueCache::default();
        cache.fill(POOL, window(None, 2), vec![due_job("a", 10), due_job("b", 20)]);
        assert!(cache.reaches(POOL, at(19)) && !cache.reaches(POOL, at(20)));
        cache.put(Arc::new(due_job("c", 15)));
        assert_eq!(due(&cache, 20), ["a", "c", "b"]);
        // Jobs that are so large that the claim ended early.
        let large = Job { bytes: CLAIM_BYTES, ..due_job("a", 10) };
        cache.fill(POOL, window(None, 2), vec![large]);
        assert!(!cache.reaches(POOL, at(10)));
    }

    #[test]
    fn the_first_of_several_pools_counts_if_all_are_known() {
        let mut cache = DueCache::default();
        let pools = ["default", "other"].map(str::to_owned);
        cache.fill("default", window(None, 10), vec![due_job("a", 20)]);
        assert_eq!(cache.next(&pools), NextDue::Unknown);
        let other = Job { executor: "other".to_owned(), ..due_job("b", 10) };
        cache.fill("other", window(None, 10), vec![other]);
        assert_eq!(cache.next(&pools), NextDue::At(Some(at(10))));
        assert_eq!(cache.first_due(), Some(at(10)));
        assert_eq!([9, 10, 20].map(|second| cache.count_due(at(second))), [0, 1, 2]);
    }

    #[test]
    fn a_job_that_is_written_is_found_where_it_is_now_and_nowhere_else() {
        let mut cache = DueCache::default();
        cache.fill("other", window(None, 10), Vec::new());
        cache.fill(POOL, window(None, 10), vec![due_job("a", 10), due_job("b", 20)]);
        cache.put(Arc::new(due_job("a", 30)));
        assert_eq!(
            (due(&cache, 10), due(&cache, 30)),
            (vec![], vec!["b".to_owned(), "a".to_owned()])
        );
        cache.put(Arc::new(Job { executor: "other".to_owned(), ..due_job("a", 30) }));
        assert_eq!(
            (due(&cache, 30), cache.due_at("other", at(30)).count()),
            (vec!["b".to_owned()], 1)
        );
        cache.put(Arc::new(Job { state: JobState::Finished, ..due_job("b", 20) }));
        assert!(due(&cache, 30).is_empty(), "a job that has finished is not due");
    }

    #[test]
    fn jobs_that_were_read_again_replace_those_that_are_cached() {
        let mut cache = DueCache::default();
        cache.fill(POOL, window(None, 10), vec![due_job("a", 10)]);
        let read = [due_job("a", 20), due_job("b", 20)].map(Arc::new);
        cache.refresh(read.iter());
        assert_eq!((due(&cache, 10), due(&cache, 20)), (vec![], vec!["a".to_owned()]));
    }

    #[test]
    fn jobs_that_will_not_be_due_are_handed_back() {
        let mut cache = DueCache::default();
        let broken = Job { state: JobState::Finished, ..due_job("b", 0) };
        let unreadable = cache.fill(POOL, window(None, 2), vec![due_job("a", 10), broken]);
        assert_eq!(unreadable.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), ["b"]);
        let broken = Job { state: JobState::Finished, ..due_job("b", 0) };
        cache.fill(POOL, window(None, 1), vec![broken]);
        assert!(cache.needs_fetch(POOL, at(0)), "a page of them says nothing of the next one");
    }

    #[test]
    fn a_cache_that_grows_drops_its_later_half() {
        let mut cache = DueCache::default();
        cache.fill(POOL, window(None, CACHED_JOBS), Vec::new());
        let job = due_job("any", 0);
        for number in 0..=2 * CACHED_JOBS {
            let second = i64::try_from(number).unwrap();
            cache.put(Arc::new(due_again(&job, &number.to_string(), second)));
        }
        let cached = i64::try_from(CACHED_JOBS).unwrap();
        assert_eq!(due(&cache, 10 * cached).len(), CACHED_JOBS);
        assert!(cache.reaches(POOL, at(cached - 1)) && !cache.reaches(POOL, at(cached)));
        next_at(&cache, 0);
        // The same with a few jobs that are large.
        cache.fill(POOL, window(None, CACHED_JOBS), Vec::new());
        for (id, second) in [("a", 10), ("b", 20), ("c", 30)] {
            let large = Job { bytes: CLAIM_BYTES, ..due_job(id, second) };
            cache.put(Arc::new(large));
        }
        assert_eq!(due(&cache, 30), ["a"]);
        assert!(!cache.reaches(POOL, at(20)));
    }
}
