//! A `MariaDB` server of the test's own, which is as durable as a real one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{Kind, Server, find, unprivileged};

pub type MariaDbServer = Server<MariaDb>;

/// The kind.
pub struct MariaDb;

impl Kind for MariaDb {
    const NAME: &'static str = "MariaDB";
    const USER: &'static str = "mysql";
    const READY: &'static str = "ready for connections";
    const CRASH: &'static str = "KILL";
    const DEFAULT: &'static str = "test";

    fn program() -> PathBuf {
        // Debian installs it where a user's `PATH` does not look.
        find("mariadbd", [PathBuf::from("/usr/sbin")])
    }

    fn create(folder: &Path) -> Command {
        let sql = folder.join("default.sql");
        std::fs::write(&sql, format!("{};\n", Self::create_database(Self::DEFAULT))).unwrap();
        let mut command = unprivileged::<Self>(Path::new("mariadb-install-db"));
        command
            .args(common(folder))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
            .arg(format!("--extra-file={}", sql.display()))
            // A thousand flushes take seconds, and what is made here need not outlive the machine.
            .arg("--debug-no-sync");
        command
    }

    fn serve(folder: &Path, port: u16) -> Command {
        let mut command = unprivileged::<Self>(&Self::program());
        command
            .args(common(folder))
            .args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--max-connections=200"])
            .arg(format!("--port={port}"))
            .arg(format!("--socket={}", folder.join("socket").display()))
            .arg(format!("--pid-file={}", folder.join("pid").display()))
            .args(["--character-set-server=utf8mb4", "--skip-log-bin"])
            .args(["--innodb-flush-log-at-trx-commit=1", "--innodb-doublewrite=ON"]);
        let certificate = folder.join("server.crt");
        if certificate.exists() {
            command
                .arg(format!("--ssl-cert={}", certificate.display()))
                .arg(format!("--ssl-key={}", folder.join("server.key").display()));
        }
        command
    }

    fn url(port: u16, database: &str) -> String {
        format!("mysql://root@127.0.0.1:{port}/{database}")
    }

    fn create_database(name: &str) -> String {
        format!("CREATE DATABASE {name} CHARACTER SET utf8mb4")
    }

    fn sql(port: u16, database: &str, statement: &str) -> Command {
        let mut command = Command::new("mariadb");
        command
            .args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--user=root"])
            .arg(format!("--port={port}"))
            .args(["--default-character-set=utf8mb4", "--batch", "--skip-column-names"])
            .args(["--execute", statement, database])
            .env_remove("MYSQL_PWD");
        command
    }

    fn shared() -> &'static OnceLock<Option<Server<Self>>> {
        static SHARED: OnceLock<Option<MariaDbServer>> = OnceLock::new();
        &SHARED
    }
}

/// What the making of the data and the server have to agree about, at a small size.
fn common(folder: &Path) -> [String; 5] {
    [
        // The first of all, or it is not known.
        "--no-defaults".to_owned(),
        format!("--datadir={}", folder.join("data").display()),
        format!("--tmpdir={}", folder.display()),
        "--innodb-log-file-size=8M".to_owned(),
        "--innodb-buffer-pool-size=16M".to_owned(),
    ]
}
