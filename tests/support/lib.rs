//! What tests and benchmarks share: a daemon in a folder of its own, clients and servers around it, and worlds for the
//! scheduler.
#![expect(
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::needless_pass_by_value,
    clippy::return_self_not_must_use,
    reason = "a test that cannot go on panics, and only tests use this"
)]

pub mod audit;
pub mod bench;
pub mod commands;
pub mod definitions;
pub mod executor;
pub mod jobs;
pub mod load;
pub mod metrics;
pub mod occurrences;
pub mod pools;
pub mod port;
pub mod raw;
pub mod servers;
pub mod smtp;
pub mod store;
pub mod terminal;
pub mod web;
pub mod workers;
pub mod world;

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

use punctual::client::Client;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe;
use tokio::time::Instant;

/// How long any signal may take. Only a test that fails waits for so long.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Lines of a daemon's log that a test shows when it fails.
const LOG_LINES: usize = 20;

/// The path of the program under test.
///
/// Cargo puts it two folders above the programs of tests and benchmarks, such as `target/debug/deps/it-…`.
pub fn program() -> &'static str {
    static PROGRAM: LazyLock<String> = LazyLock::new(|| {
        let own = std::env::current_exe().unwrap();
        let program = own.ancestors().nth(2).unwrap().join("punctual");
        assert!(program.exists(), "{} is missing: run the tests with cargo", program.display());
        program.to_str().unwrap().to_owned()
    });
    &PROGRAM
}

/// A folder with a configuration, in which daemons come and go.
pub struct Home {
    folder: TempDir,
    variables: Vec<(&'static str, String)>,
    /// A program that starts the one under test, with its arguments; none to start it straight.
    starter: Vec<String>,
}

impl Home {
    /// A folder with this `jobs.toml`.
    pub fn new(config: &str) -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("jobs.toml"), config).unwrap();
        Self { folder, variables: Vec::new(), starter: Vec::new() }
    }

    /// Sets a variable of the environment of what is started from now on.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.variables.push((name, value.to_owned()));
    }

    /// The same folder, whose programs a shell script starts: it ends with `exec "$@"`.
    pub fn starting_by(self, script: &str) -> Self {
        Self { starter: ["/bin/sh", "-c", script, "sh"].map(str::to_owned).into(), ..self }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.path().join("punctual.sock")
    }

    pub fn client(&self) -> Client {
        Client::new(self.socket())
    }

    pub fn write_config(&self, config: &str) {
        std::fs::write(self.path().join("jobs.toml"), config).unwrap();
    }

    /// The program, set up to live in this folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut words = self.starter.iter().map(String::as_str).chain([program()]);
        let mut command = Command::new(words.next().unwrap_or(program()));
        command
            .args(words)
            .args(arguments)
            .current_dir(self.path())
            .env("RUNTIME_DIRECTORY", self.path())
            .env("STATE_DIRECTORY", self.path())
            .env_remove("PUNCTUAL_SOCKET")
            .env_remove("NOTIFY_SOCKET")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the program to its end, with this to read.
    pub fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // Both ways at once: either pipe may be full.
            scope.spawn(move || stdin.write_all(input).unwrap());
            child.wait_with_output().unwrap()
        })
    }

    /// Runs the program, which has to succeed, and reads the JSON that it printed.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let answer = self.ok(&[&["--json"], arguments].concat());
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// Runs the program, which has to succeed, and gives what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the program, which has to fail, and gives its exit code and what it complained.
    pub fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// Starts a daemon and waits until it says that it is ready.
    pub fn start(&self) -> Daemon {
        self.start_with(&[])
    }

    /// Starts a daemon with more arguments.
    pub fn start_with(&self, more: &[&str]) -> Daemon {
        let mut daemon = self.spawn(more);
        daemon.wait_for("READY=1");
        daemon
    }

    /// Starts a daemon, and waits for nothing.
    pub fn spawn(&self, more: &[&str]) -> Daemon {
        self.spawn_in(&[], more)
    }

    /// Starts a daemon with these variables in its environment, and waits until it says that it is ready.
    pub fn start_in(&self, variables: &[(&str, &str)]) -> Daemon {
        let mut daemon = self.spawn_in(variables, &[]);
        daemon.wait_for("READY=1");
        daemon
    }

    /// Starts a daemon that logs to this, and waits for nothing.
    pub fn spawn_logging_to(&self, stderr: impl Into<Stdio>) -> Daemon {
        self.spawn_daemon(&[], &[], stderr.into(), Stdio::null())
    }

    fn spawn_in(&self, variables: &[(&str, &str)], more: &[&str]) -> Daemon {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        self.spawn_daemon(variables, more, log.try_clone().unwrap().into(), log.into())
    }

    fn spawn_daemon(
        &self,
        variables: &[(&str, &str)],
        more: &[&str],
        stderr: Stdio,
        stdout: Stdio,
    ) -> Daemon {
        let notify = self.path().join("notify.sock");
        if notify.exists() {
            std::fs::remove_file(&notify).unwrap();
        }
        let messages = UnixDatagram::bind(&notify).unwrap();
        // The daemon may run as another user.
        std::fs::set_permissions(&notify, std::fs::Permissions::from_mode(0o777)).unwrap();
        let child = self
            .command(&["serve", "--config", "jobs.toml"])
            .args(more)
            .envs(variables.iter().copied())
            .env("NOTIFY_SOCKET", &notify)
            .stderr(stderr)
            .stdout(stdout)
            .spawn()
            .unwrap();
        let (messages, listening) = listen(messages);
        Daemon { child, messages, listening, log: self.log() }
    }

    /// Where daemons log. A daemon that runs writes an entry a moment after the event; one that has ended has written all.
    pub fn log(&self) -> PathBuf {
        self.path().join("daemon.log")
    }

    /// What daemons have logged, once this is in it.
    pub fn log_with(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = std::fs::read_to_string(self.log()).unwrap();
            if log.contains(text) {
                return log;
            }
            assert!(Instant::now() < deadline, "{text:?} is not logged: {log}");
            std::thread::yield_now();
        }
    }

    /// A signal that commands can give: each line written to its path arrives here.
    pub fn signal(&self, name: &str) -> Signal {
        let path = self.path().join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600))
            .unwrap();
        // Opened for both ways, it never ends while writers come and go.
        let receiver = pipe::OpenOptions::new().read_write(true).open_receiver(&path).unwrap();
        Signal { lines: BufReader::new(receiver).lines(), path }
    }
}

/// Lines that commands write to a named pipe.
pub struct Signal {
    lines: Lines<BufReader<pipe::Receiver>>,
    pub path: PathBuf,
}

impl Signal {
    /// The next line.
    pub async fn next(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.lines.next_line())
            .await
            .expect("no signal came")
            .unwrap()
            .unwrap()
    }

    /// A shell command that gives this signal.
    pub fn shell(&self, text: &str) -> Value {
        let script = format!("echo \"{text}\" > {}", self.path.display());
        serde_json::json!({"type": "command", "argv": ["/bin/sh", "-c", script]})
    }
}

/// A running daemon. Dropping it kills it.
pub struct Daemon {
    child: Child,
    messages: mpsc::Receiver<Vec<String>>,
    /// The socket that the messages come from. It is read all the time: it has no place for many.
    listening: UnixDatagram,
    log: PathBuf,
}

/// The messages that arrive at a socket, line by line, until it is shut down. They are read all the time: a sender of
/// more of them than the socket has a place for would wait.
pub fn listen(socket: UnixDatagram) -> (mpsc::Receiver<Vec<String>>, UnixDatagram) {
    let (tell, messages) = mpsc::channel();
    let listening = socket.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            match socket.recv(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    let text = String::from_utf8_lossy(&buffer[..length]);
                    // The receiver may be gone; the daemon goes on all the same.
                    drop(tell.send(text.lines().map(str::to_owned).collect()));
                }
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::Interrupted),
            }
        }
    });
    (messages, listening)
}

impl Daemon {
    /// Waits until the daemon sends this line to its service manager.
    pub fn wait_for(&mut self, line: &str) {
        self.wait_until(|said| said == line);
    }

    /// Waits until the daemon sends such a line to its service manager, and returns it.
    pub fn wait_until(&mut self, is_wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let mut lines = self.message().into_iter();
            if let Some(line) = lines.find(|line| is_wanted(line)) {
                return line;
            }
        }
    }

    /// The next message to the service manager, line by line.
    pub fn message(&mut self) -> Vec<String> {
        self.messages.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            panic!("the daemon says nothing ({error}):\n{log}");
        })
    }

    /// How often the daemon has sent this line to its service manager, among the messages not looked at yet.
    pub fn told(&mut self, line: &str) -> usize {
        self.messages.try_iter().flatten().filter(|said| said == line).count()
    }

    /// Waits until the daemon says anything, but only for so long.
    pub fn hear_for(&mut self, time: Duration) {
        drop(self.messages.recv_timeout(time));
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Kills the daemon as a crash would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the daemon to end, and waits until it has.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().unwrap()
    }

    /// Waits until the daemon has ended.
    pub fn ended(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (ended, log) = (self.child.try_wait(), std::fs::read_to_string(&self.log));
            let log = log.unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            eprintln!("the daemon ({ended:?}) said last:\n{}", last.join("\n"));
        }
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(self.listening.shutdown(Shutdown::Both));
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a test fails, instead of being left out, when something that it needs is not installed.
pub fn is_required() -> bool {
    std::env::var("PUNCTUAL_REQUIRE_SERVERS").is_ok_and(|value| value == "1")
}

/// Whether a program is installed. If it is not, and is not required, a line says that its tests are left out.
pub fn is_installed(program: impl AsRef<Path>) -> bool {
    let program = program.as_ref();
    let name = program.file_name().unwrap().display();
    if Command::new(program).arg("--version").output().is_ok() {
        return true;
    }
    assert!(!is_required(), "{name} is not installed, and PUNCTUAL_REQUIRE_SERVERS asks for it");
    left_out(&format!("{name} is not installed, so nothing was tested against it"));
    false
}

/// Says why a part of a test is left out.
pub fn left_out(why: &str) {
    eprintln!("LEFT OUT: {why}");
}

/// All rows of the ledger of a job.
pub async fn ledger(client: &Client, job: &str) -> Vec<Value> {
    let page = client.runs(&format!("limit=1000&job={job}")).await.unwrap();
    page["runs"].as_array().unwrap().clone()
}

/// Waits until a run has ended.
pub async fn ended(client: &Client, run_id: &str) -> Value {
    client.wait(run_id, PATIENCE.as_secs()).await.unwrap()
}

/// A text field.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text {key} in {value}"))
}

/// Runs a job now and waits until that run has ended.
pub async fn run_to_end(client: &Client, job: &str) -> Value {
    let run = client.run(job).await.unwrap();
    ended(client, text(&run, "id")).await
}
