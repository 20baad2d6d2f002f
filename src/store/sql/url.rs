//! Where a store is: what `[store] url` names.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::dialect::mysql::MySql;
use super::dialect::postgres::Postgres;
use super::server::{self, ServerUrl};
use crate::invalid::Invalid;

/// Reads a URL, if its scheme belongs to one kind of server.
type ParseServerUrl = fn(&str) -> Option<Result<Arc<dyn ServerUrl>, Invalid>>;

/// Every kind of server.
const SERVERS: [ParseServerUrl; 2] = [server::parse::<Postgres>, server::parse::<MySql>];

/// The URL of a database.
#[derive(Debug, Clone)]
pub enum StoreUrl {
    /// A file of one daemon.
    Sqlite(PathBuf),
    /// A server that several daemons may share.
    Server(ServerLocation),
}

/// Where a server is, and how it is connected to.
#[derive(Debug, Clone)]
pub struct ServerLocation(pub(super) Arc<dyn ServerUrl>);

impl StoreUrl {
    /// Reads a URL.
    pub fn parse(url: &str) -> Result<Self, Invalid> {
        let refuse = |why: &str| Err(Invalid::new("url", why));
        if let Some(parsed) = SERVERS.iter().find_map(|parse| parse(url)) {
            return parsed.map(|server| Self::Server(ServerLocation(server)));
        }
        match url.split_once("://") {
            Some(("sqlite", "" | ":memory:")) => {
                refuse("must name a file, such as sqlite://punctual.db")
            }
            Some(("sqlite", path)) if path.contains('?') => {
                refuse("takes no options after \"?\", such as sqlite://punctual.db")
            }
            Some(("sqlite", path)) => Ok(Self::Sqlite(PathBuf::from(path))),
            _ => refuse(
                "must begin with sqlite://, postgres:// or mysql://, such as sqlite://punctual.db",
            ),
        }
    }
}

/// Without a password.
impl fmt::Display for StoreUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(formatter, "sqlite://{}", path.display()),
            Self::Server(ServerLocation(server)) => formatter.write_str(server.shown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        let cases = [
            ("sqlite://a/b.db", "sqlite://a/b.db"),
            ("postgres://me:se:cr@et@host:5/db?password=x", "postgres://me:…@host:5/db"),
            ("mariadb://me:secret@host/db", "mysql://me:…@host/db"),
            ("postgresql://me@host/db", "postgresql://me@host/db"),
        ];
        for (url, shown) in cases {
            assert_eq!(StoreUrl::parse(url).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_fault_of_a_url_does_not_quote_it() {
        for url in [
            "postgres://me:WrongPw1@host/db?sslmode=WrongPw2",
            "mysql://me:WrongPw1@host/db?ssl-mode=WrongPw2",
            "postgres://me:WrongPw1@host:WrongPw2/db",
            "postgres://me:WrongPw1/WrongPw2@host:x/db",
        ] {
            let told = StoreUrl::parse(url).unwrap_err().to_string();
            assert!(told.starts_with("url: ") && !told.contains("Wrong"), "{told}");
        }
    }

    #[test]
    fn a_url_that_names_no_database_is_refused() {
        let cases = [
            "",
            "punctual.db",
            "sqlite://",
            "sqlite://:memory:",
            "sqlite://a?mode=ro",
            "http://a/b",
            "mysql://root@localhost",
            "postgres://host:port/db",
        ];
        for url in cases {
            assert_eq!(StoreUrl::parse(url).unwrap_err().field, "url", "{url}");
        }
    }
}
