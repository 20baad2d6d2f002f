//! Clients of HTTP: one for each way of connecting, so that connections and what is known of certificates are shared.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Url};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;

use super::blocking::Blocking;
use crate::clock::duration_words;

/// Clients that are kept. Beyond that they are made anew, each with connections of its own.
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
#[derive(Debug, Clone)]
pub(in crate::executor) struct Clients {
    made: Arc<Mutex<Made>>,
    /// Reads secrets and certificates.
    pub(in crate::executor) reading: Blocking,
    /// Looks names up.
    names: Blocking,
}

#[derive(Debug, Default)]
struct Made {
    by_way: BTreeMap<Way, Client>,
    /// What all of them do over TLS.
    tls: Option<ClientConfig>,
}

impl Clients {
    /// None yet. What may block is done on threads of this runtime.
    pub(in crate::executor) fn new(runtime: &Handle) -> Self {
        let blocking = || Blocking::new(runtime.clone());
        Self { made: Arc::default(), reading: blocking(), names: blocking() }
    }

    /// The client for this way. The first one reads the machine's certificates, so this may block.
    pub(in crate::executor) fn get(&self, way: Way) -> Result<Client, String> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.by_way.get(&way) {
            return Ok(client.clone());
        }
        let tls = match &made.tls {
            Some(tls) => tls.clone(),
            None => tls(roots()).map_err(|error| format!("there is no TLS: {error}"))?,
        };
        made.tls = Some(tls.clone());
        let client = client(way, tls, self.names.clone()).map_err(|error| {
            let why = innermost(&error);
            format!("there is no client for HTTP: {why}")
        })?;
        if made.by_way.len() >= CLIENTS_MAX {
            made.by_way.clear();
        }
        made.by_way.insert(way, client.clone());
        Ok(client)
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
fn roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some certificates of the machine cannot be read");
    }
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "certificates that are trusted");
    if added == 0 {
        tracing::warn!("no certificates are trusted; every call over TLS will fail");
    }
    roots
}

fn tls(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Whom a call asks, as its errors may name it.
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
        let clients = Clients::new(&Handle::current());
        for redirects in (0..100).chain(0..100) {
            let way = Way { connect_timeout: IDLE, redirects, stays: true };
            clients.get(way).unwrap();
            let made = clients.made.lock().unwrap();
            assert!(made.by_way.len() <= CLIENTS_MAX && made.by_way.contains_key(&way));
        }
    }
}
