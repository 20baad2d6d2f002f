//! A connection pooler before a `PostgreSQL` server of the test's own.

use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{Killed, Server, wait_until_ready};
use crate::is_installed;
use crate::port::Port;
use crate::servers::postgres::Postgres;

/// How it is set up.
#[derive(Debug, Clone, Copy)]
pub enum Pooling {
    /// As it is installed: each client has a session of its own.
    Default,
    /// Each transaction gets the session that was used last.
    Transaction,
    /// Each transaction gets the session that was not used for the longest time.
    RoundRobin,
}

/// A running pooler. Dropping it ends it.
pub struct PgBouncer {
    port: Port,
    _process: Killed,
    _folder: TempDir,
}

impl PgBouncer {
    /// Starts a pooler before this server.
    ///
    /// Where none is installed: a failure if `PUNCTUAL_REQUIRE_SERVERS` is 1, else a loud line and none.
    pub fn start(server: &Server<Postgres>, pooling: Pooling) -> Option<Self> {
        let installed = std::path::Path::new("/usr/sbin/pgbouncer");
        let program = if installed.exists() { installed } else { "pgbouncer".as_ref() };
        if !is_installed(program) {
            return None;
        }
        let folder = TempDir::new().unwrap();
        let port = Port::reserve();
        let mode = match pooling {
            Pooling::Default => "",
            Pooling::Transaction => "pool_mode = transaction\n",
            Pooling::RoundRobin => {
                "pool_mode = transaction\nserver_round_robin = 1\nmin_pool_size = 3\n"
            }
        };
        let file = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {}\nunix_socket_dir =\nauth_type = any\n{mode}",
            server.port(),
            port.number()
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if rustix::process::geteuid().is_root() {
            // It refuses to run as root.
            std::os::unix::fs::chown(folder.path(), Some(65534), None).unwrap();
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        command.arg(program).arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        wait_until_ready(process.stderr.take().unwrap(), "process up", "pgbouncer");
        Some(Self { port, _process: Killed(process), _folder: folder })
    }

    /// Where a database is behind it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port.number())
    }
}
