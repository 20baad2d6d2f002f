//! `punctual migrate`: creates the tables of a store or migrates them to this version, so that the daemon's database user
//! does not need the right to do so.

use std::process::ExitCode;

use serde_json::json;

use super::settings;
use super::startup_error::{refused, unusable};
use crate::cli::{CliError, ClientArguments, MigrateArguments};
use crate::config::{self, Config};
use crate::printable::escaped;
use crate::secret::Secret;
use crate::store::sql::{self, Schema, StoreUrl};

pub fn migrate(given: MigrateArguments, arguments: &ClientArguments) -> ExitCode {
    arguments.console().report(run(given, arguments))
}

fn run(given: MigrateArguments, arguments: &ClientArguments) -> Result<(), CliError> {
    let is_check = given.check;
    let place = existing(place(given)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| refused(&error))?;
    let schema =
        async { if is_check { sql::schema(&place).await } else { sql::migrate(&place).await } };
    let schema = runtime.block_on(schema).map_err(|error| refused(&error))?;
    let Schema { found, needed } = schema;
    let is_current = schema.is_current();
    let answer = json!({
        "store": place.to_string(), "found_version": found, "needed_version": needed,
        "changed": !is_check && !is_current,
    });
    arguments.console().show(&answer, |_| {
        let place = place.to_string();
        let message = match (is_current, is_check, found) {
            (true, _, _) => format!("nothing to do: {place} has schema version {needed}"),
            (false, true, 0) => format!("the tables of punctual do not exist: {place}"),
            (false, true, _) => {
                format!("{place} has schema version {found}, but version {needed} is needed")
            }
            (false, false, 0) => format!("created the tables, schema version {needed}: {place}"),
            (false, false, _) => {
                format!("migrated the schema from version {found} to {needed}: {place}")
            }
        };
        escaped(&message).into_owned()
    })?;
    if is_check && !is_current {
        return Err(CliError::Quiet("the schema is not current".to_owned()));
    }
    Ok(())
}

/// The place with the absolute path of its SQLite file, which must exist: a new file might be where no daemon looks for
/// it, or belong to a user whose files the daemon cannot write.
fn existing(place: StoreUrl) -> Result<StoreUrl, CliError> {
    let StoreUrl::Sqlite(path) = place else { return Ok(place) };
    let path = std::path::absolute(path).map_err(|error| refused(&error))?;
    let shown = path.display();
    let is_there = path.try_exists().map_err(|error| refused(&format!("{shown}: {error}")))?;
    if !is_there {
        return Err(refused(&format!(
            "there is no file {shown}: a daemon creates the file of its SQLite store when it starts (a relative path in \
             the URL is relative to STATE_DIRECTORY or, if that is not set, to the current folder)"
        )));
    }
    Ok(StoreUrl::Sqlite(path))
}

/// The database to migrate: that of a URL on the command line, else that of the configuration file.
fn place(given: MigrateArguments) -> Result<StoreUrl, CliError> {
    let state = config::state_directory().map_err(|invalid| unusable(&invalid))?;
    let url = match (given.url, given.url_file) {
        (Some(url), _) => Some(url),
        (None, Some(file)) => {
            let secret = Secret::File(file.to_string_lossy().into_owned());
            Some(secret.read().map_err(|error| unusable(&error))?)
        }
        (None, None) => None,
    };
    if let Some(url) = url {
        return settings::store_at(&url, &state).map_err(|invalid| unusable(&invalid));
    }
    let file = given.config.unwrap_or_else(config::default_file);
    let config = Config::load_beside_the_service(&file)?;
    if let Some((key, place)) = config.missing_secrets().iter().find(|(key, _)| key == "store.url")
    {
        return Err(unusable(&format!(
            "{key}: only the service has {place}: name the database with --url-file or PUNCTUAL_MIGRATE_URL, or run \
             this as root while the service runs"
        )));
    }
    Ok(settings::store_place(&config, &state)?)
}
