//! `jobs.toml`: the settings of a daemon and the jobs that it declares.
//!
//! The file is read once into JSON, with the place of every key kept aside. It is then checked by
//! the same code as what comes over the socket, and a fault's field leads back to file, line and
//! key. Nothing is taken from a file that has a fault, unless that is the fault of one job: then the
//! caller decides what becomes of the others.

mod jobs;
mod mail;
mod place;
mod retention;
mod secrets;
mod socket;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::TimeDelta;

use serde::Deserialize;
use serde_json::Value;

use crate::executor::{ExecutorKind, MailSettings, PoolSettings, WORKERS_MAX};
use crate::file;
use crate::invalid::{self, Invalid};
use crate::job::{Definition, PolicyInput};
use crate::secret::Text;
use crate::zone::{DefaultZone, Zone};
use mail::MailTable;
use place::Places;
use retention::RetentionTable;

use secrets::{Reader, Secrets};

pub use jobs::FaultyJob;
pub use retention::{Budget, Keep, KeepFinished, Retention};
pub use secrets::Hidden;
pub use socket::{ClientSocket, client_socket, is_service_installed};

/// The file in the current folder.
const LOCAL_FILE: &str = "jobs.toml";
/// The file of the machine, which the systemd unit uses.
const SYSTEM_FILE: &str = "/etc/punctual/jobs.toml";
/// A file in the folder for what must outlive the daemon.
const DEFAULT_STORE_URL: &str = "sqlite://punctual.db";
/// How long running work may go on after the daemon was asked to end; the systemd unit waits a little longer.
const DRAIN_SECONDS: u32 = 30;
/// Longest drain, in seconds: an hour.
const DRAIN_SECONDS_MAX: u32 = 3600;
/// Deaths of the daemon during one run after which that run is lost: it may be what kills the daemon.
const MAX_CRASHES: u32 = 3;
const MAX_CRASHES_RANGE: RangeInclusive<u32> = 1..=1000;
/// How long a node may be silent: ten signs of life.
const LEASE_SECONDS: u32 = 10;
/// Below three signs of life a busy machine would be taken for a dead one.
const LEASE_SECONDS_RANGE: RangeInclusive<u32> = 3..=3600;
/// Bytes of the file: more than ten thousand jobs.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes of the name of a source: that of the longest path.
const SOURCE_BYTES_MAX: usize = 4096;
/// Who may use the socket: its owner and its group.
const SOCKET_MODE: u32 = 0o660;

/// The file of a daemon that is given none: `jobs.toml` in the current folder, or `/etc/punctual/jobs.toml` if only that
/// one is there. A file that is there and cannot be read is not passed over.
pub fn default_file() -> PathBuf {
    let is_missing = |file: &str| {
        std::fs::symlink_metadata(file).is_err_and(|error| error.kind() == ErrorKind::NotFound)
    };
    let is_system = is_missing(LOCAL_FILE) && !is_missing(SYSTEM_FILE);
    PathBuf::from(if is_system { SYSTEM_FILE } else { LOCAL_FILE })
}

/// A fault in the file, and its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.line())]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Line and column, from 1, where they are known.
    pub place: Option<(usize, usize)>,
    /// What is wrong, and in which key.
    pub invalid: Invalid,
}

impl ConfigError {
    /// A fault of the file as a whole.
    pub fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), place: None, invalid: Invalid::new("", message) }
    }

    fn line(&self) -> String {
        let file = self.file.display();
        match self.place {
            Some((line, column)) => format!("{file}:{line}:{column}: {}", self.invalid),
            None => format!("{file}: {}", self.invalid),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
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
}

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// The zone of triggers that name none, and where it was found.
    pub zone: DefaultZone,
    /// Policies of jobs that give none.
    pub job_defaults: PolicyInput,
    /// How long running work may go on after the daemon was asked to end.
    pub drain_limit: Duration,
    /// The user of commands that name none; none for the daemon's own.
    pub default_user: Option<String>,
    /// Deaths of the daemon during one run after which that run is lost.
    pub max_crashes: u32,
    /// The store's URL.
    pub store_url: Hidden<String>,
    /// How long a node of a shared store may be silent before others take over what it holds.
    pub lease: TimeDelta,
    /// The pools.
    pub executors: BTreeMap<String, PoolSettings>,
    /// The control socket, if the file names one.
    socket: Option<PathBuf>,
    /// Its mode.
    pub socket_mode: u32,
    /// Users who may, as root may, have a daemon with root's rights run commands as any user.
    pub trusted_users: Vec<String>,
    /// What is kept of the ledger.
    pub retention: Retention,
    /// The server that takes mails.
    pub mail: MailSettings,
    /// The table of the Toutiao application, if there is one.
    pub toutiao: Option<Hidden<Value>>,
    /// The declared jobs that can be read, each with its number in the file.
    pub jobs: Vec<(usize, Definition)>,
    /// Those that cannot.
    pub faulty: Vec<FaultyJob>,
    /// The source of its jobs, if the file names one.
    source: Option<String>,
    secrets: Secrets,
    places: Places,
}

impl Config {
    /// Reads and checks a file.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(file, &text_of(file)?)
    }

    /// The same, for a command that may lack secrets which only the service has.
    pub fn load_beside_the_service(file: &Path) -> Result<Self, ConfigError> {
        Self::parse_by(Reader::Command, file, &text_of(file)?)
    }

    /// Checks the text of a file.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::parse_by(Reader::Service, file, text)
    }

    fn parse_by(reader: Reader, file: &Path, text: &str) -> Result<Self, ConfigError> {
        // As TOML allows: a line of a script must not end in a carriage return because the file was written elsewhere.
        let (value, places) = place::read(file, &text.replace("\r\n", "\n"))?;
        let fault = |invalid: Invalid| places.error(invalid);
        let (of_jobs, of_file) = jobs::sort_out(&places.unusable);
        if let Some(invalid) = of_file {
            return Err(fault(invalid));
        }
        let mut given: File = invalid::read(value).map_err(fault)?;
        let (jobs, faulty) = jobs::read(std::mem::take(&mut given.jobs), of_jobs);
        let mut config = settings(given, Secrets::read_by(reader)).map_err(fault)?;
        config.jobs = jobs;
        config.places = places;
        config.faulty = faulty
            .into_iter()
            .map(|jobs::Faulty { number, id, invalid }| FaultyJob {
                number,
                id,
                error: config.job_error(number, invalid),
            })
            .collect();
        Ok(config)
    }

    /// The source of the jobs that it declares: what the file says, else the file's absolute path. Links are not
    /// followed: a file that is replaced by changing a link stays the same source.
    pub fn source(&self) -> String {
        let path = self.places.file();
        let path = || std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        self.source.clone().unwrap_or_else(|| path().display().to_string())
    }

    /// Whether the file itself says what its source is.
    pub fn names_source(&self) -> bool {
        self.source.is_some()
    }

    /// The place of a fault that was found in a checked file later on, such as an unknown builtin.
    pub fn error(&self, invalid: Invalid) -> ConfigError {
        self.places.error(self.secrets.hidden_in(invalid))
    }

    /// Variables of the environment in which the file's secrets are, and which are nobody else's business.
    pub fn secret_variables(&self) -> &[String] {
        self.secrets.variables()
    }

    /// The keys of secrets that only the service has, each with where it is. What they hold was not checked.
    pub fn missing_secrets(&self) -> &[(String, String)] {
        self.secrets.missing()
    }

    /// Names of the tables that differ in `new` and that a running daemon cannot change.
    pub fn restart_needed(&self, new: &Self) -> Vec<String> {
        let tables = [
            ("scheduler.drain_seconds", self.drain_limit == new.drain_limit),
            ("scheduler.default_user", self.default_user == new.default_user),
            ("store", self.store_url == new.store_url && self.lease == new.lease),
            ("control", self.socket == new.socket && self.socket_mode == new.socket_mode),
            ("toutiao", self.toutiao == new.toutiao),
        ];
        tables.into_iter().filter(|(_, same)| !same).map(|(name, _)| name.to_owned()).collect()
    }

    /// The pools of a running daemon once it has read this: sizes change, and pools come. One that is gone, or of
    /// another type, stays until the next start.
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

    /// The place of a fault in the declared job of that number.
    pub fn job_error(&self, number: usize, invalid: Invalid) -> ConfigError {
        self.error(invalid.within(&format!("jobs[{number}]")))
    }
}

fn text_of(file: &Path) -> Result<String, ConfigError> {
    file::read_text(file, FILE_BYTES_MAX)
        .map_err(|why| ConfigError::of_file(file, format!("cannot be read: {why}")))
}

fn settings(given: File, mut secrets: Secrets) -> Result<Config, Invalid> {
    let zone = zone(given.scheduler.timezone.as_deref())?;
    let defaults = given.scheduler.job_defaults;
    defaults
        .complete(&PolicyInput::default())
        .map_err(|invalid| invalid.within("scheduler.job_defaults"))?;
    let drain_seconds = given.scheduler.drain_seconds.unwrap_or(DRAIN_SECONDS);
    if drain_seconds > DRAIN_SECONDS_MAX {
        return Err(Invalid::new(
            "scheduler.drain_seconds",
            format!("at most {DRAIN_SECONDS_MAX}"),
        ));
    }
    let max_crashes = given.scheduler.max_crashes.unwrap_or(MAX_CRASHES);
    if !MAX_CRASHES_RANGE.contains(&max_crashes) {
        let (least, most) = (MAX_CRASHES_RANGE.start(), MAX_CRASHES_RANGE.end());
        let message = format!("must be between {least} and {most}");
        return Err(Invalid::new("scheduler.max_crashes", message));
    }
    let lease_seconds = given.store.lease_seconds.unwrap_or(LEASE_SECONDS);
    if !LEASE_SECONDS_RANGE.contains(&lease_seconds) {
        let (least, most) = (LEASE_SECONDS_RANGE.start(), LEASE_SECONDS_RANGE.end());
        let message = format!("must be between {least} and {most}");
        return Err(Invalid::new("store.lease_seconds", message));
    }
    let store_url = given.store.url.unwrap_or_else(|| DEFAULT_STORE_URL.into());
    let store_url = secrets.read("store.url", &store_url)?;
    let store_url = store_url.unwrap_or_else(|| DEFAULT_STORE_URL.to_owned());
    let mut toutiao = given.toutiao;
    toutiao.as_mut().map_or(Ok(()), |table| secrets.resolve("toutiao", table))?;
    if secrets.missing().iter().any(|(key, _)| key.starts_with("toutiao.")) {
        // It cannot be checked without its secrets.
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
        socket: given.control.socket,
        socket_mode: given.control.mode.as_deref().map_or(Ok(SOCKET_MODE), socket_mode)?,
        mail: given.mail.check(&mut secrets)?,
        trusted_users: given.control.trusted_users,
        retention: given.retention.check()?,
        toutiao: toutiao.map(Hidden),
        jobs: Vec::new(),
        faulty: Vec::new(),
        source: given.scheduler.source.map(source).transpose()?,
        secrets,
        places: Places::default(),
    })
}

fn source(text: String) -> Result<String, Invalid> {
    if text.is_empty() || text.len() > SOURCE_BYTES_MAX || text.chars().any(char::is_control) {
        let message = format!("must be 1 to {SOURCE_BYTES_MAX} bytes without control characters");
        return Err(Invalid::new("scheduler.source", message));
    }
    Ok(text)
}

/// The zone of triggers that name none: the one that is given, else the machine's.
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

/// The pools: those that are given, and `default` and `processpool` where they are not.
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
        let max_workers = table.max_workers.unwrap_or(10);
        if !(1..=WORKERS_MAX).contains(&max_workers) {
            let field = format!("executors.{name}.max_workers");
            return Err(Invalid::new(field, format!("must be between 1 and {WORKERS_MAX}")));
        }
        executors.insert(name, PoolSettings { kind: table.kind, max_workers });
    }
    Ok(executors)
}

fn socket_mode(text: &str) -> Result<u32, Invalid> {
    let refuse = || Invalid::new("control.mode", "must be an octal mode such as \"0660\"");
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(refuse)
}

/// The folder for what must outlive the daemon: systemd's, or where the daemon was started.
pub fn state_directory() -> Result<PathBuf, Invalid> {
    Ok(socket::usable_folder("STATE_DIRECTORY")?.unwrap_or_default())
}
