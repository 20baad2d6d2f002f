//! Counts the requests of the control socket by route, method and status.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

use crate::control::budget::{self, MemoryBudget};

/// The label of requests for a path that no route has.
const NO_ROUTE: &str = "(none)";

/// Counts requests. Clones share the counts, whose number is bounded by those of routes, methods and statuses.
#[derive(Debug, Clone, Default)]
pub struct RequestCounts(Arc<Mutex<RequestTable>>);

/// For each route the number of requests by method and status.
pub(in crate::control) type RequestTable = BTreeMap<String, BTreeMap<(&'static str, u16), u64>>;

impl RequestCounts {
    fn count(&self, route: &str, method: &'static str, status: u16) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match table.get_mut(route) {
            Some(requests) => *requests.entry((method, status)).or_default() += 1,
            None => drop(table.insert(route.to_owned(), [((method, status), 1)].into())),
        }
    }

    pub(super) fn read(&self) -> RequestTable {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The label of a method. A client may send any word.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "(other)",
    }
}

/// Answers a request, bounds the memory of the answer, and counts both.
pub(in crate::control) async fn counted(
    State((requests, budget)): State<(RequestCounts, MemoryBudget)>,
    request: Request,
    next: Next,
) -> Response {
    let method = label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = budget::bound_answer(budget, next.run(request).await).await;
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    requests.count(route, method, response.status().as_u16());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_method_and_status() {
        let counts = RequestCounts::default();
        for status in [200, 404, 200] {
            counts.count("/v1/jobs/{id}", label(&Method::GET), status);
        }
        counts.count(NO_ROUTE, label(&Method::from_bytes(b"BREW").unwrap()), 404);
        let table = counts.read();
        assert_eq!(table["/v1/jobs/{id}"], [(("GET", 200), 2), (("GET", 404), 1)].into());
        assert_eq!(table[NO_ROUTE], [(("(other)", 404), 1)].into());
    }
}
