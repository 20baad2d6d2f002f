//! Previews are arithmetic that may take long. To leave the processors to the jobs, few are computed at the same time; the
//! number of those that wait is bounded, and so is the time of each.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::error::ApiError;
use crate::clock::Timestamp;
use crate::preview::Preview;
use crate::zone::Zone;

/// The most previews that are computed at the same time; never more than half of the processors.
const COMPUTED_MAX: usize = 4;
/// The most previews that are computed or wait for that.
const PREVIEWS_MAX: usize = 32;
/// Time limit of one computation.
const TIME_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub struct PreviewLimits {
    all: Arc<Semaphore>,
    computed: Arc<Semaphore>,
}

impl Default for PreviewLimits {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            all: Arc::new(Semaphore::new(PREVIEWS_MAX)),
            computed: Arc::new(Semaphore::new((processors / 2).clamp(1, COMPUTED_MAX))),
        }
    }
}

impl PreviewLimits {
    /// Computes a preview when it is its turn; 503 if too many wait already.
    pub(super) async fn compute(
        &self,
        question: Value,
        zone: Zone,
        now: Timestamp,
    ) -> Result<Preview, ApiError> {
        let busy = || {
            let message = format!("{PREVIEWS_MAX} previews are being computed or wait for that");
            ApiError::unavailable(message)
        };
        let slot = Arc::clone(&self.all).try_acquire_owned().map_err(|_| busy())?;
        let turn = Arc::clone(&self.computed).acquire_owned().await.map_err(|_| busy())?;
        let computing = tokio::task::spawn_blocking(move || {
            // Held until the computation ends, even if the client has gone.
            let _held = (slot, turn);
            let begin = Instant::now();
            Preview::new(question, &zone, now, || begin.elapsed() < TIME_MAX)
        });
        let preview = computing.await.map_err(|error| ApiError::unavailable(error.to_string()))?;
        Ok(preview?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use axum::response::IntoResponse;
    use serde_json::json;

    #[tokio::test]
    async fn one_preview_too_many_is_refused_until_another_one_ends() {
        let previews = PreviewLimits::default();
        let now = Timestamp::from_timestamp(1_800_000_000, 0).unwrap();
        let question = || json!({"trigger": {"type": "interval", "hours": 1}, "count": 2});
        let ask = || previews.compute(question(), Zone::utc(), now);
        let places = u32::try_from(PREVIEWS_MAX).unwrap();
        let held = Arc::clone(&previews.all).acquire_many_owned(places).await.unwrap();
        let refused = ask().await.unwrap_err().into_response();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key("retry-after"));
        drop(held);
        assert_eq!(ask().await.unwrap().times.len(), 2);
    }

    #[test]
    fn a_preview_that_takes_too_long_is_refused() {
        let now = Timestamp::from_timestamp(1_800_000_000, 0).unwrap();
        let question = json!({"trigger": {"type": "interval", "hours": 1}, "count": 2});
        let refused = Preview::new(question, &Zone::utc(), now, || false).unwrap_err();
        assert_eq!(refused.field, "count");
    }
}
