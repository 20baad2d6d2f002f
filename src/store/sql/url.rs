//! Where a store is: what `[store] url` names.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;

use crate::invalid::Invalid;

/// A database that was named, and looks as if it could be one.
#[derive(Debug, Clone)]
pub enum StoreUrl {
    /// A file of one daemon.
    Sqlite(PathBuf),
    /// A server that several daemons may share.
    Postgres(Box<PgConnectOptions>, RedactedUrl),
    /// The same.
    MySql(Box<MySqlConnectOptions>, RedactedUrl),
}

/// A URL without its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedactedUrl(String);

impl StoreUrl {
    /// Reads a URL.
    pub fn parse(url: &str) -> Result<Self, Invalid> {
        let refuse = |why: &str| Err(Invalid::new("url", why));
        match url.split_once("://") {
            Some(("sqlite", "" | ":memory:")) => {
                refuse("must name a file, such as sqlite://punctual.db")
            }
            Some(("sqlite", path)) if path.contains('?') => {
                refuse("takes no options after \"?\", such as sqlite://punctual.db")
            }
            Some(("sqlite", path)) => Ok(Self::Sqlite(PathBuf::from(path))),
            Some(("postgres" | "postgresql", _)) => {
                let options = PgConnectOptions::from_str(url).map_err(|error| bad(url, &error))?;
                Ok(Self::Postgres(Box::new(options), RedactedUrl::new(url)))
            }
            Some(("mysql" | "mariadb", rest)) => {
                let url = format!("mysql://{rest}");
                let options =
                    MySqlConnectOptions::from_str(&url).map_err(|error| bad(&url, &error))?;
                if options.get_database().is_none_or(str::is_empty) {
                    return refuse("must name a database, such as mysql://user@host/punctual");
                }
                Ok(Self::MySql(Box::new(options), RedactedUrl::new(&url)))
            }
            _ => refuse(
                "must begin with sqlite://, postgres:// or mysql://, such as sqlite://punctual.db",
            ),
        }
    }
}

impl StoreUrl {
    /// Whether its server is reached through a socket of this machine, which is not there until the server is.
    pub(super) fn is_at_a_socket(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(options, _) => {
                options.get_socket().is_some() || options.get_host().starts_with('/')
            }
            Self::MySql(options, _) => options.get_socket().is_some(),
        }
    }
}

/// What is wrong with a URL, without a part of it: any part may be secret, such as a password that was pasted into an
/// option.
fn bad(url: &str, error: &sqlx::Error) -> Invalid {
    let message = error.to_string();
    let unquoted = message.split('"').step_by(2).collect::<Vec<_>>().join("…");
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let mut parts = rest.split(|letter: char| !letter.is_alphanumeric());
    // The names of options are no secret, and say where the fault is.
    let is_name = |part: &str| rest.contains(&format!("{part}="));
    if parts.any(|part| part.len() > 3 && unquoted.contains(part) && !is_name(part)) {
        return Invalid::new("url", "is not a URL of a database");
    }
    Invalid::new("url", unquoted)
}

impl RedactedUrl {
    fn new(url: &str) -> Self {
        let hidden = || {
            let (scheme, rest) = url.split_once("://")?;
            // A password may contain the sign that ends it: the last one counts.
            let (user, place) = rest.rsplit_once('@')?;
            let (name, _) = user.split_once(':')?;
            Some(format!("{scheme}://{name}:…@{place}"))
        };
        let text = hidden().unwrap_or_else(|| url.to_owned());
        // Options may hold a password too.
        Self(text.split('?').next().unwrap_or_default().to_owned())
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(formatter, "sqlite://{}", path.display()),
            Self::Postgres(_, RedactedUrl(url)) | Self::MySql(_, RedactedUrl(url)) => {
                formatter.write_str(url)
            }
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
