//! In which zone people see a time: that of the job that it belongs to, else the daemon's. It is named with the time.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::time_context::daemon_zone;
use crate::client::{Client, ClientError};
use crate::clock::Timestamp;
use crate::zone::Zone;

/// The zones of the jobs that an answer speaks of.
#[derive(Debug)]
pub(super) struct Zones {
    jobs: BTreeMap<String, Zone>,
    /// Of what belongs to no job, or to one that is gone.
    other: Zone,
}

impl Zones {
    /// The zone of a job that was answered.
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

    /// The zone of what a run or a row tells.
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

/// An instant as a zone's clock shows it, with the zone.
pub(super) fn local(at: Timestamp, zone: &Zone) -> String {
    format!("{}{}", zone.to_fixed(at).format("%Y-%m-%d %H:%M:%S %:z"), name_after(zone))
}

/// The same, to the millisecond.
pub(super) fn local_millis(at: Timestamp, zone: &Zone) -> String {
    format!("{}{}", zone.to_fixed(at).format("%Y-%m-%d %H:%M:%S%.3f %:z"), name_after(zone))
}

/// The zone's name after its offset, unless the offset is its name.
fn name_after(zone: &Zone) -> String {
    let name = zone.name();
    if name.starts_with(['+', '-']) { String::new() } else { format!(" {name}") }
}
