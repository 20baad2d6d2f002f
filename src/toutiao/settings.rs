//! The `[toutiao]` section of the configuration, and its checks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::metric::{Metric, READING_KEYS};
use crate::invalid::{Invalid, quoted};

/// The default database: a file in the state directory.
pub const DEFAULT_DATABASE_URL: &str = "sqlite://toutiao.db";

/// The scheme of the only supported kind of database.
const SQLITE_SCHEME: &str = "sqlite://";

/// The longest time that an order may wait for its payment: a day, as in the API.
const MAX_ORDER_MINUTES: u32 = 24 * 60;

/// The largest worker id, which has ten bits.
const MAX_WORKER_ID: u16 = 1023;

/// The `[toutiao]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ToutiaoSettings {
    /// The address of the HTTP API, such as `127.0.0.1:8000`. There is no API if it is absent.
    pub listen: Option<String>,
    /// Host names under which clients reach the API, such as `shop.example`, in addition to its address and `localhost`.
    /// Requests for other hosts, and from web pages of other hosts, are refused.
    pub hosts: Vec<String>,
    /// The URL of the database; [`DEFAULT_DATABASE_URL`] if it is absent.
    pub database_url: Option<String>,
    /// The Redis server that holds the counters. They are kept in a file if it is absent.
    pub redis: Option<RedisSettings>,
    /// Minutes after which an unpaid order expires; 30 by default.
    pub order_minutes: u32,
    /// The ten bits of this process in the ids that it generates: data centre and worker.
    pub worker_id: u16,
    /// Keys of counters that differ from the default, by the metric's name.
    pub keys: BTreeMap<String, String>,
}

impl Default for ToutiaoSettings {
    fn default() -> Self {
        Self {
            listen: None,
            hosts: Vec::new(),
            database_url: None,
            redis: None,
            order_minutes: 30,
            worker_id: 0,
            keys: BTreeMap::new(),
        }
    }
}

/// The `[toutiao.redis]` section.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisSettings {
    /// `redis://[user:password@]host[:port][/database]`.
    pub url: String,
}

impl std::fmt::Debug for RedisSettings {
    // The URL may contain a password, and settings may be logged.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.url.rsplit_once('@').map_or(self.url.as_str(), |(_, host)| host);
        formatter.debug_struct("RedisSettings").field("host", &host).finish_non_exhaustive()
    }
}

impl ToutiaoSettings {
    /// Checks every value; the error names the field.
    pub fn check(&self) -> Result<(), Invalid> {
        if let Some(listen) = &self.listen {
            check_address(listen)?;
        }
        if let Some(name) = self.hosts.iter().find(|name| !is_host_name(name)) {
            let message = format!("{} is not a host name, as in shop.example", quoted(name));
            return Err(Invalid::new("hosts", message));
        }
        self.database_path(Path::new(""))?;
        if let Some(redis) = &self.redis {
            check_redis_url(&redis.url)?;
        }
        if self.order_minutes == 0 || self.order_minutes > MAX_ORDER_MINUTES {
            return Err(Invalid::new("order_minutes", format!("must be 1 to {MAX_ORDER_MINUTES}")));
        }
        if self.worker_id > MAX_WORKER_ID {
            return Err(Invalid::new("worker_id", format!("must be 0 to {MAX_WORKER_ID}")));
        }
        self.check_keys()
    }

    /// The host names under which the API may be addressed: the configured ones, and the one that it listens on.
    pub fn host_names(&self) -> Vec<String> {
        let listen = self.listen.as_deref().and_then(|listen| listen.rsplit_once(':'));
        let listen = listen.map(|(host, _)| host.to_owned()).filter(|host| is_host_name(host));
        self.hosts.iter().cloned().chain(listen).collect()
    }

    /// The key of a metric's counters.
    pub fn key(&self, metric: Metric) -> &str {
        self.keys.get(metric.word()).map_or(metric.default_key(), String::as_str)
    }

    /// The file of the database. A relative path is relative to `state_dir`.
    pub(super) fn database_path(&self, state_dir: &Path) -> Result<PathBuf, Invalid> {
        let url = self.database_url.as_deref().unwrap_or(DEFAULT_DATABASE_URL);
        let refuse = |message: &str| Err(Invalid::new("database_url", message));
        let Some(path) = url.strip_prefix(SQLITE_SCHEME) else {
            return refuse("only sqlite:// is supported so far, as in sqlite://toutiao.db");
        };
        if path.is_empty() || path.ends_with('/') {
            return refuse("names no file, as in sqlite://toutiao.db");
        }
        if path.contains(['?', '#']) || path.starts_with(':') {
            return refuse("must be sqlite:// and the path of a file, and nothing more");
        }
        Ok(state_dir.join(path))
    }

    /// Two metrics under one key would undo each other at every repair. A repair of the readings would destroy them, because
    /// they are recorded nowhere else.
    fn check_keys(&self) -> Result<(), Invalid> {
        for (name, key) in &self.keys {
            let field = format!("keys.{name}");
            if Metric::parse(name).is_none() {
                let known = Metric::WORDS.join(", ");
                return Err(Invalid::new(field, format!("unknown metric (known: {known})")));
            }
            if key.is_empty() || key.len() > 255 {
                return Err(Invalid::new(field, "a key is 1 to 255 bytes"));
            }
            if READING_KEYS.contains(&key.as_str()) {
                return Err(Invalid::new(
                    field,
                    format!("\"{key}\" counts readings and must not be repaired"),
                ));
            }
        }
        let mut taken = BTreeSet::new();
        for metric in Metric::ALL {
            let key = self.key(metric);
            if !taken.insert(key) {
                let field = format!("keys.{}", metric.word());
                return Err(Invalid::new(
                    field,
                    format!("\"{key}\" is the key of another metric too"),
                ));
            }
        }
        Ok(())
    }
}

fn is_host_name(text: &str) -> bool {
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
    !text.is_empty() && text.len() <= 253 && text.chars().all(is_allowed)
}

fn check_address(listen: &str) -> Result<(), Invalid> {
    let good = listen
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if good {
        Ok(())
    } else {
        Err(Invalid::new("listen", "must be an address and a port, as in 127.0.0.1:8000"))
    }
}

fn check_redis_url(url: &str) -> Result<(), Invalid> {
    if !url.starts_with("redis://") {
        return Err(Invalid::new("redis.url", "must start with redis://"));
    }
    redis::Client::open(url)
        .map(|_| ())
        .map_err(|error| Invalid::new("redis.url", format!("cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_refusal_names_its_field() {
        let cases = [
            (json!({}), ""),
            (
                json!({"listen": "127.0.0.1:8000", "redis": {"url": "redis://u:secret@host:6379/1"}}),
                "",
            ),
            (
                json!({"database_url": "sqlite:///var/lib/punctual/toutiao.db", "worker_id": 1023}),
                "",
            ),
            (json!({"keys": {"user_followers": "count:user:fans"}}), ""),
            (json!({"hosts": ["shop.example", "localhost"]}), ""),
            (json!({"hosts": ["http://shop.example"]}), "hosts"),
            (json!({"hosts": ["shop.example:80"]}), "hosts"),
            (json!({"hosts": [""]}), "hosts"),
            (json!({"hosts": "shop.example"}), "hosts"),
            (json!({"listen": "8000"}), "listen"),
            (json!({"listen": "127.0.0.1:port"}), "listen"),
            (json!({"database_url": "postgres://host/toutiao"}), "database_url"),
            (json!({"database_url": "sqlite://"}), "database_url"),
            (json!({"database_url": "sqlite://:memory:"}), "database_url"),
            (json!({"redis": {"url": "rediss://host"}}), "redis.url"),
            (json!({"redis": {"url": "redis://"}}), "redis.url"),
            (json!({"order_minutes": 0}), "order_minutes"),
            (json!({"worker_id": 1024}), "worker_id"),
            (json!({"keys": {"user_fans": "x"}}), "keys.user_fans"),
            (json!({"keys": {"user_liked": ""}}), "keys.user_liked"),
            (json!({"keys": {"user_liked": "count:art:reading"}}), "keys.user_liked"),
            (json!({"keys": {"user_articles": "count:user:liked"}}), "keys.user_liked"),
            (json!({"port": 1}), "port"),
        ];
        for (value, field) in cases {
            let read = crate::invalid::read::<ToutiaoSettings>(value.clone())
                .and_then(|settings| settings.check());
            assert_eq!(
                read.err().map(|invalid| invalid.field).unwrap_or_default(),
                field,
                "{value}"
            );
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let redis = RedisSettings { url: "redis://user:secret@host:6379/".to_owned() };
        assert!(!format!("{redis:?}").contains("secret"));
    }
}
