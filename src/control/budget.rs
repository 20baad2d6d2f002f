//! Bounds the memory that bodies of requests and answers take at the same time. Small bodies are bounded by the number of
//! connections. Large ones share a budget; a request that does not fit into it is refused with 503.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// Budget for the large bodies of requests that are being received or handled, in bytes.
const REQUEST_BYTES: usize = 32 * 1024 * 1024;
/// Budget for large answers that have not been sent yet, in bytes.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of every request and every answer that do not count.
const FREE_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone)]
pub struct MemoryBudget {
    requests: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

impl Default for MemoryBudget {
    fn default() -> Self {
        Self {
            requests: Arc::new(Semaphore::new(REQUEST_BYTES)),
            answers: Arc::new(Semaphore::new(ANSWER_BYTES)),
        }
    }
}

/// The part of a budget that a body takes.
#[derive(Debug)]
pub(super) struct BudgetShare {
    budget: Arc<Semaphore>,
    bytes: usize,
    taken: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Clone, Copy)]
struct Exhausted;

impl BudgetShare {
    pub(super) fn of_requests(budget: &MemoryBudget) -> Self {
        Self { budget: Arc::clone(&budget.requests), bytes: 0, taken: None }
    }

    /// Takes more bytes from the budget.
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

/// The body of an answer, which gives its share of the budget back when it has been sent.
struct Held {
    bytes: Bytes,
    _share: BudgetShare,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Refuses large answers while clients that do not read theirs use up the budget.
pub(super) async fn bound_answer(budget: MemoryBudget, response: Response) -> Response {
    // An answer without a known size is made piece by piece while the client reads it.
    let bytes = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let Some(bytes) = bytes.filter(|bytes| *bytes > FREE_BYTES) else { return response };
    let mut share = BudgetShare { budget: budget.answers, bytes: 0, taken: None };
    if share.take(bytes).is_err() {
        let message = "too many large answers are waiting to be read";
        return ApiError::unavailable(message).into_response();
    }
    let (parts, body) = response.into_parts();
    // The body is in memory already, so this does not wait.
    let Ok(body) = body.collect().await else {
        return ApiError::unavailable("the answer is incomplete").into_response();
    };
    let held = Held { bytes: body.to_bytes(), _share: share };
    Response::from_parts(parts, Body::from(Bytes::from_owner(held)))
}
