//! Decides which requests over TCP may come from a browser. A page of a foreign site must not use the API through the
//! browser of someone who can reach it: neither by sending requests to it (CSRF), nor by pointing a host name of its own
//! to the server's address (DNS rebinding).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use axum::http::uri::{Authority, Uri};
use axum::http::{HeaderMap, HeaderName, header};

/// The host names under which a server may be addressed.
#[derive(Debug, Clone)]
pub struct Hosts {
    listen: IpAddr,
    names: BTreeSet<String>,
}

/// A request that is not meant for this server, or that a page of another site has sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForeignError {
    /// The header `Host` is missing, or does not name this server.
    #[error("the request is for the host \"{0}\", which is not a name of this server")]
    Host(String),
    /// The header `Origin`, which browsers send, names another site.
    #[error("the request comes from a page of {0}, which is not a name of this server")]
    Origin(String),
}

impl Hosts {
    /// Allows the address on which the server listens, all loopback addresses, `localhost`, and `names`.
    pub fn new(listen: SocketAddr, names: impl IntoIterator<Item = String>) -> Self {
        let names = names.into_iter().chain(["localhost".to_owned()]);
        let names = names.map(|name| name.to_ascii_lowercase()).collect();
        Self { listen: listen.ip(), names }
    }

    /// Checks the headers `Host` and `Origin` of a request.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ForeignError> {
        let host = single_value(headers, &header::HOST).unwrap_or_default();
        let is_known = |authority: &Authority| self.is_known(authority.host());
        let authority = host.parse::<Authority>().ok().filter(is_known);
        let Some(authority) = authority.filter(|_| uri.authority().is_none_or(is_known)) else {
            return Err(ForeignError::Host(host.to_owned()));
        };
        if !headers.contains_key(header::ORIGIN) {
            return Ok(());
        }
        let origin = single_value(headers, &header::ORIGIN).unwrap_or_default();
        let from = origin.parse::<Uri>().ok().and_then(|uri| uri.authority().cloned());
        // A page from another port of this machine is foreign too, unless its host name was configured.
        let is_own = |from: &Authority| {
            *from == authority
                || self.names.contains(&normalized(from.host())) && !is_local(from.host())
        };
        match from {
            Some(from) if is_own(&from) => Ok(()),
            Some(_) | None => Err(ForeignError::Origin(origin.to_owned())),
        }
    }

    fn is_known(&self, host: &str) -> bool {
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            // No DNS name is involved in an address, so if the server listens on all addresses, any of them is its own.
            Ok(address) => {
                address.is_loopback() || address == self.listen || self.listen.is_unspecified()
            }
            Err(_) => self.names.contains(&normalized(host)),
        }
    }
}

/// A host name in lower case and without the dot that may end it.
fn normalized(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn is_local(host: &str) -> bool {
    normalized(host) == "localhost"
}

/// The value of a header that is given once.
fn single_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// True if the headers declare a JSON body. A page of another site can send one only after a preflight request, which
/// this server does not allow.
pub fn is_json(headers: &HeaderMap) -> bool {
    let kind =
        single_value(headers, &header::CONTENT_TYPE).and_then(|value| value.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listen: &str, host: &[&str], origin: Option<&str>) -> Result<(), ForeignError> {
        let hosts = Hosts::new(listen.parse().unwrap(), ["Shop.example".to_owned()]);
        let mut headers = HeaderMap::new();
        for host in host {
            headers.append(header::HOST, host.parse().unwrap());
        }
        if let Some(origin) = origin {
            headers.append(header::ORIGIN, origin.parse().unwrap());
        }
        hosts.check(&Uri::from_static("/"), &headers)
    }

    #[test]
    fn only_names_of_the_server_are_its_host() {
        let local = "127.0.0.1:8000";
        for host in [
            "127.0.0.1:8000",
            "127.0.0.1",
            "localhost:9000",
            "LOCALHOST.",
            "[::1]:8000",
            "shop.example",
            "shop.example:443",
        ] {
            assert_eq!(check(local, &[host], None), Ok(()), "{host}");
        }
        for host in
            ["evil.example", "evil.example:8000", "10.0.0.1", "", "a b", "shop.example.evil"]
        {
            let refused = Err(ForeignError::Host(host.to_owned()));
            assert_eq!(check(local, &[host], None), refused, "{host}");
        }
        assert!(check(local, &[], None).is_err());
        assert!(check(local, &["localhost", "evil.example"], None).is_err());
        assert_eq!(check("0.0.0.0:80", &["10.0.0.1"], None), Ok(()));
        assert!(check("0.0.0.0:80", &["evil.example"], None).is_err());
        assert_eq!(check("10.0.0.1:80", &["10.0.0.1"], None), Ok(()));
    }

    #[test]
    fn only_pages_of_the_server_may_send_requests() {
        let from = |host: &str, origin: &str| check("127.0.0.1:8000", &[host], Some(origin));
        for (host, origin) in [
            ("localhost:8000", "http://localhost:8000"),
            ("shop.example", "https://shop.example"),
            ("localhost:8000", "https://shop.example"),
        ] {
            assert_eq!(from(host, origin), Ok(()), "{host} {origin}");
        }
        for origin in
            ["http://evil.example", "null", "", "http://localhost:3000", "http://127.0.0.1:8000"]
        {
            let refused = Err(ForeignError::Origin(origin.to_owned()));
            assert_eq!(from("localhost:8000", origin), refused, "{origin}");
        }
    }

    #[test]
    fn json_is_told_by_its_content_type() {
        for (kind, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("text/plain; application/json", false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
            assert_eq!(is_json(&headers), expected, "{kind}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
