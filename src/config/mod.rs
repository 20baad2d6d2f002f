//! `jobs.toml`: the settings of a daemon and the jobs that it declares.
//!
//! The file is read once into JSON, and the position of every key is kept ([`key_positions`]). It is then checked by the
//! same code as requests on the control socket, and the field of a fault leads back to file, line and column. A file that
//! has a fault is refused as a whole, unless the fault is within one job: then that job is listed in [`Config::faulty`],
//! and the caller decides about the others.

mod bounded;
mod error;
mod jobs;
mod key_positions;
mod mail;
mod monitoring;
mod paths;
mod retention;
mod secrets;
mod socket;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::TimeDelta;
use serde::Deserialize;
use serde_json::Value;

use crate::executor::{ExecutorKind, MailSettings, PoolSettings, WORKERS_MAX};
use crate::file;
use crate::invalid::{self, Invalid};
use crate::job::{Definition, PolicyInput};
use crate::retention::RetentionPolicy;
use crate::secret::Text;
use crate::zone::{DefaultZone, Zone};
use bounded::Bounded;
use key_positions::KeyPositions;
use mail::MailTable;
use paths::FILE_BYTES_MAX;
use retention::RetentionTable;
use secrets::{SecretAccess, Secrets};

pub use error::ConfigError;
pub use jobs::FaultyJob;
pub use paths::{default_file, state_directory};
pub use secrets::Hidden;
pub use socket::{ClientSocket, client_socket, is_service_installed};

/// A file in the folder for files that must outlive the daemon.
const DEFAULT_STORE_URL: &str = "sqlite://punctual.db";
/// How long runs may go on after the daemon was asked to stop. The systemd unit waits a little longer.
const DRAIN_SECONDS: Bounded<u32> = Bounded { default: 30, min: 0, max: 3600 };
/// A run during which the daemon has died this often is lost, because the run may be the cause.
const MAX_CRASHES: Bounded<u32> = Bounded { default: 3, min: 1, max: 1000 };
/// How long a node may be silent. By default ten renewals fit in; with fewer than three, a busy machine would be taken for
/// a dead one.
const LEASE_SECONDS: Bounded<u32> = Bounded { default: 10, min: 3, max: 3600 };
const MAX_WORKERS: Bounded<usize> = Bounded { default: 10, min: 1, max: WORKERS_MAX };
/// Maximum length of the name of a source in bytes: that of the longest path.
const SOURCE_BYTES_MAX: usize = 4096;
/// The owner and the group of the socket may use it.
const SOCKET_MODE: u32 = 0o660;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    #[serde(default)]
    scheduler: SchedulerTable,
    #[serde(default)]
    store: StoreTable,
    #[serde(default)]
    executors: BTreeMap<String, ExecutorTable>,
    #[serde(default)]
    control: ControlTable,
    #[serde(default)]
    mail: MailTable,
    #[serde(default)]
    retention: RetentionTable,
    toutiao: Option<Value>,
    #[serde(default)]
    jobs: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SchedulerTable {
    timezone: Option<String>,
    #[serde(default)]
    job_defaults: PolicyInput,
    drain_seconds: Option<u32>,
    default_user: Option<String>,
    max_crashes: Option<u32>,
    source: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreTable {
    url: Option<Text>,
    lease_seconds: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExecutorTable {
    #[serde(rename = "type")]
    kind: ExecutorKind,
    max_workers: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ControlTable {
    socket: Option<PathBuf>,
    mode: Option<String>,
    #[serde(default)]
    trusted_users: Vec<String>,
    metrics_listen: Option<String>,
    metrics_public: Option<bool>,
}

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// The zone of triggers that name none, and where the daemon found it.
    pub zone: DefaultZone,
    /// Policies of jobs that set none.
    pub job_defaults: PolicyInput,
    /// How long runs may go on after the daemon was asked to stop.
    pub drain_limit: Duration,
    /// The user of commands that name none; `None` for the daemon's own.
    pub default_user: Option<String>,
    /// A run during which the daemon has died this often is lost.
    pub max_crashes: u32,
    pub store_url: Hidden<String>,
    /// How long a node of a shared store may be silent before other nodes take over its jobs and runs.
    pub lease: TimeDelta,
    pub executors: BTreeMap<String, PoolSettings>,
    socket: Option<PathBuf>,
    pub socket_mode: u32,
    /// Users who, like root, may make a daemon of root run commands as any user.
    pub trusted_users: Vec<String>,
    /// The TCP address at which monitors may ask.
    pub metrics_listen: Option<SocketAddr>,
    pub retention: RetentionPolicy,
    pub mail: MailSettings,
    /// The table of the Toutiao application, if there is one.
    pub toutiao: Option<Hidden<Value>>,
    /// The declared jobs that could be read, each with its number in the file.
    pub jobs: Vec<(usize, Definition)>,
    /// The declared jobs that could not be read.
    pub faulty: Vec<FaultyJob>,
    source: Option<String>,
    secrets: Secrets,
    positions: KeyPositions,
}

impl Config {
    /// Reads and checks a file.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(file, &text_of(file)?)
    }

    /// Reads and checks a file for a command, which may be unable to read secrets that only the service can read.
    pub fn load_beside_the_service(file: &Path) -> Result<Self, ConfigError> {
        Self::parse_with(SecretAccess::Partial, file, &text_of(file)?)
    }

    /// Checks the text of a file.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::parse_with(SecretAccess::All, file, text)
    }

    fn parse_with(access: SecretAccess, file: &Path, text: &str) -> Result<Self, ConfigError> {
        // TOML allows this. Otherwise each line of a script would end in a carriage return if the file was written on
        // Windows.
        let (value, positions) = key_positions::read(file, &text.replace("\r\n", "\n"))?;
        let fault = |invalid: Invalid| positions.error(invalid);
        let (job_faults, file_fault) = jobs::faults_by_job(&positions.unusable);
        if let Some(invalid) = file_fault {
            return Err(fault(invalid));
        }
        let mut given: ConfigFile = invalid::read(value).map_err(fault)?;
        let jobs = std::mem::take(&mut given.jobs);
        let mut config = settings(given, Secrets::new(access)).map_err(fault)?;
        config.positions = positions;
        let locate = |number, invalid| config.job_error(number, invalid);
        let (jobs, faulty) = jobs::read(jobs, job_faults, locate);
        (config.jobs, config.faulty) = (jobs, faulty);
        Ok(config)
    }

    /// The source of the jobs that this file declares: the one that the file names, else the absolute path of the file.
    /// Symbolic links are not resolved, so a file that is deployed by changing a link stays the same source.
    pub fn source(&self) -> String {
        let path = &self.positions.file;
        let path = || std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        self.source.clone().unwrap_or_else(|| path().display().to_string())
    }

    /// True if the file names its source.
    pub fn names_source(&self) -> bool {
        self.source.is_some()
    }

    /// Where a client finds the daemon of this file, if the file names the socket.
    pub fn socket(&self) -> Option<ClientSocket> {
        Some(ClientSocket::new(self.socket.clone()?, None))
    }

    /// Where the daemon listens: at the chosen path, else where the file says, else in the runtime folder of the
    /// environment.
    pub fn listens_at(&self, chosen: Option<PathBuf>) -> Result<PathBuf, Invalid> {
        chosen.or_else(|| self.socket.clone()).map_or_else(socket::default_socket, Ok)
    }

    /// Adds the place in the file to a fault that was found later, such as an unknown builtin.
    pub fn error(&self, invalid: Invalid) -> ConfigError {
        self.positions.error(self.secrets.mask(invalid))
    }

    /// Adds the place in the file to a fault of the declared job with that number.
    pub fn job_error(&self, number: usize, invalid: Invalid) -> ConfigError {
        self.error(invalid.within(&format!("jobs[{number}]")))
    }

    /// The environment variables that hold the secrets of the file. No other process may see them.
    pub fn secret_variables(&self) -> &[String] {
        &self.secrets.variables
    }

    /// The secrets that only the service can read, which were not checked: the key, and a description of where the
    /// secret is.
    pub fn missing_secrets(&self) -> &[(String, String)] {
        &self.secrets.missing
    }

    /// Names of the tables that differ in `new` and that a running daemon cannot change.
    pub fn restart_needed(&self, new: &Self) -> Vec<String> {
        let tables = [
            ("scheduler.drain_seconds", self.drain_limit == new.drain_limit),
            ("scheduler.default_user", self.default_user == new.default_user),
            ("store", self.store_url == new.store_url && self.lease == new.lease),
            (
                "control",
                self.socket == new.socket
                    && self.socket_mode == new.socket_mode
                    && self.metrics_listen == new.metrics_listen,
            ),
            ("toutiao", self.toutiao == new.toutiao),
        ];
        tables.into_iter().filter(|(_, same)| !same).map(|(name, _)| name.to_owned()).collect()
    }

    /// The pools of a running daemon after a reload of this configuration: pools may be resized and added. A pool that
    /// was removed, or whose type was changed, stays as it is until the next start.
    pub fn resized(
        &self,
        running: &BTreeMap<String, PoolSettings>,
    ) -> BTreeMap<String, PoolSettings> {
        let mut executors = self.executors.clone();
        for (name, settings) in running {
            let resized = executors.entry(name.clone()).or_insert(*settings);
            resized.kind = settings.kind;
        }
        executors
    }
}

fn text_of(file: &Path) -> Result<String, ConfigError> {
    file::read_text(file, FILE_BYTES_MAX)
        .map_err(|why| ConfigError::of_file(file, format!("cannot be read: {why}")))
}

fn settings(given: ConfigFile, mut secrets: Secrets) -> Result<Config, Invalid> {
    let zone = zone(given.scheduler.timezone.as_deref())?;
    let defaults = given.scheduler.job_defaults;
    defaults
        .complete(&PolicyInput::default())
        .map_err(|invalid| invalid.within("scheduler.job_defaults"))?;
    let drain_seconds =
        DRAIN_SECONDS.check("scheduler.drain_seconds", given.scheduler.drain_seconds)?;
    let max_crashes = MAX_CRASHES.check("scheduler.max_crashes", given.scheduler.max_crashes)?;
    let lease_seconds = LEASE_SECONDS.check("store.lease_seconds", given.store.lease_seconds)?;
    let ControlTable { socket, mode, trusted_users, metrics_listen, metrics_public } =
        given.control;
    let metrics_listen = monitoring::address(metrics_listen.as_deref(), metrics_public)?;
    let store_url = given.store.url.unwrap_or_else(|| DEFAULT_STORE_URL.into());
    let store_url = secrets.read("store.url", &store_url)?;
    let store_url = store_url.unwrap_or_else(|| DEFAULT_STORE_URL.to_owned());
    let mut toutiao = given.toutiao;
    toutiao.as_mut().map_or(Ok(()), |table| secrets.resolve("toutiao", table))?;
    if secrets.missing.iter().any(|(key, _)| key.starts_with("toutiao.")) {
        // The table cannot be checked without its secrets.
        toutiao = None;
    }
    Ok(Config {
        lease: TimeDelta::seconds(lease_seconds.into()),
        zone,
        job_defaults: defaults,
        drain_limit: Duration::from_secs(drain_seconds.into()),
        default_user: given.scheduler.default_user,
        max_crashes,
        store_url: Hidden(store_url),
        executors: executors(given.executors)?,
        socket,
        socket_mode: mode.as_deref().map_or(Ok(SOCKET_MODE), socket_mode)?,
        mail: given.mail.check(&mut secrets)?,
        trusted_users,
        metrics_listen,
        retention: given.retention.check()?,
        toutiao: toutiao.map(Hidden),
        jobs: Vec::new(),
        faulty: Vec::new(),
        source: given.scheduler.source.map(source).transpose()?,
        secrets,
        positions: KeyPositions::default(),
    })
}

fn source(text: String) -> Result<String, Invalid> {
    if text.is_empty() || text.len() > SOURCE_BYTES_MAX || text.chars().any(char::is_control) {
        let message = format!("must be 1 to {SOURCE_BYTES_MAX} bytes without control characters");
        return Err(Invalid::new("scheduler.source", message));
    }
    Ok(text)
}

/// The zone of triggers that name none: the given one, else the machine's.
fn zone(given: Option<&str>) -> Result<DefaultZone, Invalid> {
    let field = "scheduler.timezone";
    let machine = |invalid: Invalid| {
        let message = format!("is not given, and the machine's zone is not known: {invalid}");
        Invalid::new(field, message)
    };
    let Some(name) = given else { return DefaultZone::of_machine().map_err(machine) };
    Zone::check_source()?;
    let zone = Zone::parse(name).map_err(|invalid| Invalid::new(field, invalid.message))?;
    Ok(DefaultZone { zone, source: "[scheduler] timezone".to_owned() })
}

/// The given pools, and the pools `default` and `processpool`, which always exist.
fn executors(
    given: BTreeMap<String, ExecutorTable>,
) -> Result<BTreeMap<String, PoolSettings>, Invalid> {
    let mut executors = BTreeMap::from([
        ("default".to_owned(), PoolSettings { kind: ExecutorKind::ThreadPool, max_workers: 20 }),
        (
            "processpool".to_owned(),
            PoolSettings { kind: ExecutorKind::ProcessPool, max_workers: 5 },
        ),
    ]);
    for (name, table) in given {
        let key = format!("executors.{name}.max_workers");
        let max_workers = MAX_WORKERS.check(&key, table.max_workers)?;
        executors.insert(name, PoolSettings { kind: table.kind, max_workers });
    }
    Ok(executors)
}

fn socket_mode(text: &str) -> Result<u32, Invalid> {
    let refuse = || Invalid::new("control.mode", "must be an octal mode such as \"0660\"");
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(refuse)
}
