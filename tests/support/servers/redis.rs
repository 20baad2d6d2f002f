//! A Redis server of the test's own: on a free port, in a temporary directory, gone with the test.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::port::Port;

/// The running server.
pub struct RedisServer {
    child: Child,
    port: Port,
    _directory: tempfile::TempDir,
}

impl RedisServer {
    /// Starts a server, and waits until it says that it is ready.
    ///
    /// Where none is installed: a failure if `PUNCTUAL_REQUIRE_SERVERS` is 1, else a loud line and none.
    pub fn start() -> Option<Self> {
        if Command::new("redis-server").arg("--version").output().is_err() {
            let required =
                std::env::var("PUNCTUAL_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
            assert!(
                !required,
                "redis-server is not installed, and PUNCTUAL_REQUIRE_SERVERS asks for it"
            );
            eprintln!(
                "LEFT OUT: redis-server is not installed, so nothing was tested against a real Redis"
            );
            return None;
        }
        Some(Self::start_new())
    }

    fn start_new() -> Self {
        let port = Port::reserve();
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new("redis-server")
            .args([
                "--port",
                &port.number().to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .args(["--daemonize", "no", "--logfile", ""])
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let is_ready = lines.any(|line| line.unwrap().contains("Ready to accept connections"));
        assert!(is_ready, "redis-server did not start");
        // What the server says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port, _directory: directory }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port.number())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        drop(killed);
    }
}
