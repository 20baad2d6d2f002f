//! The near part of the schedule, in memory: the jobs that are due next, in order. The rest stays
//! in the store until the horizon is reached, so that memory does not grow with the jobs, and an
//! instant that is reached needs no question to the store.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::job::{Job, JobId};

/// Jobs that are fetched at once. Twice as many are held at most.
pub(super) const HORIZON_JOBS: usize = 1000;

/// How far the held jobs are all that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Reach {
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
pub(super) enum Next {
    /// At once: the store has to be asked.
    Unknown,
    /// At this instant; never, if nothing is due.
    At(Option<Timestamp>),
}

/// The jobs that are due next.
#[derive(Debug, Default)]
pub(super) struct Horizon {
    jobs: BTreeMap<(Timestamp, JobId), Job>,
    due: BTreeMap<JobId, Timestamp>,
    reach: Reach,
}

impl Horizon {
    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether the store has to be asked before it is known what is due.
    pub(super) fn needs_filling(&self, now: Timestamp) -> bool {
        match self.reach {
            Reach::Nothing => true,
            // What is held comes first; it is due earlier.
            Reach::Until(until) => until <= now && self.due_at(now).next().is_none(),
            Reach::All => false,
        }
    }

    /// Takes up what the store has: its earliest jobs, at most [`HORIZON_JOBS`]. Gives back those that cannot be read.
    pub(super) fn fill(&mut self, jobs: Vec<Job>) -> Vec<Job> {
        self.clear();
        let all = jobs.len() < HORIZON_JOBS;
        let (active, unreadable): (Vec<Job>, Vec<Job>) =
            jobs.into_iter().partition(|job| job.next().is_some());
        let last = active.iter().filter_map(|job| Some(job.next()?.due_at)).max();
        self.reach = match last {
            _ if all => Reach::All,
            Some(last) => Reach::Until(last),
            None => Reach::Nothing,
        };
        for job in active {
            self.insert(job);
        }
        unreadable
    }

    /// The held jobs that are due at `now`, earliest first.
    pub(super) fn due_at(&self, now: Timestamp) -> impl Iterator<Item = &Job> {
        self.jobs.iter().take_while(move |((due_at, _), _)| *due_at <= now).map(|(_, job)| job)
    }

    /// When to look again.
    pub(super) fn next(&self) -> Next {
        let first = self.jobs.keys().next().map(|(due_at, _)| *due_at);
        match self.reach {
            Reach::Nothing => Next::Unknown,
            Reach::Until(until) => Next::At(Some(first.map_or(until, |first| first.min(until)))),
            Reach::All => Next::At(first),
        }
    }

    /// A job is now this.
    pub(super) fn put(&mut self, job: Job) {
        self.remove(&job.id);
        let near = |due_at: Timestamp| match self.reach {
            Reach::Nothing => false,
            Reach::Until(until) => due_at < until,
            Reach::All => true,
        };
        if job.next().is_some_and(|next| near(next.due_at)) {
            self.insert(job);
        }
        if self.jobs.len() > 2 * HORIZON_JOBS {
            self.draw_in();
        }
    }

    /// A job is gone.
    pub(super) fn remove(&mut self, id: &JobId) {
        if let Some(due_at) = self.due.remove(id) {
            self.jobs.remove(&(due_at, id.clone()));
        }
    }

    fn insert(&mut self, job: Job) {
        let Some(next) = job.next() else { return };
        self.due.insert(job.id.clone(), next.due_at);
        self.jobs.insert((next.due_at, job.id.clone()), job);
    }

    /// Lets go of the far half.
    fn draw_in(&mut self) {
        let Some(key) = self.jobs.keys().nth(HORIZON_JOBS).cloned() else { return };
        for (_, id) in self.jobs.split_off(&key).into_keys() {
            self.due.remove(&id);
        }
        self.reach = Reach::Until(key.0);
    }
}
