//! Says why a database cannot be used, in words for a person, and whether waiting helps. The words leave out what only a
//! developer of the server or of a library understands: lines of its source, links into its manual.

use std::io;
use std::io::ErrorKind;
use std::time::Duration;

use super::dialect::Dialect;
use crate::store::StoreError;
use rustls::CertificateError;

/// How long to wait for a connection. The scheduler tries a server that is away again.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Kinds of errors of a file that last until somebody changes the file or its rights.
const FILE_LASTS: [ErrorKind; 5] = [
    ErrorKind::AlreadyExists,
    ErrorKind::PermissionDenied,
    ErrorKind::ReadOnlyFilesystem,
    ErrorKind::IsADirectory,
    ErrorKind::NotADirectory,
];
/// Kinds of errors of the system whose name says enough.
const CLEAR: [ErrorKind; 7] = [
    ErrorKind::ConnectionRefused,
    ErrorKind::ConnectionReset,
    ErrorKind::ConnectionAborted,
    ErrorKind::HostUnreachable,
    ErrorKind::NetworkUnreachable,
    ErrorKind::TimedOut,
    ErrorKind::BrokenPipe,
];
/// The beginning of the system's error for a host name that cannot be resolved.
const UNRESOLVED: &str = "failed to lookup address information: ";

/// The database that an error is about.
#[derive(Debug, Clone)]
pub(super) struct ErrorContext {
    /// Its URL without a password.
    pub(super) url: String,
    pub(super) dialect: &'static dyn Dialect,
    /// Whether its server is reached through a socket of this machine, which is not there until the server is.
    pub(super) is_at_socket: bool,
}

impl ErrorContext {
    /// An error that ends a start.
    pub(super) fn refuse(&self, error: &str) -> StoreError {
        StoreError::Refused(format!("{}: {error}", self.url))
    }

    /// An error that may pass.
    pub(super) fn unavailable(&self, error: &str) -> StoreError {
        StoreError::Unavailable(format!("{}: {error}", self.url))
    }

    /// Turns a failed connection into an error: unavailable if it may succeed later, refused if it never will.
    pub(super) fn unreachable(&self, error: &sqlx::Error) -> StoreError {
        let message = words(self.dialect, error);
        if self.may_pass(error) { self.unavailable(&message) } else { self.refuse(&message) }
    }

    /// Whether a connection that could not be made may be made later, without anybody changing the settings, the
    /// certificate or the rights.
    fn may_pass(&self, error: &sqlx::Error) -> bool {
        use CertificateError as Invalid;
        if let Some(error) = error.as_database_error() {
            return self.dialect.is_one_of(error, &self.dialect.errors().passing);
        }
        let sqlx::Error::Io(error) = error else {
            return matches!(
                error,
                sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed
            );
        };
        if let Some(error) = tls_error(error) {
            // A machine that starts may not know the time yet.
            return matches!(
                error,
                rustls::Error::InvalidCertificate(
                    Invalid::NotValidYet | Invalid::NotValidYetContext { .. }
                )
            );
        }
        // Of a connection over the network, only a file that the URL names is not found.
        self.is_at_socket || error.kind() != ErrorKind::NotFound
    }
}

/// An error of sqlx in words.
pub(super) fn words(dialect: &dyn Dialect, error: &sqlx::Error) -> String {
    if let Some(error) = error.as_database_error() {
        return dialect.error_text(error);
    }
    if let sqlx::Error::Io(error) = error {
        return io_error_text(error);
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

fn io_error_text(error: &io::Error) -> String {
    if let Some(error) = tls_error(error) {
        return tls_error_text(error);
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

/// The system's text of an error, without its number.
pub(super) fn without_number(error: &io::Error) -> String {
    error.to_string().split(" (os error ").next().unwrap_or_default().to_owned()
}

fn tls_error_text(error: &rustls::Error) -> String {
    use CertificateError as Invalid;
    let rustls::Error::InvalidCertificate(fault) = error else { return format!("TLS: {error}") };
    if matches!(fault, Invalid::UnknownIssuer) {
        return "the server's certificate comes from an issuer that is not trusted here \
            (sslrootcert=FILE in the URL names one for PostgreSQL, ssl-ca=FILE for MySQL)"
            .to_owned();
    }
    if matches!(fault, Invalid::Expired | Invalid::ExpiredContext { .. }) {
        return format!("the server's certificate has expired: {fault}");
    }
    if matches!(fault, Invalid::NotValidForName | Invalid::NotValidForNameContext { .. }) {
        return format!("the server's certificate is for another host: {fault}");
    }
    format!("the server's certificate cannot be accepted: {fault}")
}

/// The TLS error that an error of a connection carries.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Whether the error of a file lasts until somebody changes the file or its rights.
pub(super) fn file_lasts(error: &io::Error) -> bool {
    FILE_LASTS.contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sql::dialect::postgres::Postgres;

    fn context(is_at_socket: bool) -> ErrorContext {
        let url = "postgres://me@db.example/jobs".to_owned();
        ErrorContext { url, dialect: &Postgres, is_at_socket }
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
            assert_eq!(words(&Postgres, &error), expected);
        }
        assert!(
            words(&Postgres, &certificate(CertificateError::UnknownIssuer))
                .contains("not trusted here")
        );
        assert!(words(&Postgres, &certificate(CertificateError::Expired)).contains("has expired"));
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
            assert!(context(false).may_pass(&error), "{error:?}");
        }
        for error in [
            certificate(CertificateError::UnknownIssuer),
            certificate(CertificateError::Expired),
            certificate(CertificateError::NotValidForName),
            sqlx::Error::Tls("server does not support TLS".into()),
            io(ErrorKind::NotFound, "no such file: the one of sslrootcert"),
            sqlx::Error::Configuration("keys".into()),
        ] {
            assert!(!context(false).may_pass(&error), "{error:?}");
        }
        let refused = io(ErrorKind::NotFound, "");
        assert!(context(true).may_pass(&refused), "its server has not started yet");
    }
}
