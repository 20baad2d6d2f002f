//! Cursors: where the next page of a list begins. A cursor belongs to the query that it came from, and carries a hash of that
//! query and of the place in it. So a cursor of another list, and one that was damaged, is refused.

use axum::extract::{FromRequest, Request};
use axum::http::Uri;
use serde::de::DeserializeOwned;

use super::Api;
use super::error::ApiError;
use super::request::QueryParams;
use crate::invalid::Invalid;
use crate::job::stable_hash;

/// The keys of a query that may differ from page to page.
const PAGING: [&str; 4] = ["cursor", "limit", "wait", "seen"];
/// The hexadecimal digits of the hash.
const HASH_DIGITS: usize = 16;

/// A query for a page of a list.
#[derive(Debug)]
pub(super) struct ListParams<T> {
    pub(super) params: T,
    pub(super) list: ListIdentity,
}

impl<T: DeserializeOwned + Send> FromRequest<Api> for ListParams<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let list = ListIdentity::of(request.uri());
        let QueryParams(params) = QueryParams::from_request(request, api).await?;
        Ok(Self { params, list })
    }
}

/// A hash of what all pages of a list have in common: its path, its order and its conditions.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListIdentity(u64);

impl ListIdentity {
    pub(super) fn of(uri: &Uri) -> Self {
        let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        let mut pairs: Vec<_> = pairs.filter(|(key, _)| !PAGING.contains(&key.as_ref())).collect();
        pairs.sort();
        let mut text = uri.path().to_owned();
        for (key, value) in pairs {
            // No query has control characters.
            text = format!("{text}\0{key}\0{value}");
        }
        Self(stable_hash(text.as_bytes(), 0))
    }

    /// The cursor of a place in the list.
    pub(super) fn cursor(self, place: &str) -> String {
        let digits = place.bytes().map(|byte| format!("{byte:02x}"));
        format!("{:016x}{}", self.hash(place), digits.collect::<String>())
    }

    /// The place that a cursor names.
    pub(super) fn place(self, cursor: &str) -> Result<String, Invalid> {
        let place = cursor.get(HASH_DIGITS..).and_then(decoded);
        let place = place.filter(|place| self.cursor(place) == cursor);
        place.ok_or_else(|| {
            let message = "is not one of this list: take next_cursor of the page before, and repeat the rest of its query";
            Invalid::new("cursor", message)
        })
    }

    fn hash(self, place: &str) -> u64 {
        stable_hash(format!("{}\0{place}", self.0).as_bytes(), 0)
    }
}

/// Reads a text that is written as hexadecimal digits.
fn decoded(digits: &str) -> Option<String> {
    let digits: Option<Vec<u32>> = digits.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits?;
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(high * 16 + low).ok(),
        _ => None,
    });
    String::from_utf8(pairs.collect::<Option<Vec<u8>>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(uri: &'static str) -> ListIdentity {
        ListIdentity::of(&Uri::from_static(uri))
    }

    #[test]
    fn a_cursor_leads_back_to_its_place_on_every_page_of_its_list() {
        let first = list("/v1/jobs?tag=a&state=paused&limit=3");
        for place in ["", "a", "order:42", "ä/日本", "1800000000000000:x"] {
            let cursor = first.cursor(place);
            assert!(cursor.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{cursor}");
            let next = list("/v1/jobs?state=paused&cursor=00&limit=9&tag=a&seen=3&wait=1");
            assert_eq!(next.place(&cursor), Ok(place.to_owned()));
        }
    }

    #[test]
    fn a_cursor_of_another_list_or_a_damaged_one_is_refused() {
        let own = list("/v1/jobs?tag=a");
        for other in ["/v1/jobs", "/v1/jobs?tag=b", "/v1/runs?tag=a", "/v1/jobs?tag=a&order=id"] {
            assert_eq!(own.place(&list(other).cursor("x")).unwrap_err().field, "cursor", "{other}");
        }
        let cursor = own.cursor("x");
        let damaged = [
            String::new(),
            "x".to_owned(),
            cursor.to_uppercase(),
            format!("{cursor}0"),
            format!("{cursor}78"),
            cursor.replace("78", "79"),
            cursor[..HASH_DIGITS].to_owned(),
            format!("{}ff", &cursor[..HASH_DIGITS]),
            "日本語日本語日本語".to_owned(),
        ];
        for damaged in damaged.iter().filter(|damaged| **damaged != cursor) {
            assert!(own.place(damaged).is_err(), "{damaged}");
        }
    }
}
