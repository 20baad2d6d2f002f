//! The next instants of a job, for people who want to know what will run.

use super::{Due, Job};
use crate::clock::Timestamp;

impl Job {
    /// When it is due next and after that, at most `count` instants, all before `until`. An occurrence that is late already
    /// comes first, and those that it stands for are left out. `max_runs` ends the list, as it ends the job.
    pub fn upcoming(
        &self,
        until: Option<Timestamp>,
        count: usize,
        now: Timestamp,
    ) -> Vec<Timestamp> {
        let Some(first) = self.next() else { return Vec::new() };
        let left = self.policy.max_runs.map(|most| most.saturating_sub(self.run_count));
        let left = left.and_then(|left| usize::try_from(left).ok()).unwrap_or(usize::MAX);
        let following = |due: &Due| {
            let next = self.trigger.next_after(due.scheduled_at.max(now))?;
            Some(Due::new(&self.id, &self.trigger, next))
        };
        let instants = std::iter::successors(Some(first), following).map(|due| due.due_at);
        let instants = instants.take_while(|at| until.is_none_or(|until| *at < until));
        instants.take(count.min(left)).collect()
    }
}
