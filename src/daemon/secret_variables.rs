//! Finds out which variables of the daemon's environment are secrets of stored jobs. After the start all jobs are read
//! once, page by page, through the store's readers. Commands wait for that, because they must not inherit secrets.

use std::sync::Arc;
use std::time::Duration;

use crate::executor::SecretVariables;
use crate::filter::{JobFilter, JobPosition, PAGE_LIMIT};
use crate::store::{Archive, StoreError};

/// Pause after a failed read of the store.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads all jobs, and then marks `secrets` as complete.
pub(super) async fn learn(archive: Arc<dyn Archive>, secrets: SecretVariables) {
    let mut filter = JobFilter { limit: PAGE_LIMIT, ..JobFilter::default() };
    loop {
        match learn_page(&*archive, &secrets, &filter).await {
            Ok(Some(id)) => filter.after = Some(JobPosition { due_at: None, id }),
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%error, "the jobs cannot be read; commands wait");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    secrets.complete();
}

/// Reads one page. Returns the id after which the next page begins, if there is one.
async fn learn_page(
    archive: &dyn Archive,
    secrets: &SecretVariables,
    filter: &JobFilter,
) -> Result<Option<String>, StoreError> {
    let page = archive.jobs(filter).await?;
    for job in &page.rows {
        secrets.add(job.secret_variables());
    }
    let goes_on = page.is_cut || page.rows.len() >= filter.limit;
    Ok(page.rows.last().filter(|_| goes_on).map(|job| job.id.to_string()))
}
