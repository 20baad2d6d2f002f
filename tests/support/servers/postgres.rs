//! A `PostgreSQL` server of the test's own, which is as durable as a real one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{Kind, Server, find, unprivileged};

pub type PostgresServer = Server<Postgres>;

/// The kind.
pub struct Postgres;

impl Kind for Postgres {
    const NAME: &'static str = "PostgreSQL";
    const USER: &'static str = "postgres";
    const READY: &'static str = "database system is ready to accept connections";
    const CRASH: &'static str = "QUIT";
    const DEFAULT: &'static str = "postgres";

    fn program() -> PathBuf {
        program("postgres")
    }

    fn create(folder: &Path) -> Command {
        let mut command = unprivileged::<Self>(&program("initdb"));
        command
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8"])
            // The C locale is everywhere, and the log is in English.
            .args(["--locale=C", "--no-sync", "--no-instructions", "--pgdata"])
            .arg(folder.join("data"));
        command
    }

    fn serve(folder: &Path, port: u16) -> Command {
        let mut command = unprivileged::<Self>(&Self::program());
        command.arg("-D").arg(folder.join("data"));
        for setting in [
            "fsync=on",
            "synchronous_commit=on",
            "full_page_writes=on",
            // After a crash it flushes each of a thousand files, which may take seconds.
            "recovery_init_sync_method=syncfs",
            "listen_addresses=127.0.0.1",
            &format!("port={port}"),
            &format!("unix_socket_directories={}", folder.display()),
            "logging_collector=off",
            // All tests of a program may share one server.
            "max_connections=200",
            "shared_buffers=32MB",
        ] {
            command.args(["-c", setting]);
        }
        let certificate = folder.join("server.crt");
        if certificate.exists() {
            let key = folder.join("server.key");
            command.args(["-c", "ssl=on", "-c"]).arg(format!("ssl_key_file={}", key.display()));
            command.arg("-c").arg(format!("ssl_cert_file={}", certificate.display()));
        }
        command
    }

    fn url(port: u16, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/{database}")
    }

    fn create_database(name: &str) -> String {
        format!("CREATE DATABASE {name}")
    }

    fn sql(port: u16, database: &str, statement: &str) -> Command {
        let mut command = Command::new(program("psql"));
        command
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .args(["--field-separator=\t", "--set=ON_ERROR_STOP=1", "--command", statement])
            .arg(Self::url(port, database))
            .env("PGCLIENTENCODING", "UTF8");
        command
    }

    fn shared() -> &'static OnceLock<Option<Server<Self>>> {
        static SHARED: OnceLock<Option<PostgresServer>> = OnceLock::new();
        &SHARED
    }
}

/// A program of the newest version that Debian has installed outside the `PATH`, else of the `PATH`.
fn program(name: &str) -> PathBuf {
    let root = Path::new("/usr/lib/postgresql");
    let mut versions: Vec<u32> = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable();
    let newest_first = versions.into_iter().rev();
    find(name, newest_first.map(|version| root.join(version.to_string()).join("bin")))
}
