//! Times that depend on the present, such as `tomorrow 10:00`. The command line makes them absolute, so that the daemon
//! and the store never see them.

use std::time::Duration;

use serde_json::Value;

use super::error::CliError;
use crate::client::{Client, ClientError};
use crate::clock::{Timestamp, rfc3339};
use crate::instant::{Toward, is_relative, parse_moment};
use crate::zone::Zone;

/// The time limit for asking a daemon for its zone where another zone would do.
const ZONE_TIMEOUT: Duration = Duration::from_secs(2);

/// What turns a time that depends on the present into an absolute one.
#[derive(Debug)]
pub(super) struct TimeContext {
    pub(super) now: Timestamp,
    /// The zone of a time of day.
    pub(super) zone: Zone,
}

impl TimeContext {
    /// The context of times that were given. Those that name no zone are in `zone`, if there is one, else in the daemon's,
    /// which is asked for it only if a time depends on it.
    pub(super) async fn of_times<'t>(
        client: &Client,
        zone: Option<Zone>,
        mut times: impl Iterator<Item = (&'static str, &'t mut String)>,
        now: Timestamp,
    ) -> Result<Self, CliError> {
        let is_needed = times.any(|(_, text)| is_relative(text, Toward::Future));
        let zone = match zone {
            Some(zone) => zone,
            None if is_needed => daemon_zone(client).await?,
            None => Zone::utc(),
        };
        Ok(Self { now, zone })
    }

    /// Makes times absolute that depend on the present. Others are sent as they were typed, and what is no time is left
    /// for the daemon to refuse, by the name of the field.
    pub(super) fn resolve<'t>(
        &self,
        times: impl Iterator<Item = (&'static str, &'t mut String)>,
    ) -> Result<(), CliError> {
        for (option, text) in times.filter(|(_, text)| is_relative(text, Toward::Future)) {
            let at = parse_moment(text, &self.zone, self.now, Toward::Future);
            let at = at.map_err(|why| CliError::Usage(format!("{option}: {why}")))?;
            *text = rfc3339(at);
        }
        Ok(())
    }
}

/// The daemon's zone, which is that of triggers that name none.
pub(super) async fn daemon_zone(client: &Client) -> Result<Zone, ClientError> {
    zone_of(&client.status().await?)
}

/// The daemon's zone, if a daemon is there and answers soon.
pub(super) async fn daemon_zone_if_reachable(client: Option<&Client>) -> Option<Zone> {
    tokio::time::timeout(ZONE_TIMEOUT, daemon_zone(client?)).await.ok()?.ok()
}

/// The zone that an answer names as its `timezone`.
pub(super) fn zone_of(answer: &Value) -> Result<Zone, ClientError> {
    let name = answer.get("timezone").and_then(Value::as_str).unwrap_or_default();
    Zone::parse(name).map_err(|invalid| ClientError::Unreadable(invalid.to_string()))
}
