//! Cuts large requests into slices. Each slice is one transaction, and jobs fire on time between two of them.

use std::sync::Arc;

use super::handle::Handle;
use super::request::{Added, Addition, BulkAction, BulkTally, RequestError, weight};
use crate::filter::JobConditions;
use crate::job::JobId;

/// Work of one transaction of a batch, in jobs of usual size. It bounds for how long the scheduler is busy.
const BATCH_WEIGHT: usize = 128;
/// Jobs of one transaction that are removed, paused or resumed: a few milliseconds of the scheduler's time.
const BULK_WEIGHT: usize = 64;

/// Cuts a list into slices of at most `weight_max`. An item that weighs more is a slice of its own.
pub(super) fn slices<T>(
    items: Vec<T>,
    weight_max: usize,
    weight: impl Fn(&T) -> usize,
) -> Vec<Vec<T>> {
    let mut slices: Vec<Vec<T>> = Vec::new();
    let mut left = 0;
    for item in items {
        let needed = weight(&item);
        match slices.last_mut() {
            Some(slice) if needed <= left => {
                left -= needed;
                slice.push(item);
            }
            _ => {
                left = weight_max.saturating_sub(needed);
                slices.push(vec![item]);
            }
        }
    }
    slices
}

/// Adds jobs slice by slice. An error of the first slice is returned as the error of the whole batch; a later one is the
/// result of each job of its slice.
pub async fn add_in_slices(
    handle: &Handle,
    additions: Vec<Addition>,
) -> Result<Vec<Result<Added, RequestError>>, RequestError> {
    let mut added = Vec::with_capacity(additions.len());
    let mut waiting = slices(additions, BATCH_WEIGHT, |addition| weight(&addition.job));
    waiting.reverse();
    while let Some(slice) = waiting.pop() {
        let count = slice.len();
        match handle.add_all(slice.clone()).await {
            Ok(results) => added.extend(results),
            // The others are added without it.
            Err(error @ RequestError::Rejected(_)) => {
                added.extend(refused_item(slice, &mut waiting).map(|_| Err(error)));
            }
            Err(error) if added.is_empty() => return Err(error),
            Err(error) => added.extend(vec![Err(error); count]),
        }
    }
    Ok(added)
}

/// Does the same to jobs slice by slice, and stops at an error that concerns more than one of them. Returns what became of
/// the jobs until then, with that error.
pub async fn act_in_slices(
    handle: &Handle,
    action: &BulkAction,
    ids: Vec<JobId>,
    conditions: &Arc<JobConditions>,
) -> (BulkTally, Option<RequestError>) {
    let mut tally = BulkTally::default();
    let mut waiting = slices(ids, BULK_WEIGHT, |_| 1);
    waiting.reverse();
    while let Some(slice) = waiting.pop() {
        match handle.act_on_all(action.clone(), slice.clone(), Arc::clone(conditions)).await {
            Ok(more) => tally.extend(more),
            // The others are changed without it.
            Err(error @ RequestError::Rejected(_)) => {
                tally.refused.extend(refused_item(slice, &mut waiting).map(|id| (id, error)));
            }
            Err(error) => return (tally, Some(error)),
        }
    }
    (tally, None)
}

/// The item of a slice whose value the database refuses, if the slice has only that. Otherwise its halves go back to the
/// stack of slices that wait, the earlier one on top.
pub(super) fn refused_item<T>(mut slice: Vec<T>, waiting: &mut Vec<Vec<T>>) -> Option<T> {
    if slice.len() <= 1 {
        return slice.pop();
    }
    let later = slice.split_off(slice.len() / 2);
    waiting.extend([later, slice]);
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::sync::{mpsc, watch};
    use tokio_util::task::TaskTracker;

    use super::super::fixtures;
    use super::super::handle::Status;
    use super::super::request::{Existing, PendingRequest, Request, Response};
    use super::*;

    /// A scheduler that adds everything, but fails from the given request on; with the sizes of the requests.
    fn failing_from(number: usize) -> (Handle, tokio::task::JoinHandle<Vec<usize>>) {
        let (commands_in, mut commands) = mpsc::channel::<PendingRequest>(1);
        let serving = TaskTracker::new().spawn(async move {
            let mut sizes = Vec::new();
            while let Some(PendingRequest { request, reply }) = commands.recv().await {
                let count = request.jobs().len();
                let failed = Err(RequestError::Unavailable("gone".to_owned()));
                let done = match request {
                    Request::Bulk { .. } => {
                        Response::Bulk(BulkTally { changed: count, ..BulkTally::default() })
                    }
                    _ => Response::Added(vec![Ok(Added::New); count]),
                };
                let added = Ok(done);
                drop(reply.send(Some(added).filter(|_| sizes.len() < number).unwrap_or(failed)));
                sizes.push(count);
            }
            sizes
        });
        (Handle::new(commands_in, watch::channel(Status::default()).1), serving)
    }

    fn batch(count: usize) -> Vec<Addition> {
        let any = fixtures::job("any", json!({}));
        let addition = |number: usize| {
            let job = fixtures::due_again(&any, &format!("j{number}"), 0);
            Addition { job: Box::new(job), existing: Existing::Refuse }
        };
        (0..count).map(addition).collect()
    }

    #[test]
    fn slices_keep_the_order_and_are_bounded_by_weight_but_none_is_empty() {
        let cut = |weights: &[usize]| slices(weights.to_vec(), 4, |weight| *weight);
        assert_eq!(cut(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(cut(&[1, 1, 1, 1, 1]), [vec![1, 1, 1, 1], vec![1]]);
        assert_eq!(cut(&[3, 2, 2, 9, 1]), [vec![3], vec![2, 2], vec![9], vec![1]]);
    }

    #[tokio::test]
    async fn a_batch_is_added_in_slices_and_what_could_not_be_written_is_an_error_of_its_own() {
        let (handle, serving) = failing_from(usize::MAX);
        let added = add_in_slices(&handle, batch(300)).await.unwrap();
        assert!(added.len() == 300 && added.iter().all(Result::is_ok));
        drop(handle);
        assert_eq!(serving.await.unwrap(), [128, 128, 44]);
        let (handle, _) = failing_from(2);
        let added = add_in_slices(&handle, batch(300)).await.unwrap();
        assert!(added[..256].iter().all(Result::is_ok));
        assert_eq!(added[256..], vec![Err(RequestError::Unavailable("gone".to_owned())); 44]);
        let (handle, _) = failing_from(0);
        let refused = add_in_slices(&handle, batch(300)).await;
        assert_eq!(refused, Err(RequestError::Unavailable("gone".to_owned())), "nothing was added");
    }

    #[tokio::test]
    async fn many_jobs_are_changed_in_small_slices_and_an_error_ends_that_with_what_was_done() {
        let ids: Vec<JobId> =
            (0..150).map(|number| JobId::parse(&number.to_string()).unwrap()).collect();
        let conditions = Arc::new(JobConditions::default());
        let (handle, serving) = failing_from(usize::MAX);
        let act = async |handle: &Handle| {
            act_in_slices(handle, &BulkAction::Resume, ids.clone(), &conditions).await
        };
        let (tally, error) = act(&handle).await;
        assert_eq!((tally.changed, error), (150, None));
        drop(handle);
        assert_eq!(serving.await.unwrap(), [64, 64, 22]);
        let (handle, _) = failing_from(1);
        let (tally, error) = act(&handle).await;
        let gone = RequestError::Unavailable("gone".to_owned());
        assert_eq!((tally.matched(), error), (64, Some(gone)));
    }
}
