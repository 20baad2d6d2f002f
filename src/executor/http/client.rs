//! HTTP clients: one for each set of options, so that calls share connections and the certificates that were read.

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
use crate::executor::blocking::BlockingThreads;
use crate::executor::shortage::{Shortage, is_shortage};

/// Clients that are kept. When there are more, all of them are dropped, and made again when they are needed.
const CLIENTS_MAX: usize = 16;
/// How long a connection is kept for the next call: less than the 5 seconds after which many servers close theirs, since
/// a call on a connection that the server is closing would fail.
const IDLE: Duration = Duration::from_secs(4);
/// Idle connections that are kept for each host.
const IDLE_CONNECTIONS: usize = 32;
const USER_AGENT: &str = concat!("punctual/", env!("CARGO_PKG_VERSION"));

/// The options of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClientOptions {
    pub(crate) connect_timeout: Duration,
    /// The number of redirects that are followed.
    pub(crate) redirects: usize,
    /// Whether redirects to another server are not followed, because a secret would be sent there.
    pub(crate) same_server: bool,
}

/// All clients, made when they are needed. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clients {
    cache: Arc<Mutex<ClientCache>>,
    /// Threads that read secrets and certificates, and scan processes.
    pub(crate) blocking: BlockingThreads,
    /// Threads that resolve host names.
    resolver: BlockingThreads,
}

#[derive(Debug, Default)]
struct ClientCache {
    by_options: BTreeMap<ClientOptions, Client>,
    /// The TLS configuration of all clients, once the certificates have been read.
    tls: Option<ClientConfig>,
    /// The errors when the certificates were read last, so that each is logged once.
    faults: Vec<String>,
}

/// The certificates that calls trust.
struct TrustedRoots {
    store: RootCertStore,
    /// What could not be read, and why.
    faults: Vec<String>,
    /// The error of a shortage of the system, if that was the reason.
    shortage: Option<String>,
}

/// Why a call was not sent.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The system is short of resources.
    Shortage(Shortage),
    Failed(String),
}

impl From<String> for SendError {
    fn from(error: String) -> Self {
        Self::Failed(error)
    }
}

impl SendError {
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Shortage(Shortage(why)) | Self::Failed(why) => why,
        }
    }
}

impl Clients {
    /// The client with these options. May block, since it reads the machine's certificates if they are not yet known.
    pub(crate) fn get(&self, options: ClientOptions) -> Result<Client, SendError> {
        let known = {
            let cache = self.cache();
            if let Some(client) = cache.by_options.get(&options) {
                return Ok(client.clone());
            }
            cache.tls.clone()
        };
        let (tls, is_kept) = match known {
            Some(tls) => (tls, true),
            None => self.read_certificates()?,
        };
        let client = client(options, tls, self.resolver.clone()).map_err(|error| {
            let why = innermost(&error);
            SendError::Failed(format!("the HTTP client could not be created: {why}"))
        })?;
        if is_kept {
            let mut cache = self.cache();
            if cache.by_options.len() >= CLIENTS_MAX {
                cache.by_options.clear();
            }
            cache.by_options.insert(options, client.clone());
        }
        Ok(client)
    }

    /// Reads the machine's certificates. The answer says whether all could be read, and are kept for the next calls;
    /// otherwise the next call reads them again.
    fn read_certificates(&self) -> Result<(ClientConfig, bool), SendError> {
        let TrustedRoots { store, faults, shortage } = roots();
        if let Some(why) = shortage {
            return Err(SendError::Shortage(Shortage(format!(
                "certificates cannot be read: {why}"
            ))));
        }
        let tls = tls(store)
            .map_err(|error| SendError::Failed(format!("TLS could not be set up: {error}")))?;
        let mut cache = self.cache();
        if cache.faults != faults {
            for fault in &faults {
                tracing::warn!(error = %fault, "not all certificates of the machine could be read; calls read them again until they can");
            }
        }
        let is_complete = faults.is_empty();
        *cache = ClientCache {
            by_options: BTreeMap::new(),
            tls: is_complete.then(|| tls.clone()),
            faults,
        };
        drop(cache);
        Ok((tls, is_complete))
    }

    /// Reads the machine's certificates again in the background. Until that is done, calls use the old ones.
    pub(crate) fn reload_certificates(&self, runtime: &Handle) {
        let clients = self.clone();
        let reading = async move {
            let reader = clients.clone();
            let read = clients.blocking.run(move || reader.read_certificates().map(drop)).await;
            let error = match read {
                Ok(Ok(())) => return,
                Ok(Err(unsent)) => unsent.into_text(),
                Err(error) => error,
            };
            tracing::warn!(%error, "the certificates of the machine were not read");
        };
        drop(runtime.spawn(reading));
    }

    fn cache(&self) -> MutexGuard<'_, ClientCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn client(
    options: ClientOptions,
    tls: ClientConfig,
    resolver: BlockingThreads,
) -> reqwest::Result<Client> {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(USER_AGENT)
        .dns_resolver(resolver)
        .connect_timeout(options.connect_timeout)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .redirect(Policy::custom(move |attempt| follow(options, attempt)))
        // A referer would tell the next server the URL of the previous one.
        .referer(false)
        .build()
}

/// Decides whether to follow a redirect. One that is not followed is a response like any other.
fn follow(options: ClientOptions, attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let first = attempt.previous().first();
    let leaves = first.is_none_or(|first| first.origin() != attempt.url().origin());
    if attempt.previous().len() > options.redirects || (options.same_server && leaves) {
        return attempt.stop();
    }
    attempt.follow()
}

/// The certificates that the machine trusts, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
fn roots() -> TrustedRoots {
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
    TrustedRoots { store, faults, shortage }
}

fn tls(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// How errors may name the server of a call.
#[derive(Debug, Clone)]
pub(crate) struct TargetName(Option<String>);

impl TargetName {
    /// Host and port of a URL; `None` for a secret URL.
    pub(crate) fn of(url: &Url, is_secret: bool) -> Self {
        let host = url.host_str().filter(|_| !is_secret);
        let port = url.port_or_known_default().unwrap_or_default();
        Self(host.map(|host| format!("{host}:{port}")))
    }

    /// The name for the beginning of a sentence.
    pub(crate) fn name(&self) -> &str {
        self.0.as_deref().unwrap_or("the server")
    }

    /// The error message of a call without a response.
    pub(crate) fn failure(&self, error: &reqwest::Error, options: ClientOptions) -> String {
        let name = self.name();
        if error.is_connect() && error.is_timeout() {
            return format!(
                "could not connect to {name} within {}",
                words(options.connect_timeout)
            );
        }
        let why = innermost(error);
        if error.is_connect() {
            return format!("could not connect to {name}: {why}");
        }
        format!("{name} gave no valid answer: {why}")
    }
}

/// Whether a call was not sent because the system has no free descriptor or port.
pub(crate) fn is_resource_shortage(error: &reqwest::Error) -> bool {
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
pub(crate) fn words(duration: Duration) -> String {
    duration_words(TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX))
}

/// The innermost cause of an error. The outer ones may name the URL, which may be secret.
pub(crate) fn innermost(error: &reqwest::Error) -> String {
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
            let options = ClientOptions { connect_timeout: IDLE, redirects, same_server: true };
            clients.get(options).unwrap();
            let cache = clients.cache.lock().unwrap();
            assert!(
                cache.by_options.len() <= CLIENTS_MAX && cache.by_options.contains_key(&options)
            );
        }
    }
}
