//! An HTTP server whose every byte a test decides, and the requests that it got.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::PATIENCE;

/// What the server was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Such as `GET /path HTTP/1.1`.
    pub line: String,
    headers: Vec<(String, String)>,
    pub body: String,
    /// Which of the server's connections it came on, from 1.
    pub connection: usize,
}

impl Asked {
    /// A header's value; its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        let (_, value) = found.next()?;
        assert!(found.next().is_none(), "{name} came twice");
        Some(value)
    }
}

/// What the server does, step by step.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends this.
    Send(String),
    /// Sends this again and again until the client is gone.
    Flood(String),
    /// Does nothing until the client is gone.
    Hang,
    /// Waits until the test lets one go on.
    Wait(Arc<Semaphore>),
    /// Closes the connection, as is proper.
    Close,
    /// Breaks the connection off, as a crash would.
    Reset,
}

/// An answer as it should be.
pub fn answer(status: &str, body: &str) -> Vec<Step> {
    vec![Step::Send(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()))]
}

/// An answer that sends the client elsewhere.
pub fn redirect(status: &str, to: &str) -> Vec<Step> {
    vec![Step::Send(format!("HTTP/1.1 {status}\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"))]
}

type Reply = Arc<dyn Fn(&Asked) -> Vec<Step> + Send + Sync>;

/// The server. Dropping it ends it.
pub struct Web {
    pub address: SocketAddr,
    asked: mpsc::Receiver<Asked>,
    gone: mpsc::Receiver<()>,
    _serving: JoinSet<()>,
}

impl Web {
    /// Answers each request with these steps.
    pub async fn start(reply: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::listen(None, Arc::new(reply)).await
    }

    /// The same over TLS.
    pub async fn start_tls(
        config: ServerConfig,
        reply: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(TlsAcceptor::from(Arc::new(config))), Arc::new(reply)).await
    }

    async fn listen(tls: Option<TlsAcceptor>, reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ((asked_in, asked), (gone_in, gone)) = (mpsc::channel(10_000), mpsc::channel(100));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let serve = Serve {
                    number: connections.len() + 1,
                    reply: Arc::clone(&reply),
                    asked: asked_in.clone(),
                    gone: gone_in.clone(),
                };
                connections.spawn(serve.connection(tls.clone(), stream));
            }
        });
        Self { address, asked, gone, _serving: serving }
    }

    /// A URL of this server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The next request.
    pub async fn asked(&mut self) -> Asked {
        let next = tokio::time::timeout(PATIENCE, self.asked.recv());
        next.await.expect("nobody asked").unwrap()
    }

    /// Whether nothing more was asked until now.
    pub fn is_quiet(&mut self) -> bool {
        self.asked.try_recv().is_err()
    }

    /// Waits until a client has left while the server hung or flooded.
    pub async fn left(&mut self) {
        let next = tokio::time::timeout(PATIENCE, self.gone.recv());
        next.await.expect("the client stays").unwrap();
    }
}

struct Serve {
    number: usize,
    reply: Reply,
    asked: mpsc::Sender<Asked>,
    gone: mpsc::Sender<()>,
}

impl Serve {
    async fn connection(self, tls: Option<TlsAcceptor>, stream: TcpStream) {
        let Some(tls) = tls else { return self.requests(stream).await };
        // A client that does not trust this server leaves here.
        if let Ok(stream) = tls.accept(stream).await {
            self.requests(stream).await;
        }
    }

    async fn requests<S: AsyncRead + AsyncWrite + Resettable + Unpin>(&self, stream: S) {
        let mut stream = BufReader::new(stream);
        while let Some(asked) = self.read(&mut stream).await {
            let steps = (self.reply)(&asked);
            self.asked.send(asked).await.unwrap();
            if !self.take_all(steps, &mut stream).await {
                return;
            }
        }
    }

    /// Whether the connection is still of use afterwards.
    async fn take_all<S>(&self, steps: Vec<Step>, stream: &mut BufReader<S>) -> bool
    where
        S: AsyncRead + AsyncWrite + Resettable + Unpin,
    {
        for step in steps {
            if !self.take(step, stream).await {
                return false;
            }
        }
        true
    }

    async fn read<S: AsyncRead + Unpin>(&self, stream: &mut BufReader<S>) -> Option<Asked> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            if line.trim().is_empty() {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let headers: Vec<(String, String)> = lines
            .iter()
            .skip(1)
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut asked = Asked {
            line: lines.first()?.clone(),
            headers,
            body: String::new(),
            connection: self.number,
        };
        let length: usize = asked.header("content-length").unwrap_or("0").parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        asked.body = String::from_utf8(body).unwrap();
        Some(asked)
    }

    async fn take<S>(&self, step: Step, stream: &mut BufReader<S>) -> bool
    where
        S: AsyncRead + AsyncWrite + Resettable + Unpin,
    {
        match step {
            Step::Send(text) => {
                stream.write_all(text.as_bytes()).await.is_ok() && stream.flush().await.is_ok()
            }
            Step::Flood(text) => {
                while stream.write_all(text.as_bytes()).await.is_ok() {}
                self.gone.send(()).await.unwrap();
                false
            }
            Step::Hang => {
                // Whether it closes or resets, it is gone.
                drop(stream.read(&mut [0]).await);
                self.gone.send(()).await.unwrap();
                false
            }
            Step::Wait(gate) => {
                gate.acquire().await.unwrap().forget();
                true
            }
            Step::Close => {
                // It may have gone first.
                drop(stream.shutdown().await);
                false
            }
            Step::Reset => {
                stream.get_ref().reset_at_close();
                false
            }
        }
    }
}

/// A connection that can be cut.
trait Resettable {
    fn reset_at_close(&self);
}

impl Resettable for TcpStream {
    fn reset_at_close(&self) {
        self.set_zero_linger().unwrap();
    }
}

impl Resettable for tokio_rustls::server::TlsStream<TcpStream> {
    fn reset_at_close(&self) {
        self.get_ref().0.reset_at_close();
    }
}
