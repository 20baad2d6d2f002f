//! Why a database server cannot be used, in words for a person, and whether waiting helps. The words leave out what
//! only a developer of the server or of a library understands: lines of its source, links into its manual.

use std::io;
use std::io::ErrorKind;
use std::time::Duration;

use rustls::CertificateError;
use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;

use super::url::StoreUrl;
use crate::store::StoreError;

/// How long a connection is waited for: a server that is away is tried again by the core.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// `PostgreSQL`'s codes, or how they begin, of a server that cannot be used now: starting, stopping, out of
/// connections, memory or disk, taking no writes, a lock that is held, a fault of its own.
const POSTGRES_PASSES: [&str; 8] = ["57", "53", "08", "25006", "55P03", "40", "58", "XX"];
/// `MySQL`'s and `MariaDB`'s numbers of the same. Before the handshake they come without a code.
const MYSQL_PASSES: [u16; 24] = [
    1021, 1040, 1041, 1047, 1053, 1129, 1135, 1152, 1153, 1154, 1155, 1156, 1157, 1158, 1159, 1160,
    1161, 1203, 1205, 1213, 1226, 1290, 1792, 1836,
];
/// `PostgreSQL`'s codes of a right that the user lacks; one who may not use a schema does not see it, either.
const POSTGRES_DENIED: [&str; 2] = ["42501", "3F000"];
/// The same of `MySQL` and `MariaDB`: of a database, a table, a column, an operation.
const MYSQL_DENIED: [u16; 4] = [1044, 1142, 1143, 1227];
/// Kinds of errors of a file that is not opened until somebody changes it or its rights.
const FILE_LASTS: [ErrorKind; 5] = [
    ErrorKind::AlreadyExists,
    ErrorKind::PermissionDenied,
    ErrorKind::ReadOnlyFilesystem,
    ErrorKind::IsADirectory,
    ErrorKind::NotADirectory,
];
/// Kinds of errors of the system that are told by their name.
const CLEAR: [ErrorKind; 7] = [
    ErrorKind::ConnectionRefused,
    ErrorKind::ConnectionReset,
    ErrorKind::ConnectionAborted,
    ErrorKind::HostUnreachable,
    ErrorKind::NetworkUnreachable,
    ErrorKind::TimedOut,
    ErrorKind::BrokenPipe,
];
/// How the system says that a host name leads nowhere.
const UNRESOLVED: &str = "failed to lookup address information: ";

/// An error that ends a start.
pub(super) fn refuse(place: &StoreUrl, error: &str) -> StoreError {
    StoreError::Refused(format!("{place}: {error}"))
}

/// Turns a failed connection into an error: unavailable if it may succeed later, refused if it never will.
pub(super) fn unreachable(place: &StoreUrl, error: &sqlx::Error) -> StoreError {
    let message = format!("{place}: {}", words(error));
    if may_pass(place, error) {
        return StoreError::Unavailable(message);
    }
    StoreError::Refused(message)
}

/// Why, in words.
pub(super) fn words(error: &sqlx::Error) -> String {
    if let Some(error) = error.as_database_error() {
        return if is_mysql(error).is_some() {
            error.to_string()
        } else {
            error.message().to_owned()
        };
    }
    if let sqlx::Error::Io(error) = error {
        return words_of_io(error);
    }
    if let sqlx::Error::Tls(error) = error {
        return format!("TLS: {error}");
    }
    if let sqlx::Error::Configuration(error) = error {
        return error.to_string();
    }
    if matches!(error, sqlx::Error::PoolTimedOut) {
        return format!("no connection within {CONNECT_TIMEOUT:?}");
    }
    error.to_string()
}

fn words_of_io(error: &io::Error) -> String {
    if let Some(error) = tls(error) {
        return words_of_tls(error);
    }
    let text = error.to_string();
    if let Some(why) = text.strip_prefix(UNRESOLVED) {
        return format!("the host name cannot be resolved: {why}");
    }
    let kind = error.kind();
    if kind == ErrorKind::UnexpectedEof {
        return "the server has closed the connection".to_owned();
    }
    if kind == ErrorKind::NotFound {
        return "a file or socket that the URL names is not there".to_owned();
    }
    if CLEAR.contains(&kind) {
        return kind.to_string();
    }
    without_number(error)
}

/// What the system says, without the number of its error.
pub(super) fn without_number(error: &io::Error) -> String {
    error.to_string().split(" (os error ").next().unwrap_or_default().to_owned()
}

fn words_of_tls(error: &rustls::Error) -> String {
    use CertificateError as Fault;
    let rustls::Error::InvalidCertificate(fault) = error else { return format!("TLS: {error}") };
    if matches!(fault, Fault::UnknownIssuer) {
        return "the server's certificate comes from an issuer that is not trusted here \
            (sslrootcert=FILE in the URL names one for PostgreSQL, ssl-ca=FILE for MySQL)"
            .to_owned();
    }
    if matches!(fault, Fault::Expired | Fault::ExpiredContext { .. }) {
        return format!("the server's certificate has expired: {fault}");
    }
    if matches!(fault, Fault::NotValidForName | Fault::NotValidForNameContext { .. }) {
        return format!("the server's certificate is for another host: {fault}");
    }
    format!("the server's certificate cannot be accepted: {fault}")
}

/// The fault of TLS that an error of a connection carries.
fn tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn is_mysql(error: &dyn DatabaseError) -> Option<&MySqlDatabaseError> {
    error.try_downcast_ref()
}

/// Whether a connection that could not be made may be made later, without anybody changing the settings, the
/// certificate or the rights.
pub(super) fn may_pass(place: &StoreUrl, error: &sqlx::Error) -> bool {
    use CertificateError as Fault;
    if let Some(error) = error.as_database_error() {
        return is_mysql(error).map_or_else(
            || is_one_of(error, &POSTGRES_PASSES),
            |error| MYSQL_PASSES.contains(&error.number()),
        );
    }
    let sqlx::Error::Io(error) = error else {
        return matches!(
            error,
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed
        );
    };
    if let Some(error) = tls(error) {
        // A machine that starts may not know the time yet.
        return matches!(
            error,
            rustls::Error::InvalidCertificate(
                Fault::NotValidYet | Fault::NotValidYetContext { .. }
            )
        );
    }
    // Of a connection over the network, only a file that the URL names is not found.
    place.is_at_a_socket() || error.kind() != ErrorKind::NotFound
}

/// Whether a file that the system does not open stays like that until somebody changes it or its rights.
pub(super) fn file_lasts(error: &io::Error) -> bool {
    FILE_LASTS.contains(&error.kind())
}

/// Whether the user of the database lacks a right.
pub(super) fn is_denied(error: &dyn DatabaseError) -> bool {
    is_mysql(error).map_or_else(
        || is_one_of(error, &POSTGRES_DENIED),
        |error| MYSQL_DENIED.contains(&error.number()),
    )
}

fn is_one_of(error: &dyn DatabaseError, beginnings: &[&str]) -> bool {
    error.code().is_some_and(|code| beginnings.iter().any(|start| code.starts_with(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> StoreUrl {
        StoreUrl::parse("postgres://me@db.example/jobs").unwrap()
    }

    fn io(kind: ErrorKind, text: &str) -> sqlx::Error {
        sqlx::Error::Io(io::Error::new(kind, text.to_owned()))
    }

    fn certificate(fault: CertificateError) -> sqlx::Error {
        let error = rustls::Error::InvalidCertificate(fault);
        sqlx::Error::Io(io::Error::new(ErrorKind::InvalidData, error))
    }

    #[test]
    fn reasons_are_said_without_the_words_of_libraries() {
        let lookup = "failed to lookup address information: Name or service not known";
        let cases = [
            (
                io(ErrorKind::ConnectionRefused, "Connection refused (os error 111)"),
                "connection refused",
            ),
            (
                io(ErrorKind::Other, lookup),
                "the host name cannot be resolved: Name or service not known",
            ),
            (
                io(ErrorKind::UnexpectedEof, "peer closed connection … https://docs.rs/rustls"),
                "the server has closed the connection",
            ),
            (sqlx::Error::PoolTimedOut, "no connection within 2s"),
            (
                sqlx::Error::Tls("server does not support TLS".into()),
                "TLS: server does not support TLS",
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(words(&error), expected);
        }
        assert!(words(&certificate(CertificateError::UnknownIssuer)).contains("not trusted here"));
        assert!(words(&certificate(CertificateError::Expired)).contains("has expired"));
    }

    #[test]
    fn what_is_away_is_waited_for_and_what_is_wrong_is_not() {
        for error in [
            io(ErrorKind::ConnectionRefused, ""),
            io(ErrorKind::Other, UNRESOLVED),
            io(ErrorKind::UnexpectedEof, ""),
            certificate(CertificateError::NotValidYet),
            sqlx::Error::PoolTimedOut,
        ] {
            assert!(may_pass(&place(), &error), "{error:?}");
        }
        for error in [
            certificate(CertificateError::UnknownIssuer),
            certificate(CertificateError::Expired),
            certificate(CertificateError::NotValidForName),
            sqlx::Error::Tls("server does not support TLS".into()),
            io(ErrorKind::NotFound, "no such file: the one of sslrootcert"),
            sqlx::Error::Configuration("keys".into()),
        ] {
            assert!(!may_pass(&place(), &error), "{error:?}");
        }
        let socket = StoreUrl::parse("postgres://me@%2Frun%2Fpostgresql/jobs").unwrap();
        assert!(may_pass(&socket, &io(ErrorKind::NotFound, "")), "its server has not started yet");
    }
}
