//! Private database servers: each in a temporary folder, on a free port, gone with its test.
//!
//! Two small shells see to that, however the test process ends, be it killed or with the server in a
//! static. One ends the server when a pipe from the test process closes. The other removes the folder
//! when no process is left that has to do with it.

pub mod mariadb;
pub mod pgbouncer;
pub mod postgres;
pub mod redis;

use std::io::{BufRead, BufReader, PipeWriter, Read};
use std::marker::PhantomData;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use crate::port::Port;
use crate::{is_installed, is_root};

/// Removes a folder when all who hold its pipe are gone.
const KEEP: &str = r#"cat; rm -rf "$1""#;

/// Runs a program that makes or serves a folder. It and its children hold the folder's pipe as 3.
const HOLD: &str = r#"exec "$@" 3>&2 2>&1 </dev/null"#;

/// Runs a server until the input ends, and ends it with a signal.
///
/// A shell's background process would ignore `QUIT` until the server has set a handler. The shell
/// lets go of the log, which then ends with the last process of the server.
const SERVE: &str = r#"
signal=$1
shift
exec 3>&2 2>&1
env --default-signal=QUIT "$@" </dev/null &
exec >/dev/null 2>&1
read -r line
kill -s "$signal" "$!"
wait
"#;

/// How a kind of server is made and run.
pub trait Kind: Sized + 'static {
    const NAME: &'static str;
    /// The user that runs it where the tests run as root.
    const USER: &'static str;
    /// What it logs when it is ready.
    const READY: &'static str;
    /// The signal that ends it at once, as a crash would.
    const CRASH: &'static str;
    /// The database that is there from the start.
    const DEFAULT: &'static str;

    fn program() -> PathBuf;
    /// Makes its data in this folder.
    fn create(folder: &Path) -> Command;
    /// Serves that folder on this port, and logs to the standard error output.
    fn serve(folder: &Path, port: u16) -> Command;
    fn url(port: u16, database: &str) -> String;
    fn create_database(name: &str) -> String;
    /// Runs a statement, and prints its rows: a line each, tabs between the columns.
    fn sql(port: u16, database: &str, statement: &str) -> Command;
    /// The server that a whole test program shares.
    fn shared() -> &'static OnceLock<Option<Server<Self>>>;
}

/// A server of this kind, which runs, or will again. Dropping it ends it.
pub struct Server<K> {
    port: Port,
    // Before the folder, so that it is dropped before.
    running: Mutex<Option<Running>>,
    folder: Folder,
    kind: PhantomData<K>,
}

impl<K: Kind> Server<K> {
    /// Starts a server, and waits until it says that it is ready.
    ///
    /// Where none is installed: a failure if `PUNCTUAL_REQUIRE_SERVERS` is 1, else a loud line and none.
    pub fn start() -> Option<Self> {
        is_installed(K::program()).then(Self::start_new)
    }

    fn start_new() -> Self {
        let folder = Folder::new();
        if is_root() {
            output(Command::new("chown").arg(format!("{}:", K::USER)).arg(&folder.path));
        }
        output(&mut folder.shell(HOLD, &[], &K::create(&folder.path)));
        let port = Port::reserve();
        let running = Running::start::<K>(&folder, port.number());
        Self { port, running: Mutex::new(Some(running)), folder, kind: PhantomData }
    }

    /// The one server of this test program, which ends with the process. Each test takes a
    /// [`Self::database`] of its own, and leaves the server running.
    pub fn shared() -> Option<&'static Self> {
        K::shared().get_or_init(Self::start).as_ref()
    }

    /// Where the default database is.
    pub fn url(&self) -> String {
        K::url(self.port.number(), K::DEFAULT)
    }

    /// Makes a database, which must not exist yet, and returns its URL.
    pub fn database(&self, name: &str) -> String {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        assert!(name.bytes().all(plain), "this name needs quotes: {name}");
        self.sql(K::DEFAULT, &K::create_database(name));
        K::url(self.port.number(), name)
    }

    /// Runs a statement in a database, and gives its rows: a line each, tabs between the columns.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        output(&mut K::sql(self.port.number(), database, statement))
    }

    /// Ends the server as a crash would: with nothing flushed, and with every connection cut.
    pub fn stop(&self) {
        let running = self.running.lock().unwrap().take();
        assert!(running.is_some(), "the server does not run");
    }

    /// Starts it again after [`Self::stop`], on the same port and data.
    pub fn start_again(&self) {
        let mut running = self.running.lock().unwrap();
        assert!(running.is_none(), "the server runs");
        *running = Some(Running::start::<K>(&self.folder, self.port.number()));
    }

    /// Gives it a certificate and its key, both as PEM: it offers TLS with them from its next start on.
    pub fn certify(&self, certificate: &str, key: &str) {
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.folder.path.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            if is_root() {
                output(Command::new("chown").arg(format!("{}:", K::USER)).arg(&path));
            }
        }
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// All that it has on the disk.
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// The processes that end what this one leaves.
    pub fn shells(&self) -> [u32; 2] {
        [self.running.lock().unwrap().as_ref().unwrap().shell.id(), self.folder.keeper.id()]
    }
}

/// A folder that does not outlive the processes that have to do with it.
struct Folder {
    path: PathBuf,
    keeper: Child,
    pipe: Option<PipeWriter>,
}

impl Folder {
    fn new() -> Self {
        let path = tempfile::Builder::new().prefix("punctual-").tempdir().unwrap().keep();
        let (reader, writer) = std::io::pipe().unwrap();
        let keeper = Command::new("sh")
            .args(["-c", KEEP, "sh"])
            .arg(&path)
            // The terminal's interrupt is for the test, and the shells have to outlive it.
            .process_group(0)
            .stdin(reader)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { path, keeper, pipe: Some(writer) }
    }

    /// A shell that runs a command and holds this folder.
    fn shell(&self, script: &str, arguments: &[&str], command: &Command) -> Command {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", script, "sh"])
            .args(arguments)
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(&self.path)
            .process_group(0)
            .stderr(self.pipe.as_ref().unwrap().try_clone().unwrap());
        shell
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.pipe = None;
        drop(self.keeper.wait());
    }
}

/// A shell with a server. Dropping it ends both.
struct Running {
    shell: Child,
}

impl Running {
    /// Starts a server, and waits until it is ready.
    fn start<K: Kind>(folder: &Folder, port: u16) -> Self {
        let mut shell = folder
            .shell(SERVE, &[K::CRASH], &K::serve(&folder.path, port))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let log = shell.stdout.take().unwrap();
        let running = Self { shell };
        wait_until_ready(log, K::READY, K::NAME);
        running
    }
}

/// Reads a server's log up to the line that says that it is ready. The rest is read as well, for it must not fill the pipe.
fn wait_until_ready(log: impl Read + Send + 'static, ready: &str, name: &str) {
    let mut log = BufReader::new(log);
    let mut said = String::new();
    while !said.contains(ready) {
        assert!(log.read_line(&mut said).unwrap() > 0, "{name} did not start:\n{said}");
    }
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
}

/// A process that is killed when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // This closes the shell's input.
        drop(self.shell.wait());
    }
}

/// The program in the first of these folders that has it, else for the `PATH` to find.
fn find(name: &str, folders: impl IntoIterator<Item = PathBuf>) -> PathBuf {
    let mut candidates = folders.into_iter().map(|folder| folder.join(name));
    candidates.find(|path| path.exists()).unwrap_or_else(|| PathBuf::from(name))
}

/// A program of a server. As root it runs as the user for that, because no one may get root through a
/// server that has no password, and because `PostgreSQL` refuses to.
fn unprivileged<K: Kind>(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let user = K::USER;
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={user}"))
        .arg(format!("--regid={user}"))
        .arg("--clear-groups")
        .arg(program);
    command
}

/// Runs a command, which has to succeed, and gives what it printed.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}:\n{printed}{error}");
    printed
}
