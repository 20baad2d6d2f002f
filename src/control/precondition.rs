//! The headers by which a request is meant for some versions of a job only: `If-Match` and `If-None-Match`.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use axum::http::request::Parts;

use super::error::ApiError;
use crate::job::JobVersion;
use crate::scheduler::request::Precondition;

/// The header `If-Match`.
pub(super) struct IfMatch(pub(super) Precondition);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Some(tags) = EntityTags::of(&parts.headers, &IF_MATCH)? else {
            if parts.headers.contains_key(IF_UNMODIFIED_SINCE) {
                let message = "If-Unmodified-Since is not supported: use If-Match with the ETag";
                return Err(ApiError::unreadable(message));
            }
            return Ok(Self(Precondition::None));
        };
        Ok(Self(match tags {
            EntityTags::Any => Precondition::None,
            // A weak tag never matches here, nor does one that is no version of a job.
            EntityTags::Listed(tags) => Precondition::OneOf(
                tags.iter()
                    .filter(|tag| !tag.is_weak)
                    .filter_map(|tag| JobVersion::parse(&tag.text))
                    .collect(),
            ),
        }))
    }
}

/// The header `If-None-Match`.
pub(super) struct IfNoneMatch(Option<EntityTags>);

impl IfNoneMatch {
    /// Whether the client has the answer with this tag already.
    pub(super) fn has(&self, tag: &str) -> bool {
        match &self.0 {
            Some(EntityTags::Any) => true,
            Some(EntityTags::Listed(tags)) => tags.iter().any(|given| given.text == tag),
            None => false,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        EntityTags::of(&parts.headers, &IF_NONE_MATCH).map(Self)
    }
}

/// The value of a header that lists entity tags.
#[derive(Debug, PartialEq, Eq)]
enum EntityTags {
    Any,
    Listed(Vec<EntityTag>),
}

#[derive(Debug, PartialEq, Eq)]
struct EntityTag {
    is_weak: bool,
    text: String,
}

impl EntityTags {
    /// The tags of a header, which may be given several times. None: it is not given.
    fn of(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, ApiError> {
        let mut lines = Vec::new();
        let refuse = || {
            let message = format!(
                "{name} takes * or tags in quotes with commas, such as \"3.1764460800000000\""
            );
            ApiError::unreadable(message)
        };
        for value in headers.get_all(name) {
            lines.push(value.to_str().map_err(|_| refuse())?);
        }
        if lines.is_empty() {
            return Ok(None);
        }
        Self::parse(&lines.join(",")).map(Some).ok_or_else(refuse)
    }

    fn parse(text: &str) -> Option<Self> {
        if text.trim() == "*" {
            return Some(Self::Any);
        }
        let mut tags = Vec::new();
        let mut rest = text.trim();
        loop {
            let after_weak = rest.strip_prefix("W/");
            let (text, after) = after_weak.unwrap_or(rest).strip_prefix('"')?.split_once('"')?;
            tags.push(EntityTag { is_weak: after_weak.is_some(), text: text.to_owned() });
            let after = after.trim_start();
            if after.is_empty() {
                return Some(Self::Listed(tags));
            }
            rest = after.strip_prefix(',')?.trim_start();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_as_rfc_9110_writes_them() {
        let tag = |is_weak, text: &str| EntityTag { is_weak, text: text.to_owned() };
        assert_eq!(EntityTags::parse(" * "), Some(EntityTags::Any));
        let listed = EntityTags::Listed(vec![tag(false, "3"), tag(true, "a,b"), tag(false, "")]);
        assert_eq!(EntityTags::parse("\"3\" , W/\"a,b\",\"\""), Some(listed));
        for bad in ["", "3", "\"3", "3\"", "\"3\",", ",\"3\"", "\"3\" \"4\"", "*, \"3\"", "w/\"3\""]
        {
            assert_eq!(EntityTags::parse(bad), None, "{bad}");
        }
    }
}
