//! Clients of HTTP: one for each way of connecting, so that connections and what is known of certificates are shared.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Url};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_native_certs::ErrorKind;
use tokio::runtime::Handle;

use crate::clock::duration_words;
use crate::executor::blocking::Blocking;
use crate::executor::shortage::{Shortage, is_shortage};

/// Clients that are kept. Beyond that a new one is made for each call, with connections of its own.
const CLIENTS_MAX: usize = 16;
/// How long a connection is kept for the next call: less than the 5 seconds after which many servers close theirs, since
/// a call on a connection that is just being closed would fail.
const IDLE: Duration = Duration::from_secs(4);
/// Connections to one host that are kept for the next call.
const IDLE_CONNECTIONS: usize = 32;
/// What every call says of who calls.
const USER_AGENT: &str = concat!("punctual/", env!("CARGO_PKG_VERSION"));

/// How a call is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::executor) struct Way {
    /// How long there may be no connection.
    pub(in crate::executor) connect_timeout: Duration,
    /// Redirects that are followed.
    pub(in crate::executor) redirects: usize,
    /// Whether they may lead to another server: not where a secret would go there.
    pub(in crate::executor) stays: bool,
}

/// The clients, made when they are needed. Clones share them.
#[derive(Debug, Clone, Default)]
pub(in crate::executor) struct Clients {
    made: Arc<Mutex<Made>>,
    /// Reads secrets and certificates, and looks through processes.
    pub(in crate::executor) reading: Blocking,
    /// Looks names up.
    names: Blocking,
}

#[derive(Debug, Default)]
struct Made {
    by_way: BTreeMap<Way, Client>,
    /// What all of them do over TLS, once certificates have been read.
    tls: Option<ClientConfig>,
    /// What was wrong with the certificates when they were read last, so that it is logged once.
    faults: Vec<String>,
}

/// The certificates that calls trust, as they were read.
struct Roots {
    store: RootCertStore,
    /// What could not be read.
    faults: Vec<String>,
    /// What the system was short of, if that kept some from being read.
    shortage: Option<String>,
}

/// Why a call was not sent.
#[derive(Debug)]
pub(in crate::executor) enum Unsent {
    /// The system had no place for it.
    Shortage(Shortage),
    /// For another reason.
    Failed(String),
}

impl From<String> for Unsent {
    fn from(error: String) -> Self {
        Self::Failed(error)
    }
}

impl Unsent {
    /// The reason.
    pub(in crate::executor) fn into_text(self) -> String {
        match self {
            Self::Shortage(Shortage(why)) | Self::Failed(why) => why,
        }
    }
}

impl Clients {
    /// The client for this way. It reads the machine's certificates if they are not known yet, so this may block.
    pub(in crate::executor) fn get(&self, way: Way) -> Result<Client, Unsent> {
        let known = {
            let made = self.made();
            if let Some(client) = made.by_way.get(&way) {
                return Ok(client.clone());
            }
            made.tls.clone()
        };
        let (tls, is_kept) = match known {
            Some(tls) => (tls, true),
            None => self.read_certificates()?,
        };
        let client = client(way, tls, self.names.clone()).map_err(|error| {
            let why = innermost(&error);
            Unsent::Failed(format!("there is no client for HTTP: {why}"))
        })?;
        if is_kept {
            let mut made = self.made();
            if made.by_way.len() >= CLIENTS_MAX {
                made.by_way.clear();
            }
            made.by_way.insert(way, client.clone());
        }
        Ok(client)
    }

    /// Reads the machine's certificates, and says whether they are kept for the next calls. Otherwise the next call
    /// reads them again.
    fn read_certificates(&self) -> Result<(ClientConfig, bool), Unsent> {
        let Roots { store, faults, shortage } = roots();
        if let Some(why) = shortage {
            return Err(Unsent::Shortage(Shortage(format!("certificates cannot be read: {why}"))));
        }
        let tls =
            tls(store).map_err(|error| Unsent::Failed(format!("there is no TLS: {error}")))?;
        let mut made = self.made();
        if made.faults != faults {
            for fault in &faults {
                tracing::warn!(error = %fault, "not all certificates of the machine could be read; calls read them again until they can");
            }
        }
        let is_complete = faults.is_empty();
        *made = Made { by_way: BTreeMap::new(), tls: is_complete.then(|| tls.clone()), faults };
        drop(made);
        Ok((tls, is_complete))
    }

    /// Reads the machine's certificates again, beside the calls; until that is done, calls go on with those of before.
    pub(in crate::executor) fn reload_certificates(&self, runtime: &Handle) {
        let clients = self.clone();
        let reading = async move {
            let reader = clients.clone();
            let read = clients.reading.run(move || reader.read_certificates().map(drop)).await;
            let error = match read {
                Ok(Ok(())) => return,
                Ok(Err(unsent)) => unsent.into_text(),
                Err(error) => error,
            };
            tracing::warn!(%error, "the certificates of the machine were not read");
        };
        drop(runtime.spawn(reading));
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn client(way: Way, tls: ClientConfig, names: Blocking) -> reqwest::Result<Client> {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(USER_AGENT)
        .dns_resolver(names)
        .connect_timeout(way.connect_timeout)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .redirect(Policy::custom(move |attempt| follow(way, attempt)))
        // It would tell the next server the address of the one before.
        .referer(false)
        .build()
}

/// What is not followed is an answer like any other.
fn follow(way: Way, attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let first = attempt.previous().first();
    let leaves = first.is_none_or(|first| first.origin() != attempt.url().origin());
    if attempt.previous().len() > way.redirects || (way.stays && leaves) {
        return attempt.stop();
    }
    attempt.follow()
}

/// The certificates that the machine trusts, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
fn roots() -> Roots {
    let found = rustls_native_certs::load_native_certs();
    let mut faults: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
    let mut store = RootCertStore::empty();
    let (added, ignored) = store.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "certificates that are trusted");
    if added == 0 {
        faults.push("none are trusted, and calls over TLS fail".to_owned());
    }
    let shortage = found.errors.iter().find_map(|error| {
        let ErrorKind::Io { inner, .. } = &error.kind else { return None };
        is_shortage(inner).then(|| inner.to_string())
    });
    Roots { store, faults, shortage }
}

fn tls(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The target of a call, as its errors may name it.
#[derive(Debug, Clone)]
pub(in crate::executor) struct Target(Option<String>);

impl Target {
    /// Host and port of a URL; nothing of a secret one.
    pub(in crate::executor) fn of(url: &Url, is_secret: bool) -> Self {
        let host = url.host_str().filter(|_| !is_secret);
        let port = url.port_or_known_default().unwrap_or_default();
        Self(host.map(|host| format!("{host}:{port}")))
    }

    /// Its name as the beginning of a sentence.
    pub(in crate::executor) fn name(&self) -> &str {
        self.0.as_deref().unwrap_or("the server")
    }

    /// Why there was no answer.
    pub(in crate::executor) fn failure(&self, error: &reqwest::Error, way: Way) -> String {
        let name = self.name();
        if error.is_connect() && error.is_timeout() {
            return format!("could not connect to {name} within {}", words(way.connect_timeout));
        }
        let why = innermost(error);
        if error.is_connect() {
            return format!("could not connect to {name}: {why}");
        }
        format!("{name} gave no valid answer: {why}")
    }
}

/// Whether a call was not sent because the system had no descriptor or port for it.
pub(in crate::executor) fn is_short(error: &reqwest::Error) -> bool {
    let mut cause: Option<&dyn Error> = error.source();
    while let Some(deeper) = cause {
        if deeper.downcast_ref::<std::io::Error>().is_some_and(is_shortage) {
            return error.is_connect();
        }
        cause = deeper.source();
    }
    false
}

/// A duration in words.
pub(in crate::executor) fn words(duration: Duration) -> String {
    duration_words(TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX))
}

/// The cause of an error that has no further one. What lies above it may name the URL.
pub(in crate::executor) fn innermost(error: &reqwest::Error) -> String {
    let Some(mut cause) = error.source() else { return "no cause is known".to_owned() };
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn clients_are_shared_and_their_number_has_a_bound() {
        let clients = Clients::default();
        for redirects in (0..100).chain(0..100) {
            let way = Way { connect_timeout: IDLE, redirects, stays: true };
            clients.get(way).unwrap();
            let made = clients.made.lock().unwrap();
            assert!(made.by_way.len() <= CLIENTS_MAX && made.by_way.contains_key(&way));
        }
    }
}
