//! What a name on the command line means that can be a job or a run. A run can be named by a part of its id, and such a part
//! may look like the id of a job: then the job is meant.

use serde_json::Value;

use super::error::CliError;
use crate::client::{Client, ClientError, percent_encode};
use crate::run::RunId;

/// What a name means.
#[derive(Debug)]
pub(super) enum Named {
    Run(Value),
    /// A job, also if there is none or not any more.
    Job,
}

/// Finds out what a name means.
pub(super) async fn named(client: &Client, name: &str) -> Result<Named, CliError> {
    let is_whole = RunId::parse(name).is_some();
    if !is_whole && (!RunId::is_part(name) || is_job(client, name).await?) {
        return Ok(Named::Job);
    }
    match client.run_by_id(name).await {
        Ok(run) => Ok(Named::Run(run)),
        Err(error) if error.is_not_found() => Ok(Named::Job),
        Err(error) => Err(error.into()),
    }
}

/// Whether there is a job of this id, or runs of one: those outlive their job.
async fn is_job(client: &Client, id: &str) -> Result<bool, ClientError> {
    match client.job(id).await {
        Ok(_) => return Ok(true),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let page = client.runs(&format!("limit=1&job={}", percent_encode(id))).await?;
    Ok(page.pointer("/runs/0").is_some())
}

/// Refuses an id that no job has and of which there are no runs.
pub(super) async fn check_known(client: &Client, id: &str) -> Result<(), CliError> {
    if is_job(client, id).await? {
        return Ok(());
    }
    Err(CliError::NotFound(format!("there is no job and no run \"{id}\"")))
}
