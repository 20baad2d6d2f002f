//! The present as the command line knows it: it turns times that depend on it, such as `tomorrow
//! 10:00`, into absolute ones, so that the daemon and the store only ever see those.

use std::time::Duration;

use serde_json::Value;

use super::CliError;
use super::arguments::{AddArguments, TriggerArguments};
use crate::client::{Client, ClientError};
use crate::clock::{Timestamp, rfc3339};
use crate::instant::{Toward, is_relative, parse_moment};
use crate::zone::Zone;

/// How long a daemon may take to tell its zone where it is only asked for convenience.
const ZONE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a time that depends on the present is read with.
#[derive(Debug)]
pub(super) struct TimeContext {
    pub(super) now: Timestamp,
    /// The zone of a time of day.
    pub(super) zone: Zone,
}

impl TimeContext {
    /// The present for a new job. The daemon is asked for its zone only if a time depends on it.
    pub(super) async fn of_job(
        client: &Client,
        given: &AddArguments,
        now: Timestamp,
    ) -> Result<Self, CliError> {
        let when = &given.when;
        let times = [&when.at, &when.start, &when.end, &given.next_run_time];
        let is_needed = times.into_iter().flatten().any(|text| is_relative(text, Toward::Future));
        let zone = match zone_given(when)? {
            Some(zone) => zone,
            None if is_needed => daemon_zone(client).await?,
            None => Zone::utc(),
        };
        Ok(Self { now, zone })
    }

    /// A time as it is sent: as it was typed, unless it depends on the present. What is no time is left for the
    /// daemon to refuse, by the field's name.
    pub(super) fn time(&self, option: &str, text: Option<&str>) -> Result<Option<Value>, CliError> {
        let Some(text) = text else { return Ok(None) };
        if !is_relative(text, Toward::Future) {
            return Ok(Some(text.into()));
        }
        let at = parse_moment(text, &self.zone, self.now, Toward::Future);
        let at = at.map_err(|why| CliError::Usage(format!("{option}: {why}")))?;
        Ok(Some(rfc3339(at).into()))
    }
}

/// The zone that a trigger names, if it names one.
pub(super) fn zone_given(given: &TriggerArguments) -> Result<Option<Zone>, CliError> {
    let json = given.trigger.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let of_json = json.as_ref().and_then(|trigger| trigger.get("timezone")?.as_str());
    let name = given.timezone.as_deref().or(of_json);
    let zone = name.map(Zone::parse).transpose();
    zone.map_err(|invalid| CliError::Usage(invalid.to_string()))
}

/// The zone of triggers that name none.
pub(super) async fn daemon_zone(client: &Client) -> Result<Zone, ClientError> {
    zone_of(&client.status().await?)
}

/// The same, if a daemon is there and answers soon.
pub(super) async fn daemon_zone_if_reachable(client: Option<&Client>) -> Option<Zone> {
    tokio::time::timeout(ZONE_TIMEOUT, daemon_zone(client?)).await.ok()?.ok()
}

/// The zone that an answer names as its `timezone`.
pub(super) fn zone_of(answer: &Value) -> Result<Zone, ClientError> {
    let name = answer.get("timezone").and_then(Value::as_str).unwrap_or_default();
    Zone::parse(name).map_err(|invalid| ClientError::Unreadable(invalid.to_string()))
}
