//! A Redis server of the test's own: on a free port, in a temporary directory, gone with the test.

use std::process::{Command, Stdio};

use super::{Killed, wait_until_ready};
use crate::is_installed;
use crate::port::Port;

/// The running server.
pub struct RedisServer {
    _process: Killed,
    port: Port,
    _directory: tempfile::TempDir,
}

impl RedisServer {
    /// Starts a server, and waits until it says that it is ready.
    ///
    /// Where none is installed: a failure if `PUNCTUAL_REQUIRE_SERVERS` is 1, else a loud line and none.
    pub fn start() -> Option<Self> {
        is_installed("redis-server").then(Self::start_new)
    }

    fn start_new() -> Self {
        let port = Port::reserve();
        let directory = tempfile::tempdir().unwrap();
        let mut process = Command::new("redis-server")
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
        wait_until_ready(
            process.stdout.take().unwrap(),
            "Ready to accept connections",
            "redis-server",
        );
        Self { _process: Killed(process), port, _directory: directory }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port.number())
    }
}
