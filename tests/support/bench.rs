//! A daemon in a folder of its own, and callers that keep their connection.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio_util::task::TaskTracker;

use crate::program;

/// Pools that are as wide as a server's.
const CONFIG: &str = "[executors.default]\ntype = \"threadpool\"\nmax_workers = 32\n\
    [executors.processpool]\ntype = \"processpool\"\nmax_workers = 16\n";

pub struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    /// Starts a daemon, and waits until it says that it is ready.
    pub async fn start(home: &Path, store: &str) -> Self {
        let config = format!("[store]\nurl = \"{store}\"\n{CONFIG}");
        std::fs::write(home.join("jobs.toml"), config).unwrap();
        let mut child = Command::new(program())
            .arg("serve")
            .current_dir(home)
            .env("RUNTIME_DIRECTORY", home)
            .env("STATE_DIRECTORY", home)
            .env("PUNCTUAL_LOG", "info")
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(" ready ") {
                break;
            }
        }
        // What it says from now on must not fill the pipe.
        TaskTracker::new().spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, socket: home.join("punctual.sock") }
    }

    /// A connection for adding many jobs one after the other.
    pub async fn adder(&self) -> Adder {
        Adder { stream: UnixStream::connect(&self.socket).await.unwrap(), answer: Vec::new() }
    }

    pub fn caller(&self) -> Caller {
        Caller { socket: self.socket.clone(), sender: None }
    }

    /// Memory of the process, as the kernel counts it.
    pub fn resident_megabytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap()));
        let status = status.unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// Time that the process has used the processors, in hundredths of a second.
    pub fn processor_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id().unwrap()));
        let stat = stat.unwrap();
        // After the name, which is in brackets and may hold anything.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    pub async fn stop(mut self) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        let process = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().await.unwrap().success());
    }
}

/// A client that does as little as it can, since what it takes of the processors the daemon does not have.
pub struct Adder {
    stream: UnixStream,
    answer: Vec<u8>,
}

impl Adder {
    /// Posts a body, and waits for the whole answer, which has to be a success.
    pub async fn post(&mut self, path: &str, body: &str) {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: punctual\r\ncontent-length: {length}\r\n\r\n");
        self.stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
        self.answer.clear();
        while !self.is_whole() {
            assert!(self.stream.read_buf(&mut self.answer).await.unwrap() > 0, "it hung up");
        }
        let answer = String::from_utf8_lossy(&self.answer);
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
        assert!(!answer.contains("\"status\":\"error\""), "{answer}");
    }

    pub async fn post_all(&mut self, path: &str, bodies: &[String]) {
        for body in bodies {
            self.post(path, body).await;
        }
    }

    fn is_whole(&self) -> bool {
        let Some(end) = self.answer.windows(4).position(|four| four == b"\r\n\r\n") else {
            return false;
        };
        let head = String::from_utf8_lossy(&self.answer[..end]).to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
        self.answer.len() == end + 4 + length.parse::<usize>().unwrap()
    }
}

/// A client with a connection of its own.
pub struct Caller {
    socket: PathBuf,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Caller {
    pub async fn get(&mut self, path: &str) -> Value {
        self.call("GET", path, Bytes::new()).await
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Value {
        self.call("POST", path, Bytes::from(body.to_string())).await
    }

    async fn call(&mut self, method: &str, path: &str, body: Bytes) -> Value {
        if self.sender.is_none() {
            let stream = UnixStream::connect(&self.socket).await.unwrap();
            let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
            TaskTracker::new().spawn(connection);
            self.sender = Some(sender);
        }
        let sender = self.sender.as_mut().unwrap();
        sender.ready().await.unwrap();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "punctual")
            .body(Full::new(body))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&bytes));
        serde_json::from_slice(&bytes).unwrap()
    }
}
