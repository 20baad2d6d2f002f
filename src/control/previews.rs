//! Previews are arithmetic that may take long, so few are computed at a time: the processors belong
//! to the jobs. The number of those that wait is bounded, and so is the time of each.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::error::ApiError;
use crate::clock::Timestamp;
use crate::preview::Preview;
use crate::zone::Zone;

/// Previews that are computed at a time, at most; never more than half of the processors.
const COMPUTED_MAX: usize = 4;
/// Previews that are computed or wait for that.
const PREVIEWS_MAX: usize = 32;
/// How long one may be computed.
const TIME_MAX: Duration = Duration::from_secs(2);

/// The places for previews.
#[derive(Debug, Clone)]
pub struct Previews {
    all: Arc<Semaphore>,
    computed: Arc<Semaphore>,
}

impl Default for Previews {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            all: Arc::new(Semaphore::new(PREVIEWS_MAX)),
            computed: Arc::new(Semaphore::new((processors / 2).clamp(1, COMPUTED_MAX))),
        }
    }
}

impl Previews {
    /// Computes a preview when it is its turn; 503 if too many wait already.
    pub(super) async fn answer(
        &self,
        question: Value,
        zone: Zone,
        now: Timestamp,
    ) -> Result<Preview, ApiError> {
        let busy = || {
            let message = format!("{PREVIEWS_MAX} previews are being computed or wait for that");
            ApiError::unavailable(message)
        };
        let place = Arc::clone(&self.all).try_acquire_owned().map_err(|_| busy())?;
        let turn = Arc::clone(&self.computed).acquire_owned().await.map_err(|_| busy())?;
        let computing = tokio::task::spawn_blocking(move || {
            // Held until it is computed, also if nobody waits for it any longer.
            let _held = (place, turn);
            let begin = Instant::now();
            Preview::answer_while(question, &zone, now, || begin.elapsed() < TIME_MAX)
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
    async fn one_preview_too_many_is_refused_and_a_place_that_is_free_again_is_used() {
        let previews = Previews::default();
        let now = Timestamp::from_timestamp(1_800_000_000, 0).unwrap();
        let question = || json!({"trigger": {"type": "interval", "hours": 1}, "count": 2});
        let ask = || previews.answer(question(), Zone::utc(), now);
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
        let refused = Preview::answer_while(question, &Zone::utc(), now, || false).unwrap_err();
        assert_eq!(refused.field, "count");
    }
}
