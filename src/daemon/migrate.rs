//! `punctual migrate`: creates the tables of a store, or brings them to this version, so that the daemon's own user
//! needs no right to do so.

use std::process::ExitCode;

use serde_json::json;

use super::files;
use crate::cli::{CliError, ClientArguments, MigrateArguments};
use crate::config::{self, Config};
use crate::printable::escaped;
use crate::secret::Secret;
use crate::store::StoreError;
use crate::store::sql::{self, Schema, StoreUrl};

/// Migrates the database that the arguments name.
pub fn migrate(given: MigrateArguments, arguments: &ClientArguments) -> ExitCode {
    arguments.output().report(run(given, arguments))
}

fn run(given: MigrateArguments, arguments: &ClientArguments) -> Result<(), CliError> {
    let is_check = given.check;
    let place = to_be_found(place(given)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Refused(error.to_string()))?;
    let looked =
        async { if is_check { sql::schema(&place).await } else { sql::migrate(&place).await } };
    let failed = |error: StoreError| CliError::Refused(error.to_string());
    let schema = runtime.block_on(looked).map_err(failed)?;
    let Schema { found, needed } = schema;
    let is_current = schema.is_current();
    let answer = json!({
        "store": place.to_string(), "found_version": found, "needed_version": needed,
        "changed": !is_check && !is_current,
    });
    arguments.output().show(&answer, |_| {
        let place = place.to_string();
        let told = match (is_current, is_check, found) {
            (true, _, _) => format!("nothing to do: {place} has schema version {needed}"),
            (false, true, 0) => format!("the tables of punctual are not there: {place}"),
            (false, true, _) => {
                format!("{place} has schema version {found}, and {needed} is needed")
            }
            (false, false, 0) => format!("created the tables, schema version {needed}: {place}"),
            (false, false, _) => {
                format!("brought the schema from version {found} to {needed}: {place}")
            }
        };
        escaped(&told).into_owned()
    })?;
    if is_check && !is_current {
        return Err(CliError::Quiet("the schema is not current".to_owned()));
    }
    Ok(())
}

/// The place with the whole path of its file, which has to be there: tables that are made where no daemon looks for them
/// help nobody, and a daemon cannot write to a file of another user.
fn to_be_found(place: StoreUrl) -> Result<StoreUrl, CliError> {
    let StoreUrl::Sqlite(path) = place else { return Ok(place) };
    let refuse = |why: String| CliError::Refused(why);
    let path = std::path::absolute(path).map_err(|error| refuse(error.to_string()))?;
    let shown = path.display();
    let is_there = path.try_exists().map_err(|error| refuse(format!("{shown}: {error}")))?;
    if !is_there {
        return Err(refuse(format!(
            "there is no file {shown}: a daemon makes the file of its SQLite store when it starts (a relative path in \
             the URL is taken from STATE_DIRECTORY or, where that is not set, from the current folder)"
        )));
    }
    Ok(StoreUrl::Sqlite(path))
}

/// The database to migrate: from a URL on the command line, else from the configuration file.
fn place(given: MigrateArguments) -> Result<StoreUrl, CliError> {
    let usage = |error: String| CliError::Usage(error);
    let state = config::state_directory().map_err(|invalid| usage(invalid.to_string()))?;
    let url = match (given.url, given.url_file) {
        (Some(url), _) => Some(url),
        (None, Some(file)) => {
            let secret = Secret::File(file.to_string_lossy().into_owned());
            Some(secret.read().map_err(|error| usage(error.to_string()))?)
        }
        (None, None) => None,
    };
    if let Some(url) = url {
        return files::place_at(&url, &state).map_err(|invalid| usage(invalid.to_string()));
    }
    let file = given.config.unwrap_or_else(config::default_file);
    let config = Config::load_beside_the_service(&file)?;
    if let Some((key, place)) = config.missing_secrets().iter().find(|(key, _)| key == "store.url")
    {
        return Err(usage(format!(
            "{key}: only the service has {place}: name the database with --url-file or PUNCTUAL_MIGRATE_URL, or run \
             this as root while the service runs"
        )));
    }
    Ok(files::store_place(&config, &state)?)
}
