//! Delivers a mail to a server by SMTP. Limits of time and of bytes keep a server from blocking the daemon or filling its
//! memory.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use lettre::Message;
use lettre::address::Envelope;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream, TlsParameters};
use lettre::transport::smtp::extension::{ClientId, Extension, ServerInfo};
use lettre::transport::smtp::response::Response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::settings::{MailSettings, Security};

/// How long the delivery of a mail may take: less than the timeout of a hook.
pub(super) const LIMIT: Duration = Duration::from_secs(50);
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// How long to wait for the answer to QUIT after the server has accepted the mail.
const QUIT_LIMIT: Duration = Duration::from_secs(2);
/// Bytes that are read from the server: many times what one mail needs.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// Why the server has not accepted a mail.
#[derive(Debug)]
pub(super) struct SmtpError {
    pub(super) why: String,
    pub(super) is_permanent: bool,
}

impl SmtpError {
    fn temporary(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_permanent: false }
    }
}

impl From<Error> for SmtpError {
    fn from(error: Error) -> Self {
        Self { why: describe_error(&error), is_permanent: error.is_permanent() }
    }
}

/// Delivers a mail, and returns the response of the server to it.
pub(super) async fn deliver(
    settings: &MailSettings,
    tls: Option<TlsParameters>,
    hello: &ClientId,
    message: &Message,
    limit: Duration,
) -> Result<Response, SmtpError> {
    let delivering = async {
        let mut connection = connect(settings, tls, hello).await?;
        check_addresses(message.envelope(), connection.server_info())?;
        let response = connection.send(message.envelope(), &message.formatted()).await?;
        Ok::<_, SmtpError>((connection, response))
    };
    let late = |_| {
        let seconds = limit.as_secs();
        SmtpError::temporary(format!("the server did not take the mail within {seconds} s"))
    };
    let (mut connection, response) = timeout(limit, delivering).await.map_err(late)??;
    // The server has accepted the mail, so an error of the connection no longer matters.
    if timeout(QUIT_LIMIT, connection.quit()).await.is_err() {
        tracing::debug!(server = settings.server, "the mail server did not answer QUIT");
    }
    Ok(response)
}

/// Opens a connection, secures it and logs in, as the settings say.
async fn connect(
    settings: &MailSettings,
    tls: Option<TlsParameters>,
    hello: &ClientId,
) -> Result<AsyncSmtpConnection, SmtpError> {
    let address = (settings.server.as_str(), settings.port);
    let limit = Some(CONNECT_LIMIT);
    let mut connection = match (settings.security, tls) {
        (Security::Tls, tls) => {
            AsyncSmtpConnection::connect_tokio1(address, limit, hello, tls, None).await?
        }
        (Security::None | Security::StartTls, tls) => {
            let connected = timeout(CONNECT_LIMIT, TcpStream::connect(address)).await;
            let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let stream = connected.map_err(|error| {
                SmtpError::temporary(format!("the server cannot be reached: {error}"))
            })?;
            let stream = Box::new(LimitedStream { stream, rest: READ_BYTES_MAX });
            let mut connection = AsyncSmtpConnection::connect_with_transport(stream, hello).await?;
            if let Some(tls) = tls {
                connection.starttls(tls, hello).await?;
            }
            connection
        }
    };
    if let Some((user, password)) = settings.login.clone() {
        connection.auth(DEFAULT_MECHANISMS, &Credentials::new(user, password)).await?;
    }
    Ok(connection)
}

/// Rejects addresses that the server does not support. The part of an address after the `@` is always ASCII here.
fn check_addresses(envelope: &Envelope, server: &ServerInfo) -> Result<(), SmtpError> {
    let mut addresses = envelope.from().into_iter().chain(envelope.to());
    let foreign = addresses.find(|address| !AsRef::<str>::as_ref(address).is_ascii());
    match foreign {
        Some(address) if !server.supports_feature(Extension::SmtpUtfEight) => Err(SmtpError {
            why: format!(
                "the server does not support SMTPUTF8, and takes no address such as \"{address}\", which is not ASCII before the @"
            ),
            is_permanent: true,
        }),
        Some(_) | None => Ok(()),
    }
}

/// A response in one line.
pub(super) fn describe_response(response: &Response) -> String {
    let text: Vec<&str> = response.message().collect();
    format!("{} {}", response.code(), text.join(" "))
}

/// An error with its causes, which say more.
pub(super) fn describe_error(error: &Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let text = inner.to_string();
        if texts.iter().all(|known| !known.contains(&text)) {
            texts.push(text);
        }
        source = inner.source();
    }
    texts.join(": ")
}

/// A connection from which only [`READ_BYTES_MAX`] bytes are read: a line without an end would fill the memory.
#[derive(Debug)]
struct LimitedStream {
    stream: TcpStream,
    rest: usize,
}

impl AsyncTokioStream for LimitedStream {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

impl AsyncRead for LimitedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest == 0 {
            let why = format!("the server says more than {READ_BYTES_MAX} bytes");
            return Poll::Ready(Err(io::Error::other(why)));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.rest = self.rest.saturating_sub(buffer.filled().len() - before);
        polled
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// The error of a mail to a server that handles its first connection with `serve`.
    async fn error_from<F: Future>(
        limit: Duration,
        serve: impl FnOnce(TcpStream) -> F,
    ) -> SmtpError {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = MailSettings {
            server: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
            ..MailSettings::local()
        };
        let address: lettre::message::Mailbox = "a@example.org".parse().unwrap();
        let message =
            Message::builder().from(address.clone()).to(address).body(String::new()).unwrap();
        let hello = ClientId::Domain("localhost".to_owned());
        let serving = async {
            serve(listener.accept().await.unwrap().0).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            delivered = deliver(&settings, None, &hello, &message, limit) => delivered.unwrap_err(),
            () = serving => unreachable!(),
        }
    }

    #[tokio::test]
    async fn a_server_that_never_answers_runs_into_the_time_limit() {
        let error = error_from(Duration::from_secs(1), async |stream| {
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await;
        assert_eq!(error.why, "the server did not take the mail within 1 s");
        assert!(!error.is_permanent);
    }

    #[tokio::test]
    async fn a_line_without_an_end_runs_into_the_limit_of_bytes() {
        let error = error_from(LIMIT, async |mut stream| {
            use tokio::io::AsyncWriteExt;
            drop(stream.write_all(&vec![b'2'; 8 * 1024 * 1024]).await);
        })
        .await;
        assert!(error.why.contains("more than 1048576 bytes"), "{error:?}");
    }

    #[tokio::test]
    async fn a_connection_that_the_server_closes_can_be_retried() {
        let error = error_from(LIMIT, async |stream| drop(stream)).await;
        assert!(!error.is_permanent, "{error:?}");
    }
}
