//! Phase 1 of a daemon's life: the configuration is checked as far as that is possible without the store. A start, a
//! reload, `punctual check` and `punctual migrate` use the same functions, so they judge a file in the same way.

use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::application::Application;
use super::file_jobs::{self, FileJobs};
use super::startup_error::unusable;
use crate::cli::CliError;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, ConfigError};
use crate::control::DeclaredFile;
use crate::executor::Privileges;
use crate::invalid::{self, Invalid};
use crate::job::admission::{Builtins, Rules};
use crate::store::sql::StoreUrl;
use crate::toutiao;

/// What a daemon is built from.
#[derive(Debug)]
pub(super) struct DaemonSettings {
    pub(super) config: Config,
    pub(super) application: Application,
    pub(super) rules: Rules,
    pub(super) store: StoreUrl,
    /// What `/v1/status` shows of the configuration file.
    pub(super) declared: DeclaredFile,
}

impl DaemonSettings {
    /// Checks a configuration and its jobs. `path` is the absolute path of its file.
    pub(super) fn check(config: Config, path: String) -> Result<Self, CliError> {
        let state = config::state_directory().map_err(|invalid| unusable(&invalid))?;
        let application = application(&config, &state, &Handle::current())?;
        let privileges = Privileges::of_this_process();
        let rules = rules(&config, Arc::new(application.registry.clone()), privileges)?;
        let store = store_place(&config, &state)?;
        let jobs = FileJobs::judge(&config, &rules, SystemClock.now())?;
        let (jobs, faults) = (jobs.count(), jobs.declaration().faults);
        let faults = file_jobs::status_faults(faults.into_iter(), &[]);
        let declared = DeclaredFile { path, source: rules.source.to_string(), jobs, faults };
        Ok(Self { config, application, rules, store, declared })
    }

    /// The jobs of the file, judged at the current time.
    pub(super) fn jobs(&self) -> Result<FileJobs, ConfigError> {
        FileJobs::judge(&self.config, &self.rules, SystemClock.now())
    }
}

/// The Toutiao application with the settings of the file, or its default settings if the file has none.
pub(super) fn application(
    config: &Config,
    state_directory: &Path,
    runtime: &Handle,
) -> Result<Application, ConfigError> {
    let fault = |invalid: Invalid| config.error(invalid.within("toutiao"));
    let settings = match &config.toutiao {
        None => toutiao::ToutiaoSettings::default(),
        Some(table) => {
            let settings: toutiao::ToutiaoSettings =
                invalid::read(table.0.clone()).map_err(fault)?;
            settings.check().map_err(fault)?;
            settings
        }
    };
    Application::new(settings, state_directory, Arc::new(SystemClock), runtime).map_err(fault)
}

/// The rules that jobs are judged by.
pub(super) fn rules(
    config: &Config,
    builtins: Arc<dyn Builtins>,
    privileges: Privileges,
) -> Result<Rules, ConfigError> {
    let privileges = privileges
        .running_as(config.default_user.clone())
        .map_err(|invalid| config.error(invalid.within("scheduler.default_user")))?
        .trusting(config.trusted_users.clone())
        .map_err(|Invalid { field, message }| {
            config.error(Invalid::new(format!("control.trusted_users{field}"), message))
        })?;
    Ok(Rules {
        zone: config.zone.clone(),
        defaults: config.job_defaults.clone(),
        executors: config.executors.clone(),
        max_crashes: config.max_crashes,
        builtins,
        source: config.source().into(),
        rights: Some(Arc::new(privileges)),
    })
}

/// The store that the file names.
pub(super) fn store_place(config: &Config, state: &Path) -> Result<StoreUrl, ConfigError> {
    store_at(&config.store_url.0, state).map_err(|invalid| config.error(invalid.within("store")))
}

/// The store of a URL. A relative path of a SQLite file is relative to the state directory.
pub(super) fn store_at(url: &str, state: &Path) -> Result<StoreUrl, Invalid> {
    Ok(match StoreUrl::parse(url)? {
        StoreUrl::Sqlite(path) => StoreUrl::Sqlite(state.join(path)),
        server @ StoreUrl::Server(_) => server,
    })
}
