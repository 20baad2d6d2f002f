//! What a daemon answers to `GET /metrics`, read as Prometheus reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::PATIENCE;
use crate::raw::Raw;

/// The program that checks metrics, rules and their tests.
pub const PROMTOOL: &str = "promtool";

/// One answer.
pub struct Scrape {
    pub text: String,
    /// The values by sample, such as `name{label="value"}`.
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// Asks the daemon at this socket.
    pub fn of(socket: &Path) -> Self {
        let answer = Raw::connect(socket).ask("GET", "/metrics", b"").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let kind = answer.header("content-type");
        assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"));
        Self::read(String::from_utf8(answer.body).unwrap())
    }

    /// Reads an answer.
    pub fn read(text: String) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap_or_else(|error| panic!("{error}: {line}")))
        };
        let samples: Vec<(String, f64)> = lines.map(sample).collect();
        let count = samples.len();
        let samples: BTreeMap<String, f64> = samples.into_iter().collect();
        assert_eq!(samples.len(), count, "a sample comes twice");
        Self { text, samples }
    }

    /// The value of a sample, if it is there.
    pub fn find(&self, sample: &str) -> Option<f64> {
        self.samples.get(sample).copied()
    }

    /// The value of a sample that has to be there.
    pub fn value(&self, sample: &str) -> f64 {
        self.find(sample).unwrap_or_else(|| panic!("{sample} is not in\n{}", self.text))
    }

    /// The samples whose name with labels begins with this.
    pub fn beginning(&self, with: &str) -> impl Iterator<Item = (&String, f64)> {
        let samples = self.samples.iter().filter(move |(name, _)| name.starts_with(with));
        samples.map(|(name, value)| (name, *value))
    }

    /// The names of all metrics.
    pub fn metrics(&self) -> BTreeSet<&str> {
        let types = self.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.map(|line| line.split(' ').next().unwrap()).collect()
    }
}

/// Sends `GET path` over TCP, and returns the status and the body of the answer.
pub fn get(address: SocketAddr, method: &str, path: &str, host: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Runs promtool in a folder with this input. It has to succeed, and to have no complaint.
pub fn promtool(folder: &Path, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(PROMTOOL)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()).unwrap());
        child.wait_with_output().unwrap()
    });
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said
}
