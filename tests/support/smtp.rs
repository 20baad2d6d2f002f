//! A mail server whose answers a test decides, and what it was sent.

use std::sync::Arc;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::PATIENCE;

/// A mail, as it was handed in.
#[derive(Debug)]
pub struct Received {
    /// The commands before it, in their order.
    pub commands: Vec<String>,
    /// Its headers and its text, with line feeds only.
    pub mail: String,
}

impl Received {
    /// The value of a header that it has once; nothing of it is folded or decoded.
    pub fn header(&self, name: &str) -> &str {
        let (head, _) = self.mail.split_once("\n\n").unwrap();
        let mut values =
            head.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let value = values.next().unwrap();
        assert_eq!(values.next(), None, "{name} is there once");
        value
    }

    pub fn text(&self) -> &str {
        self.mail.split_once("\n\n").unwrap().1
    }
}

/// How connections are secured.
#[derive(Clone)]
pub enum Tls {
    None,
    /// From the beginning.
    Wrapper(TlsAcceptor),
    /// Once the client has asked for it.
    Start(TlsAcceptor),
}

/// The server. Dropping it ends it.
pub struct MailServer {
    pub port: u16,
    received: mpsc::Receiver<Received>,
    _serving: JoinSet<()>,
}

impl MailServer {
    /// Takes mails, and answers the text of each with what `answer` says of its recipient. It says too what QUIT is answered.
    pub async fn start(
        tls: Tls,
        answer: impl Fn(&str) -> &'static str + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (received_in, received) = mpsc::channel(100);
        let mut serving = JoinSet::new();
        let answer = Arc::new(answer);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (received, answer) = (received_in.clone(), Arc::clone(&answer));
                connections.spawn(connection(stream, tls.clone(), answer, received));
            }
        });
        Self { port, received, _serving: serving }
    }

    /// The next mail.
    pub async fn received(&mut self) -> Received {
        let next = tokio::time::timeout(PATIENCE, self.received.recv());
        next.await.expect("no mail came").unwrap()
    }

    /// Whether no mail has come other than those that were read.
    pub fn is_quiet(&mut self) -> bool {
        self.received.try_recv().is_err()
    }
}

async fn greeted<S: AsyncWrite + Unpin>(mut stream: S) -> Option<S> {
    stream.write_all(b"220 mail.test ESMTP\r\n").await.ok()?;
    stream.flush().await.ok()?;
    Some(stream)
}

/// Speaks with a client until it asks for TLS, which is all that it may do.
async fn asked_for_tls<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> Option<S> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let reply = match line.trim_end().split(' ').next().unwrap_or_default() {
            "EHLO" => "250-mail.test\r\n250 STARTTLS\r\n",
            "STARTTLS" => "220 go on\r\n",
            _ => "530 not without TLS\r\n",
        };
        stream.write_all(reply.as_bytes()).await.ok()?;
        if reply.starts_with("220") {
            return Some(stream.into_inner());
        }
    }
}

/// Serves one client until it is gone. One that does not trust the server goes away.
async fn connection(
    stream: TcpStream,
    tls: Tls,
    answer: Arc<impl Fn(&str) -> &'static str>,
    received: mpsc::Sender<Received>,
) -> Option<()> {
    match tls {
        Tls::None => talk(greeted(stream).await?, &*answer, received).await,
        Tls::Wrapper(tls) => {
            let stream = greeted(tls.accept(stream).await.ok()?).await?;
            talk(stream, &*answer, received).await
        }
        Tls::Start(tls) => {
            let stream = asked_for_tls(greeted(stream).await?).await?;
            talk(tls.accept(stream).await.ok()?, &*answer, received).await
        }
    }
}

/// Speaks with one client until it is gone.
async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &(impl Fn(&str) -> &'static str + ?Sized),
    received: mpsc::Sender<Received>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut commands = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let command = line.trim_end().to_owned();
        let verb = command.split(' ').next().unwrap_or_default().to_uppercase();
        commands.push(command);
        let reply = match verb.as_str() {
            "EHLO" => "250-mail.test\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n",
            "AUTH" => "235 welcome\r\n",
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await.ok()?;
                let mail = read_mail(&mut stream).await?;
                let to = commands.iter().find(|command| command.starts_with("RCPT")).unwrap();
                let reply = answer(to);
                let commands = std::mem::take(&mut commands);
                received.send(Received { commands, mail }).await.ok()?;
                reply
            }
            "QUIT" => answer("QUIT"),
            _ => "250 fine\r\n",
        };
        stream.write_all(reply.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
    }
}

/// Reads a mail up to its end; none if the client goes away before it.
async fn read_mail(stream: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut mail = String::new();
    while !mail.ends_with("\r\n.\r\n") {
        if stream.read_line(&mut mail).await.ok()? == 0 {
            return None;
        }
    }
    Some(mail.trim_end_matches("\r\n.\r\n").replace("\r\n", "\n"))
}
