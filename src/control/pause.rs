//! The body of a request to pause: why, and until when.

use chrono::{SubsecRound, TimeDelta};
use serde::Deserialize;

use super::Api;
use super::audit::Caller;
use super::error::ApiError;
use super::request::optional;
use crate::clock::Timestamp;
use crate::instant::{Toward, is_in_calendar, parse_moment};
use crate::invalid::{Invalid, quoted};
use crate::job::PauseTerms;
use crate::zone::Zone;

/// Size limit of a reason in bytes.
const REASON_BYTES_MAX: usize = 1000;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseBody {
    reason: Option<String>,
    /// When the pause ends by itself.
    until: Option<String>,
    /// The same, in seconds from now.
    #[serde(rename = "for")]
    seconds: Option<f64>,
}

/// Reads the body, which may be absent. A time without an offset is in the daemon's zone.
pub(super) fn pause_terms(body: &[u8], api: &Api, caller: &Caller) -> Result<PauseTerms, ApiError> {
    let body: PauseBody = optional(body)?;
    let zone = api.rules.borrow().zone.zone.clone();
    let (reason, until) = body.checked(&zone, api.clock.now())?;
    Ok(PauseTerms { until, by: caller.name(), reason })
}

impl PauseBody {
    /// The reason and the end.
    fn checked(
        self,
        zone: &Zone,
        now: Timestamp,
    ) -> Result<(Option<String>, Option<Timestamp>), Invalid> {
        let until = match (self.until, self.seconds) {
            (Some(_), Some(_)) => {
                return Err(Invalid::new("for", "cannot be given together with until"));
            }
            (Some(text), None) => Some(end_at(&text, zone, now)?),
            (None, Some(seconds)) => Some(end_after(seconds, now)?),
            (None, None) => None,
        };
        if let Some(reason) = &self.reason {
            check_reason(reason)?;
        }
        Ok((self.reason, until))
    }
}

fn end_at(text: &str, zone: &Zone, now: Timestamp) -> Result<Timestamp, Invalid> {
    let refuse = |why: String| Invalid::new("until", why);
    let until = parse_moment(text, zone, now, Toward::Future).map_err(refuse)?;
    if until <= now {
        return Err(refuse(format!("must be in the future, and {} is not", quoted(text))));
    }
    Ok(until)
}

fn end_after(seconds: f64, now: Timestamp) -> Result<Timestamp, Invalid> {
    let refuse = |why: &str| Invalid::new("for", format!("{why}, not {seconds} seconds"));
    if seconds <= 0.0 {
        return Err(refuse("must be more than 0"));
    }
    let time = std::time::Duration::try_from_secs_f64(seconds).ok();
    let time = time.and_then(|time| TimeDelta::from_std(time).ok());
    let until = time.and_then(|time| now.checked_add_signed(time));
    let until = until.filter(|until| is_in_calendar(*until));
    let until = until.ok_or_else(|| refuse("must end before the year 10000"))?.trunc_subsecs(6);
    Some(until).filter(|until| *until > now).ok_or_else(|| refuse("must be at least a microsecond"))
}

fn check_reason(reason: &str) -> Result<(), Invalid> {
    let refuse = |why: String| Err(Invalid::new("reason", why));
    match reason {
        _ if reason.trim().is_empty() => refuse("must not be empty".to_owned()),
        _ if reason.len() > REASON_BYTES_MAX => {
            refuse(format!("has at most {REASON_BYTES_MAX} bytes, this one has {}", reason.len()))
        }
        _ if reason.chars().any(char::is_control) => {
            refuse("must have no control characters".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(body: &Value) -> Result<(Option<String>, Option<Timestamp>), String> {
        let now = Timestamp::from_timestamp(1_800_000_000, 0).unwrap();
        let body: PauseBody = serde_json::from_value(body.clone()).map_err(|e| e.to_string())?;
        body.checked(&Zone::parse("+08:00").unwrap(), now).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn an_end_is_a_time_in_the_zone_of_the_daemon_or_a_number_of_seconds() {
        let until = |body| checked(&body).unwrap().1.map(crate::clock::rfc3339);
        let at = |text: &str| Some(format!("2027-01-15T{text}Z"));
        assert_eq!(until(json!({})), None);
        assert_eq!(until(json!({"until": null, "for": null})), None);
        assert_eq!(until(json!({"for": 90})), at("08:01:30.000000"));
        assert_eq!(until(json!({"for": 0.25})), at("08:00:00.250000"));
        assert_eq!(until(json!({"until": "2027-01-15T12:00:00Z"})), at("12:00:00.000000"));
        assert_eq!(until(json!({"until": "2027-01-15 17:00"})), at("09:00:00.000000"));
        assert_eq!(until(json!({"until": "17:00"})), at("09:00:00.000000"));
        assert_eq!(until(json!({"until": "+2h"})), at("10:00:00.000000"));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_the_field() {
        let cases = [
            (json!({"until": "soon"}), "until: "),
            (json!({"until": ""}), "until: "),
            (json!({"until": "2027-01-15T08:00:00Z"}), "until: must be in the future"),
            (json!({"until": "1999-01-01"}), "until: must be in the future"),
            (json!({"for": 0}), "for: must be more than 0"),
            (json!({"for": -1}), "for: must be more than 0"),
            (json!({"for": 1e-9}), "for: must be at least a microsecond"),
            (json!({"for": 1e300}), "for: must end before the year 10000"),
            (json!({"for": 1e12}), "for: must end before the year 10000"),
            (json!({"for": 1, "until": "17:00"}), "for: cannot be given together"),
            (json!({"reason": ""}), "reason: must not be empty"),
            (json!({"reason": "a\nb"}), "reason: must have no control characters"),
            (json!({"reason": "x".repeat(1001)}), "reason: has at most 1000 bytes"),
            (json!({"because": "x"}), "unknown field `because`"),
        ];
        for (body, message) in cases {
            let error = checked(&body).unwrap_err();
            assert!(error.starts_with(message), "{body}: {error}");
        }
    }
}
