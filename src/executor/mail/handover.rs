//! How a mail is handed to a server, which can neither keep the daemon waiting nor fill its memory.

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

use super::{MailSettings, Security};

/// How long it may take until a server has taken a mail: less than a hook may take.
pub(super) const LIMIT: Duration = Duration::from_secs(50);
/// How long it may take to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// How long the answer to QUIT is waited for, once the mail has been taken.
const QUIT_LIMIT: Duration = Duration::from_secs(2);
/// Bytes that are read of everything that the server says: many times what one mail takes.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// Why the server has not taken a mail.
#[derive(Debug)]
pub(super) struct Undelivered {
    pub(super) why: String,
    pub(super) is_permanent: bool,
}

impl Undelivered {
    fn passing(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_permanent: false }
    }
}

impl From<Error> for Undelivered {
    fn from(error: Error) -> Self {
        Self { why: in_words(&error), is_permanent: error.is_permanent() }
    }
}

/// Hands a mail in; the server's answer to it.
pub(super) async fn hand_in(
    settings: &MailSettings,
    tls: Option<TlsParameters>,
    hello: &ClientId,
    message: &Message,
    limit: Duration,
) -> Result<Response, Undelivered> {
    let handing = async {
        let mut connection = connect(settings, tls, hello).await?;
        check_addresses(message.envelope(), connection.server_info())?;
        let taken = connection.send(message.envelope(), &message.formatted()).await?;
        Ok::<_, Undelivered>((connection, taken))
    };
    let late = |_| {
        let seconds = limit.as_secs();
        Undelivered::passing(format!("the server did not take the mail within {seconds} s"))
    };
    let (mut connection, taken) = timeout(limit, handing).await.map_err(late)??;
    // The server has the mail, whatever becomes of the connection.
    if timeout(QUIT_LIMIT, connection.quit()).await.is_err() {
        tracing::debug!(server = settings.server, "the mail server did not answer QUIT");
    }
    Ok(taken)
}

/// A connection that is secured and logged in, as it is set.
async fn connect(
    settings: &MailSettings,
    tls: Option<TlsParameters>,
    hello: &ClientId,
) -> Result<AsyncSmtpConnection, Undelivered> {
    let place = (settings.server.as_str(), settings.port);
    let limit = Some(CONNECT_LIMIT);
    let mut connection = match (settings.security, tls) {
        (Security::Tls, tls) => {
            AsyncSmtpConnection::connect_tokio1(place, limit, hello, tls, None).await?
        }
        (Security::None | Security::StartTls, tls) => {
            let connected = timeout(CONNECT_LIMIT, TcpStream::connect(place)).await;
            let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let stream = connected.map_err(|error| {
                Undelivered::passing(format!("the server cannot be reached: {error}"))
            })?;
            let stream = Box::new(Metered { stream, rest: READ_BYTES_MAX });
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

/// Refuses an address that the server cannot take. The part of an address after the `@` is ASCII already.
fn check_addresses(envelope: &Envelope, server: &ServerInfo) -> Result<(), Undelivered> {
    let mut addresses = envelope.from().into_iter().chain(envelope.to());
    let foreign = addresses.find(|address| !AsRef::<str>::as_ref(address).is_ascii());
    match foreign {
        Some(address) if !server.supports_feature(Extension::SmtpUtfEight) => Err(Undelivered {
            why: format!(
                "the server does not support SMTPUTF8, and takes no address such as \"{address}\", which is not ASCII before the @"
            ),
            is_permanent: true,
        }),
        Some(_) | None => Ok(()),
    }
}

/// An error with those that it came from, which say more.
pub(super) fn in_words(error: &Error) -> String {
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

/// A connection of which only a limited number of bytes is read. A line that does not end would be collected without end.
#[derive(Debug)]
struct Metered {
    stream: TcpStream,
    rest: usize,
}

impl AsyncTokioStream for Metered {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

impl AsyncRead for Metered {
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

impl AsyncWrite for Metered {
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

    /// What becomes of a mail at this server, which takes connections, and does something with the first.
    async fn handed_to<F: Future>(
        limit: Duration,
        serve: impl FnOnce(TcpStream) -> F,
    ) -> Undelivered {
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
            handed = hand_in(&settings, None, &hello, &message, limit) => handed.unwrap_err(),
            () = serving => unreachable!(),
        }
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_does_not_keep_the_mail_for_ever() {
        let undelivered = handed_to(Duration::from_secs(1), async |stream| {
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await;
        assert_eq!(undelivered.why, "the server did not take the mail within 1 s");
        assert!(!undelivered.is_permanent);
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_not_read_for_ever() {
        let undelivered = handed_to(LIMIT, async |mut stream| {
            use tokio::io::AsyncWriteExt;
            drop(stream.write_all(&vec![b'2'; 8 * 1024 * 1024]).await);
        })
        .await;
        assert!(undelivered.why.contains("more than 1048576 bytes"), "{undelivered:?}");
    }

    #[tokio::test]
    async fn a_server_that_closes_the_connection_may_take_the_mail_later() {
        let undelivered = handed_to(LIMIT, async |stream| drop(stream)).await;
        assert!(!undelivered.is_permanent, "{undelivered:?}");
    }
}
