//! A pause, of a job or of the scheduler as a whole: since when, until when, who asked for it, and why.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// What a client decides about a pause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PauseTerms {
    /// When it ends by itself; none if it lasts until it is resumed.
    pub until: Option<Timestamp>,
    /// Who asks for it.
    pub by: Option<String>,
    pub reason: Option<String>,
}

/// A pause, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub since: Timestamp,
    /// When it ends by itself.
    #[serde(
        default,
        with = "chrono::serde::ts_microseconds_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub until: Option<Timestamp>,
    /// Who asked for it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Pause {
    pub fn new(since: Timestamp, terms: PauseTerms) -> Self {
        let PauseTerms { until, by, reason } = terms;
        Self { since, until, by, reason }
    }

    /// This pause after another request to pause; `None` if that changes nothing. The end is that of the last request, and
    /// a reason stays if no other one is given.
    pub fn changed(&self, terms: PauseTerms) -> Option<Self> {
        let PauseTerms { until, by, reason } = terms;
        let reason = reason.or_else(|| self.reason.clone());
        if until == self.until && reason == self.reason {
            return None;
        }
        Some(Self { since: self.since, until, by, reason })
    }

    /// Whether it has ended by itself.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    pub fn to_stored(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a stored pause.
    pub fn from_stored(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn terms(until: Option<i64>, by: &str, reason: Option<&str>) -> PauseTerms {
        let (by, reason) = (Some(by.to_owned()), reason.map(str::to_owned));
        PauseTerms { until: until.map(at), by, reason }
    }

    #[test]
    fn the_last_request_decides_about_the_end_and_a_reason_stays_until_another_one_is_given() {
        let first = Pause::new(at(0), terms(Some(60), "ada", Some("disk")));
        assert_eq!(first.changed(terms(Some(60), "bob", None)), None);
        assert_eq!(first.changed(terms(Some(60), "bob", Some("disk"))), None);
        let longer = first.changed(terms(Some(90), "bob", None)).unwrap();
        assert_eq!(longer, Pause::new(at(0), terms(Some(90), "bob", Some("disk"))));
        let endless = first.changed(PauseTerms::default()).unwrap();
        assert_eq!((endless.until, endless.reason.as_deref()), (None, Some("disk")));
        let other = first.changed(terms(Some(60), "bob", Some("fan"))).unwrap();
        assert_eq!((other.since, other.reason.as_deref()), (at(0), Some("fan")));
    }

    #[test]
    fn a_pause_is_stored_and_read_as_it_was() {
        let pauses = [
            Pause::new(at(1), PauseTerms::default()),
            Pause::new(at(1), terms(Some(2), "a \"b\" (uid 1)", Some("é, \\"))),
        ];
        for pause in pauses {
            assert_eq!(Pause::from_stored(&pause.to_stored()), Some(pause));
        }
        for bad in ["", "7", "{}", "{\"since\":\"now\"}", "{\"since\":1,\"more\":2}"] {
            assert_eq!(Pause::from_stored(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_pause_is_over_at_its_end() {
        let pause = Pause::new(at(0), terms(Some(60), "ada", None));
        assert_eq!([59, 60].map(|second| pause.is_over(at(second))), [false, true]);
        assert!(!Pause::new(at(0), PauseTerms::default()).is_over(at(60)));
    }
}
