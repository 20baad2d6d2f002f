//! `punctual modify` and `punctual reschedule`: changes of one job.

use serde_json::Value;

use super::console::Console;
use super::error::CliError;
use super::options::{ModifyOptions, RescheduleOptions};
use super::time_context::TimeContext;
use super::times::zone_of_job;
use super::view;
use crate::client::Client;
use crate::clock::Timestamp;

/// How often a change is made again because the job has changed meanwhile.
const TRIES_MAX: usize = 10;

pub(super) async fn modify(
    client: &Client,
    mut options: ModifyOptions,
    console: &Console,
    now: Timestamp,
) -> Result<(), CliError> {
    let id = options.id.clone();
    let (mut job, mut version) = client.job_with_version(&id).await?;
    // Another trigger is in a zone of its own; all else is in the zone of the job.
    let own_zone = zone_of_job(&job).filter(|_| !options.trigger.has_kind());
    let zone = options.trigger.zone()?.or(own_zone);
    let context = TimeContext::of_times(client, zone, options.times_mut(), now).await?;
    context.resolve(options.times_mut())?;
    for _ in 1..TRIES_MAX {
        match change(client, &options, (&job, version.as_str()), console, now).await {
            Err(CliError::Client(error)) if error.is_outdated() => {
                (job, version) = client.job_with_version(&id).await?;
            }
            result => return result,
        }
    }
    change(client, &options, (&job, version.as_str()), console, now).await
}

/// Changes this version of a job.
async fn change(
    client: &Client,
    options: &ModifyOptions,
    (job, version): (&Value, &str),
    console: &Console,
    now: Timestamp,
) -> Result<(), CliError> {
    let patch = options.patch(job)?;
    if options.dry_run {
        let dry_run = client.try_modify(&options.id, &patch, version).await?;
        return console.show(&dry_run, |dry_run| view::dry_run(dry_run, now));
    }
    let after = client.modify(&options.id, &patch, version).await?;
    console.show(&after, |after| view::modified(job, after, now))
}

pub(super) async fn reschedule(
    client: &Client,
    mut options: RescheduleOptions,
    console: &Console,
    now: Timestamp,
) -> Result<(), CliError> {
    let zone = options.trigger.zone()?;
    let times = options.trigger.times_mut();
    let context = TimeContext::of_times(client, zone, times, now).await?;
    context.resolve(options.trigger.times_mut())?;
    let RescheduleOptions { id, trigger, dry_run } = options;
    let trigger = trigger.to_json()?;
    if dry_run {
        let dry_run = client.try_reschedule(&id, &trigger).await?;
        return console.show(&dry_run, |dry_run| view::dry_run(dry_run, now));
    }
    let job = client.reschedule(&id, &trigger).await?;
    console.show(&job, |job| view::rescheduled(job, now))
}
