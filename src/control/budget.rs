//! How many bytes of requests and of answers are in memory at the same time. Small ones are bounded by the number of
//! connections; large ones share a budget, and what does not fit in is to be tried again later.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// Bytes of large bodies of requests that are received or worked on.
const REQUEST_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of large answers that have not been sent.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that every request and every answer has without the budget.
const FREE_BYTES: usize = 64 * 1024;

/// The budgets of a router.
#[derive(Debug, Clone)]
pub struct Budget {
    requests: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            requests: Arc::new(Semaphore::new(REQUEST_BYTES)),
            answers: Arc::new(Semaphore::new(ANSWER_BYTES)),
        }
    }
}

/// The part of the budget that a body has taken, which grows with it.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Semaphore>,
    bytes: usize,
    taken: Option<OwnedSemaphorePermit>,
}

/// There is no room for that now.
#[derive(Debug, Clone, Copy)]
struct Exhausted;

impl Share {
    pub(super) fn of_requests(budget: &Budget) -> Self {
        Self { budget: Arc::clone(&budget.requests), bytes: 0, taken: None }
    }

    /// Takes room for more bytes. The first ones are free.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.take(bytes).map_err(|Exhausted| {
            ApiError::unavailable("too many large requests are being worked on")
        })
    }

    fn take(&mut self, bytes: usize) -> Result<(), Exhausted> {
        self.bytes = self.bytes.saturating_add(bytes);
        let held = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = self.bytes.saturating_sub(FREE_BYTES).saturating_sub(held);
        if wanted == 0 {
            return Ok(());
        }
        let wanted = u32::try_from(wanted).map_err(|_| Exhausted)?;
        let more = Arc::clone(&self.budget).try_acquire_many_owned(wanted);
        let more = more.map_err(|_| Exhausted)?;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        Ok(())
    }
}

/// An answer, with its share of the budget until it has been sent.
struct Held {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Sends large answers only while there is room for them: clients that do not read theirs fill it.
pub(super) async fn bound_answer(State(budget): State<Budget>, response: Response) -> Response {
    // An answer without a size is written piece by piece, as it is read.
    let bytes = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let Some(bytes) = bytes.filter(|bytes| *bytes > FREE_BYTES) else { return response };
    let mut share = Share { budget: budget.answers, bytes: 0, taken: None };
    if share.take(bytes).is_err() {
        let message = "too many large answers are waiting to be read";
        return ApiError::unavailable(message).into_response();
    }
    let (parts, body) = response.into_parts();
    // All of it is there, and nothing is waited for.
    let Ok(body) = body.collect().await else {
        return ApiError::unavailable("the answer broke off").into_response();
    };
    let held = Held { bytes: body.to_bytes(), _share: share };
    Response::from_parts(parts, Body::from(Bytes::from_owner(held)))
}
