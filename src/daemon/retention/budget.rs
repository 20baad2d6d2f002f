//! The budget of the whole history: rows and bytes that all ended runs of all jobs may take together, so that no number
//! of jobs can fill the disk. It comes before every other rule: what exceeds it goes, the oldest runs first.

use super::{FAST, Interrupted, PAGE, Pruner, rested};
use crate::config::Budget;
use crate::filter::Prunable;
use crate::run::RunId;

impl Pruner {
    /// Removes the oldest runs that are beyond the budget, and says how many these were.
    pub(super) async fn keep_budget(&self, budget: Budget) -> Result<usize, Interrupted> {
        let Some(last) = self.first_beyond(budget).await? else { return Ok(0) };
        let oldest = Prunable::Oldest { last: &last.0 };
        self.remove_all(oldest, FAST, || format!("runs up to {last}")).await
    }

    /// The newest run that the budget has no room for: runs are counted from the newest one on.
    async fn first_beyond(&self, budget: Budget) -> Result<Option<RunId>, Interrupted> {
        let mut rest = budget;
        let mut before: Option<RunId> = None;
        loop {
            let page = self.archive.run_sizes(before.as_ref().map(|id| &*id.0), PAGE);
            let sizes = rested(page).await?;
            let is_last = sizes.len() < PAGE;
            before = sizes.last().map(|(id, _)| id.clone());
            let beyond = sizes.into_iter().find(|(_, bytes)| !rest.take(*bytes));
            if beyond.is_some() || is_last {
                return Ok(beyond.map(|(id, _)| id));
            }
        }
    }
}

impl Budget {
    /// Takes the room for a run of this many bytes; false if there is none.
    fn take(&mut self, bytes: u64) -> bool {
        let rest = self.runs.checked_sub(1).zip(self.bytes.checked_sub(bytes));
        let Some((runs, bytes)) = rest else { return false };
        *self = Self { runs, bytes };
        true
    }
}
