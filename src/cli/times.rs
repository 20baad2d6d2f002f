//! How people see times: in the zone of the job that they belong to, else in the daemon's, with its name; and how far
//! they are from now.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use serde_json::Value;

use super::time_context::daemon_zone;
use crate::client::{Client, ClientError};
use crate::clock::{Timestamp, duration_words};
use crate::zone::Zone;

/// The zones of the jobs in an answer.
#[derive(Debug)]
pub(super) struct Zones {
    jobs: BTreeMap<String, Zone>,
    /// The zone for everything else: what belongs to no job, or to one that was removed.
    other: Zone,
}

impl Zones {
    /// The zone of a job.
    pub(super) async fn of_job(client: &Client, job: &Value) -> Result<Self, ClientError> {
        let other = match zone_of_job(job) {
            Some(zone) => zone,
            None => daemon_zone(client).await?,
        };
        Ok(Self { jobs: BTreeMap::new(), other })
    }

    /// The zones of the jobs that these runs belong to.
    pub(super) async fn of_runs(
        client: &Client,
        runs: impl IntoIterator<Item = &Value>,
    ) -> Result<Self, ClientError> {
        let ids = runs.into_iter().filter_map(|run| run.get("job_id")?.as_str());
        let ids: BTreeSet<&str> = ids.collect();
        let mut jobs = BTreeMap::new();
        for id in &ids {
            match client.job(id).await {
                Ok(job) => {
                    zone_of_job(&job).and_then(|zone| jobs.insert((*id).to_owned(), zone));
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        // The daemon is asked only for what some job does not say.
        let is_complete = jobs.len() == ids.len();
        let other = if is_complete { Zone::utc() } else { daemon_zone(client).await? };
        Ok(Self { jobs, other })
    }

    /// The zone of a run, or of a job itself.
    pub(super) fn of(&self, run: &Value) -> &Zone {
        let id = run.get("job_id").and_then(Value::as_str);
        id.and_then(|id| self.jobs.get(id)).unwrap_or(&self.other)
    }
}

/// The zone of a job's trigger. A trigger that cannot be read has none.
pub(super) fn zone_of_job(job: &Value) -> Option<Zone> {
    let name = job.pointer("/trigger/timezone").and_then(Value::as_str);
    name.and_then(|name| Zone::parse(name).ok())
}

/// Reads an instant of an answer.
pub(super) fn instant(value: &Value, key: &str) -> Option<Timestamp> {
    value.get(key)?.as_str()?.parse().ok()
}

/// An instant as the zone's clock shows it, with the offset and name of the zone.
pub(super) fn local(at: Timestamp, zone: &Zone) -> String {
    format!("{}{}", zone.to_fixed(at).format("%Y-%m-%d %H:%M:%S %:z"), name_after(zone))
}

/// As [`local`], with milliseconds.
pub(super) fn local_millis(at: Timestamp, zone: &Zone) -> String {
    format!("{}{}", zone.to_fixed(at).format("%Y-%m-%d %H:%M:%S%.3f %:z"), name_after(zone))
}

/// The zone's name after its offset, unless the offset is its name.
fn name_after(zone: &Zone) -> String {
    let name = zone.name();
    if name.starts_with(['+', '-']) { String::new() } else { format!(" {name}") }
}

/// How far an instant is from now: `in 2m 5s`, `3h 1m ago`.
pub(super) fn relative(at: Timestamp, now: Timestamp) -> String {
    let distance = at.signed_duration_since(now);
    if distance >= TimeDelta::zero() {
        format!("in {}", duration_words(distance))
    } else {
        format!("{} ago", duration_words(distance))
    }
}
