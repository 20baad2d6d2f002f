//! Why a database server cannot be used, in words for a person, and whether waiting helps. The words leave out what
//! only a developer of the server or of a library understands: lines of its source, links into its manual.

use std::io;
use std::io::ErrorKind;

use rustls::CertificateError;
use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;

use super::place::StorePlace;
use super::server::CONNECT_TIMEOUT;

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
/// How the system says that a host name leads nowhere.
const UNRESOLVED: &str = "failed to lookup address information: ";

/// Why, in words.
pub(super) fn words(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) if is_mysql(error.as_ref()).is_none() => {
            error.message().to_owned()
        }
        sqlx::Error::Database(error) => error.to_string(),
        sqlx::Error::Io(error) => words_of_io(error),
        sqlx::Error::Tls(error) => format!("TLS: {error}"),
        sqlx::Error::Configuration(error) => error.to_string(),
        sqlx::Error::PoolTimedOut => format!("no connection within {CONNECT_TIMEOUT:?}"),
        other => other.to_string(),
    }
}

fn words_of_io(error: &io::Error) -> String {
    if let Some(error) = tls(error) {
        return words_of_tls(error);
    }
    let text = error.to_string();
    if let Some(why) = text.strip_prefix(UNRESOLVED) {
        return format!("the host name cannot be resolved: {why}");
    }
    match error.kind() {
        ErrorKind::UnexpectedEof => "the server has closed the connection".to_owned(),
        ErrorKind::NotFound => "a file or socket that the URL names is not there".to_owned(),
        kind @ (ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::TimedOut
        | ErrorKind::BrokenPipe) => kind.to_string(),
        _ => text.split(" (os error ").next().unwrap_or_default().to_owned(),
    }
}

fn words_of_tls(error: &rustls::Error) -> String {
    use CertificateError as Fault;
    let rustls::Error::InvalidCertificate(fault) = error else { return format!("TLS: {error}") };
    match fault {
        Fault::UnknownIssuer => {
            "the server's certificate comes from an issuer that is not trusted here \
             (sslrootcert=FILE in the URL names one for PostgreSQL, ssl-ca=FILE for MySQL)"
                .to_owned()
        }
        Fault::Expired | Fault::ExpiredContext { .. } => {
            format!("the server's certificate has expired: {fault}")
        }
        Fault::NotValidForName | Fault::NotValidForNameContext { .. } => {
            format!("the server's certificate is for another host: {fault}")
        }
        fault => format!("the server's certificate cannot be accepted: {fault}"),
    }
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
pub(super) fn may_pass(place: &StorePlace, error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => match is_mysql(error.as_ref()) {
            Some(error) => MYSQL_PASSES.contains(&error.number()),
            None => is_one_of(error.as_ref(), &POSTGRES_PASSES),
        },
        sqlx::Error::Io(error) => match tls(error) {
            // A machine that starts may not know the time yet.
            Some(rustls::Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            )) => true,
            Some(_) => false,
            // Of a connection over the network, only a file that the URL names is not found.
            None => place.is_at_a_socket() || error.kind() != ErrorKind::NotFound,
        },
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// Whether the user of the database lacks a right.
pub(super) fn is_denied(error: &dyn DatabaseError) -> bool {
    match is_mysql(error) {
        Some(error) => MYSQL_DENIED.contains(&error.number()),
        None => is_one_of(error, &POSTGRES_DENIED),
    }
}

fn is_one_of(error: &dyn DatabaseError, beginnings: &[&str]) -> bool {
    error.code().is_some_and(|code| beginnings.iter().any(|start| code.starts_with(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> StorePlace {
        StorePlace::parse("postgres://me@db.example/jobs").unwrap()
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
        let socket = StorePlace::parse("postgres://me@%2Frun%2Fpostgresql/jobs").unwrap();
        assert!(may_pass(&socket, &io(ErrorKind::NotFound, "")), "its server has not started yet");
    }
}
