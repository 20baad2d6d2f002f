//! Which variables of the daemon's environment the stored jobs name as secrets. All jobs are looked at once after the
//! start, page by page, through the store's readers; commands wait for that, since they must not inherit these.

use std::sync::Arc;
use std::time::Duration;

use crate::executor::SecretVariables;
use crate::filter::{JobFilter, PAGE_LIMIT};
use crate::store::{Archive, StoreError};

/// Time until the store is asked again when it could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks at all jobs, and says when that is done.
pub(super) async fn learn(archive: Arc<dyn Archive>, secrets: SecretVariables) {
    let mut filter = JobFilter { limit: PAGE_LIMIT, ..JobFilter::default() };
    loop {
        match learn_page(&*archive, &secrets, &filter).await {
            Ok(Some(last)) => filter.after = Some(last),
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%error, "the jobs cannot be read; commands wait");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    secrets.complete();
}

/// Looks at one page; the answer is where the next one begins, if there is one.
async fn learn_page(
    archive: &dyn Archive,
    secrets: &SecretVariables,
    filter: &JobFilter,
) -> Result<Option<String>, StoreError> {
    let page = archive.jobs(filter).await?;
    for job in &page.rows {
        secrets.add_from(job);
    }
    let goes_on = page.is_cut || page.rows.len() >= filter.limit;
    Ok(page.rows.last().filter(|_| goes_on).map(|job| job.id.to_string()))
}
