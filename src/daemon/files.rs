//! The configuration and what is made of it: the rules that jobs are judged by, and the jobs that
//! the file declares. `serve`, `reload` and `check` read it the same way.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use crate::clock::Timestamp;
use crate::config::{Config, ConfigError, FaultyJob, default_file};
use crate::executor::Privileges;
use crate::invalid::{self, Invalid};
use crate::job::{Job, JobId, JobState, Origin};
use crate::scheduler::admission::Rules;
use crate::scheduler::declare::Declaration;
use crate::scheduler::request::InvalidDeclaration;
use crate::store::sql::StoreUrl;
use crate::task::builtin::Registry;
use crate::toutiao;

/// The configuration of the demo, which the program carries.
const DEMO_TEXT: &str = include_str!("demo.toml");
/// Its name in errors.
const DEMO_NAME: &str = "the demo's configuration";

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A file.
    File(PathBuf),
    /// The configuration of the demo, which the program carries.
    Demo,
}

impl Source {
    /// The file that was named; else the demo's configuration, if a demo is asked for, or the default file.
    pub(super) fn find(file: Option<PathBuf>, demo: Demo) -> Self {
        match (file, demo) {
            (Some(file), _) => Self::File(file),
            (None, Demo::Yes) => Self::Demo,
            (None, Demo::No) => Self::File(default_file()),
        }
    }

    /// The file's name in messages.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(file) => file,
            Self::Demo => Path::new(DEMO_NAME),
        }
    }

    /// The file's absolute path, or the name of the demo's configuration.
    pub(super) fn shown(&self) -> String {
        let path = match self {
            Self::File(file) => std::path::absolute(file).unwrap_or_else(|_| file.clone()),
            Self::Demo => DEMO_NAME.into(),
        };
        path.display().to_string()
    }

    /// Reads and checks it.
    pub(super) fn load(&self) -> Result<Config, ConfigError> {
        match self {
            Self::File(file) => Config::load(file),
            Self::Demo => Config::parse(self.path(), DEMO_TEXT),
        }
    }
}

/// How long the configuration may take to be read and judged. A file on a network that is gone never answers.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// Reads the configuration on a thread of its own, so that nothing else waits for a file that does not answer.
#[derive(Debug)]
pub(super) struct Reader {
    source: Source,
    /// Taken by the thread that reads.
    place: Arc<Semaphore>,
}

impl Reader {
    /// Reads this configuration.
    pub(super) fn new(source: Source) -> Self {
        Self { source, place: Arc::new(Semaphore::new(1)) }
    }

    /// The file with its whole path, or what stands for it.
    pub(super) fn shown(&self) -> String {
        self.source.shown()
    }

    /// Loads the configuration and makes something of it.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        make: impl FnOnce(Config) -> Result<T, ConfigError> + Send + 'static,
    ) -> Result<T, ConfigError> {
        let failed = |why: String| ConfigError::of_file(self.source.path(), why);
        let Ok(place) = Arc::clone(&self.place).try_acquire_owned() else {
            return Err(failed("cannot be read: the read before has not ended yet".to_owned()));
        };
        let source = self.source.clone();
        let (tell, told) = oneshot::channel();
        let reading = move || {
            let result = source.load().and_then(make);
            drop(place);
            // Nobody may be waiting any more.
            drop(tell.send(result));
        };
        let started = std::thread::Builder::new().name("punctual-config".to_owned()).spawn(reading);
        started.map_err(|error| failed(format!("cannot be read: no thread: {error}")))?;
        match tokio::time::timeout(READ_LIMIT, told).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(failed("cannot be read: reading it broke off".to_owned())),
            Err(_) => {
                let seconds = READ_LIMIT.as_secs();
                Err(failed(format!("cannot be read: it did not answer within {seconds} s")))
            }
        }
    }
}

/// Whether sample data is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demo {
    Yes,
    No,
}

/// The settings of the Toutiao application; its defaults if the file has none.
pub(super) fn toutiao_settings(config: &Config) -> Result<toutiao::ToutiaoSettings, ConfigError> {
    let Some(value) = &config.toutiao else { return Ok(toutiao::ToutiaoSettings::default()) };
    let settings: toutiao::ToutiaoSettings = invalid::read(value.0.clone())
        .map_err(|invalid| config.error(invalid.within("toutiao")))?;
    settings.check().map_err(|invalid| config.error(invalid.within("toutiao")))?;
    Ok(settings)
}

/// What jobs are judged by.
pub(super) fn rules(
    config: &Config,
    registry: Registry,
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
        registry,
        source: config.source().into(),
        privileges: Some(privileges),
    })
}

/// Where the store is.
pub(super) fn store_place(config: &Config, state: &Path) -> Result<StoreUrl, ConfigError> {
    place_at(&config.store_url.0, state).map_err(|invalid| config.error(invalid.within("store")))
}

/// Where the store of a URL is. A file stands in the folder for what must outlive the daemon.
pub(super) fn place_at(url: &str, state: &Path) -> Result<StoreUrl, Invalid> {
    Ok(match StoreUrl::parse(url)? {
        StoreUrl::Sqlite(path) => StoreUrl::Sqlite(state.join(path)),
        place @ (StoreUrl::Postgres(..) | StoreUrl::MySql(..)) => place,
    })
}

/// The declared jobs, judged one by one.
pub(super) fn declared_jobs(
    config: &Config,
    rules: &Rules,
    now: Timestamp,
) -> Result<Declared, ConfigError> {
    let of_defaults = |invalid: Invalid| config.error(invalid.within("scheduler.job_defaults"));
    rules.check_defaults().map_err(of_defaults)?;
    let mut declared = Declared { jobs: Vec::new(), faulty: config.faulty.clone() };
    for (number, definition) in &config.jobs {
        let id = definition.id.as_deref().map(JobId::parse).and_then(Result::ok);
        match rules.admit(definition.clone(), Origin::File, now) {
            Ok(job) => declared.jobs.push(job),
            Err(invalid) => {
                let error = config.job_error(*number, invalid);
                declared.faulty.push(FaultyJob { number: *number, id, error });
            }
        }
    }
    declared.faulty.sort_by_key(|job| job.number);
    Ok(declared)
}

/// The jobs of a file.
#[derive(Debug, Clone)]
pub(super) struct Declared {
    /// Those that are in order.
    pub(super) jobs: Vec<Job>,
    /// Those that are not, in the order of the file.
    pub(super) faulty: Vec<FaultyJob>,
}

impl Declared {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.jobs.len() + self.faulty.len()
    }

    /// What the scheduler is told. A job without an id of its own is called by its number.
    pub(super) fn declaration(self) -> Declaration {
        let has_nameless = self.faulty.iter().any(|job| job.id.is_none());
        let taken: BTreeSet<JobId> = self.jobs.iter().map(|job| job.id.clone()).collect();
        let fault = |FaultyJob { number, id, error }: FaultyJob| {
            let id = id.unwrap_or_else(|| JobId::stored(format!("jobs[{number}]")));
            InvalidDeclaration { id, reason: error.to_string() }
        };
        let faults = self.faulty.into_iter().map(fault).filter(|fault| !taken.contains(&fault.id));
        Declaration { faults: faults.collect(), jobs: self.jobs, has_nameless }
    }
}

/// The declared jobs that have no occurrence left, and why. A file that was right yesterday is not wrong because the last
/// day of a job is over: such a job is finished.
pub(super) fn over(jobs: &[Job], now: Timestamp) -> Vec<(JobId, String)> {
    let why = |job: &Job| Some((job.id.clone(), job.trigger.ended_reason(now)?));
    jobs.iter().filter(|job| job.state == JobState::Finished).filter_map(why).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_read_that_hangs_does_not_collect_others_behind_it() {
        let reader = Reader::new(Source::Demo);
        let (let_go, gate) = std::sync::mpsc::channel::<()>();
        let hanging = reader.read(move |_| Ok(gate.recv()));
        tokio::pin!(hanging);
        let given_up = tokio::time::timeout(Duration::from_millis(10), &mut hanging).await;
        assert!(given_up.is_err());
        let refused = reader.read(Ok).await.unwrap_err().to_string();
        assert!(refused.contains("the read before has not ended yet"), "{refused}");
        let_go.send(()).unwrap();
        assert!(hanging.await.unwrap().is_ok());
        assert!(reader.read(Ok).await.is_ok(), "its place is free again");
    }
}
