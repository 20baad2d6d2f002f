//! A test's own machine: a real systemd in a container without a network, in which this program can be installed.
//!
//! The root filesystem is made once (`image.sh`) and kept in the target folder. A machine starts from it, keeps its writes in
//! memory, and boots in less than a second. It ends with its [`Machine`], even if the test process is killed.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError, TrySendError, sync_channel};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use support::{PATIENCE, is_required, is_root, left_out, listen, program};

/// Programs that machines need on the host, each with the Debian package that has it.
const PROGRAMS: [(&str, &str); 3] = [
    ("systemd-nspawn", "systemd-container"),
    ("mmdebstrap", "mmdebstrap"),
    ("dpkg-shlibdeps", "dpkg-dev"),
];

/// Succeeds if the kernel allows the namespaces and mounts of a machine.
const PROBE: &str = r#"
set -e
cd "$(mktemp -d)"
trap 'cd / && umount "$OLDPWD" && rmdir "$OLDPWD"' EXIT
mount -t tmpfs tmpfs "$PWD"
cd "$PWD"
mkdir lower upper work root
mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay root
umount root
"#;

/// The environment of commands in a machine.
const ENVIRONMENT: [&str; 3] = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
];

/// Time between two checks of a condition while the machine logs nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Number of journal lines that a failing test shows.
const LOG_LINES: &str = "60";

/// The due time of a job that only runs by hand.
pub(crate) const NEVER: &str = "2100-01-01T00:00:00Z";

/// The unit of the daemon.
pub(crate) const UNIT: &str = "punctual.service";

/// A booted machine. Dropping it ends it at once, as a power cut would.
pub(crate) struct Machine {
    /// The shell that runs the machine until its stdin ends.
    shell: Child,
    /// The container's messages: that it has booted, and the host's id of its first process.
    messages: mpsc::Receiver<Vec<String>>,
    /// The socket of these messages.
    listening: UnixDatagram,
    folder: PathBuf,
    /// The machine's first process, as the host sees it.
    leader: u32,
}

impl Machine {
    /// Boots a machine that has this program's package in `/packages`, but not installed.
    ///
    /// Returns `None` and prints the reason if there is neither root nor sudo, or the kernel does not allow it.
    pub(crate) fn boot() -> Option<Self> {
        if !is_possible() {
            return None;
        }
        let (image, packages) = (image(), packages());
        let folder = tempfile::Builder::new().prefix("punctual-").tempdir().unwrap().keep();
        let notify = folder.join("notify.sock");
        let (messages, listening) = listen(UnixDatagram::bind(&notify).unwrap());
        let console = File::create(folder.join("console.log")).unwrap();
        let name = folder.file_name().unwrap().to_str().unwrap().replace('.', "");
        let shell = as_root("env")
            .arg(format!("NOTIFY_SOCKET={}", notify.display()))
            .args(["unshare", "--mount", "sh"])
            .arg(script("serve.sh"))
            .args([&name.to_lowercase()])
            .args([&image, packages, &folder])
            .stdin(Stdio::piped())
            .stdout(console.try_clone().unwrap())
            .stderr(console)
            .spawn()
            .unwrap();
        let mut machine = Self { shell, messages, listening, folder, leader: 0 };
        machine.wait_for_boot();
        Some(machine)
    }

    /// Boots a machine and installs this program's package, so that the daemon runs as it does after `apt install`.
    pub(crate) fn installed() -> Option<Self> {
        let machine = Self::boot()?;
        machine.install();
        Some(machine)
    }

    /// Installs this program's package.
    pub(crate) fn install(&self) {
        self.shell("dpkg --install /packages/punctual_*-1_*.deb");
        self.wait_until("the daemon runs", |machine| machine.property("ActiveState") == "active");
    }

    /// Waits until the machine has booted completely.
    fn wait_for_boot(&mut self) {
        self.leader = self.message("X_NSPAWN_LEADER_PID=").parse().unwrap();
        self.message("READY=1");
        let state = self.run(&["systemctl", "is-system-running", "--wait"]);
        let state = String::from_utf8_lossy(&state.stdout).into_owned();
        let failed = || self.ok(&["systemctl", "--failed", "--no-legend"]);
        assert_eq!(state.trim(), "running", "{}", failed());
    }

    /// Waits for a message with this prefix, and returns the rest of it.
    fn message(&self, start: &str) -> String {
        loop {
            let said = self.messages.recv_timeout(PATIENCE).unwrap_or_else(|error| {
                panic!("the machine says nothing ({error}):\n{}", self.console());
            });
            if let Some(rest) = said.iter().find_map(|line| line.strip_prefix(start)) {
                return rest.to_owned();
            }
        }
    }

    /// Reboots the machine, and waits until it has booted. Its files stay.
    pub(crate) fn reboot(&mut self) {
        // The connection to the machine may end before the answer comes.
        drop(self.run(&["systemctl", "reboot"]));
        self.wait_for_boot();
    }

    /// The result of a command that root runs in the machine.
    pub(crate) fn run(&self, command: &[&str]) -> Output {
        self.command(command).output().unwrap()
    }

    /// The output of a command that root runs in the machine, which has to succeed.
    pub(crate) fn ok(&self, command: &[&str]) -> String {
        succeeded(&mut self.command(command))
    }

    /// The exit code and the stderr of a command that root runs in the machine, which has to fail.
    pub(crate) fn fails(&self, command: &[&str]) -> (i32, String) {
        let output = self.run(command);
        assert!(!output.status.success(), "{command:?} succeeded");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// The output of a shell script that root runs in the machine, which has to succeed.
    pub(crate) fn shell(&self, script: &str) -> String {
        self.ok(&["sh", "-e", "-c", script])
    }

    /// The result of a command that another user runs in the machine.
    pub(crate) fn run_as(&self, user: &str, command: &[&str]) -> Output {
        self.run(&[&["runuser", "-u", user, "--"], command].concat())
    }

    /// The JSON that this program prints, which has to succeed.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let answer = self.ok(&[&["punctual", "--json"], arguments].concat());
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// The JSON that this program prints, if it succeeds.
    pub(crate) fn try_json(&self, arguments: &[&str]) -> Option<Value> {
        let output = self.run(&[&["punctual", "--json"], arguments].concat());
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// A command that root runs in the machine.
    pub(crate) fn command(&self, command: &[&str]) -> Command {
        let mut entering = as_root("nsenter");
        entering
            .args(["--target", &self.leader.to_string()])
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"])
            .args(["env", "-i"])
            .args(ENVIRONMENT)
            .args(command)
            .stdin(Stdio::null());
        entering
    }

    /// Writes a file in the machine, and makes its folder.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let script = r#"mkdir -p "$(dirname "$1")" && cat >"$1""#;
        let mut writing = self.command(&["sh", "-c", script, "sh", path]);
        let mut child = writing.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{path}");
    }

    /// Writes a drop-in of the daemon's unit, as `systemctl edit` does. It takes effect at the next start.
    pub(crate) fn drop_in(&self, name: &str, text: &str) {
        self.write(&format!("/etc/systemd/system/{UNIT}.d/{name}.conf"), text);
        self.ok(&["systemctl", "daemon-reload"]);
    }

    /// A property of the daemon's unit, such as `MainPID`.
    pub(crate) fn property(&self, name: &str) -> String {
        let show = ["systemctl", "show", "--value", "--property", name, UNIT];
        self.ok(&show).trim().to_owned()
    }

    /// The journal of the daemon's unit since the machine was made.
    pub(crate) fn journal(&self) -> String {
        self.ok(&["journalctl", "--quiet", "--no-pager", "--output=short-precise", "--unit", UNIT])
    }

    /// Waits until the condition is true. It is checked whenever the machine logs something, and each second.
    pub(crate) fn wait_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut following = self
            .command(&["journalctl", "--quiet", "--follow", "--lines=0"])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let lines = BufReader::new(following.stdout.take().unwrap()).lines();
        let (wake, woken) = sync_channel(1);
        // The thread ends with the process that it reads from. If the queue is full, a check is pending already.
        let reader = std::thread::spawn(move || {
            let is_heard = |_: &String| wake.try_send(()) != Err(TrySendError::Disconnected(()));
            lines.map_while(Result::ok).take_while(is_heard).for_each(drop);
        });
        while !holds(self) {
            assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}\n{}", self.journal());
            let news = woken.recv_timeout(LOOK_AGAIN);
            assert_ne!(news, Err(RecvTimeoutError::Disconnected), "the journal ended: {what}");
        }
        end(&mut following);
        reader.join().unwrap();
    }

    /// Waits until systemd has started another daemon than the one with this process id.
    pub(crate) fn wait_for_another_daemon(&self, before: &str) {
        self.wait_until("another daemon runs", |machine| {
            // The process id is read first: a state that is read later belongs to that process or to a later one.
            let daemon = machine.property("MainPID");
            daemon != before && daemon != "0" && machine.property("SubState") == "running"
        });
    }

    /// Makes a named pipe, through which jobs report what they do.
    pub(crate) fn pipe(&self, name: &str) -> String {
        let path = format!("/var/lib/punctual/{name}");
        self.ok(&["mkfifo", "--mode=666", &path]);
        path
    }

    /// Waits for a line on a named pipe, and returns it.
    pub(crate) fn line(&self, pipe: &str) -> String {
        let patience = PATIENCE.as_secs().to_string();
        self.ok(&["timeout", &patience, "head", "--lines=1", pipe]).trim().to_owned()
    }

    /// Adds a job that runs a shell script, and only by hand.
    pub(crate) fn add(&self, id: &str, options: &[&str], script: &str) {
        let add = ["punctual", "add", id, "--at", NEVER];
        self.ok(&[&add[..], options, &["--shell", "--", script]].concat());
    }

    /// Runs a shell script as a job with these options. Returns whether the run succeeded, and the output of `run --wait`.
    pub(crate) fn run_job(&self, options: &[&str], script: &str) -> (bool, String) {
        let add = ["punctual", "add", "probe", "--replace", "--at", NEVER];
        self.ok(&[&add[..], options, &["--shell", "--", script]].concat());
        self.run_to_end("probe")
    }

    /// Runs a job. Returns whether the run succeeded, and the output of `run --wait`.
    pub(crate) fn run_to_end(&self, id: &str) -> (bool, String) {
        let run = self.run(&["punctual", "run", id, "--wait"]);
        let printed = [run.stdout, run.stderr].concat();
        (run.status.success(), String::from_utf8(printed).unwrap())
    }

    /// Starts job `long`, which runs until it gets SIGTERM, and waits until it runs. Returns the pipe to which each run writes
    /// `run`, and the file to which a run that gets SIGTERM writes `asked`.
    pub(crate) fn start_work_that_notes_a_request_to_end(&self) -> (String, &'static str) {
        let said = self.pipe("said");
        let asked = "/var/lib/punctual/asked";
        let script = format!(
            "trap 'echo asked > {asked}; exit 1' TERM; echo run > {said}; sleep 600 & wait"
        );
        self.add("long", &[], &script);
        self.ok(&["punctual", "run", "long"]);
        assert_eq!(self.line(&said), "run");
        (said, asked)
    }

    /// Starts the machine's `PostgreSQL`, also at each boot, and returns the URL of a database of the daemon's user.
    pub(crate) fn postgres(&self) -> &'static str {
        self.shell(
            "systemctl enable --now --quiet postgresql 2>&1
             runuser -u postgres -- createuser punctual
             runuser -u postgres -- createdb --owner=punctual --encoding=UTF8 --template=template0 punctual",
        );
        // Peer authentication needs no password.
        "postgres://punctual@localhost/punctual?host=/run/postgresql"
    }

    fn console(&self) -> String {
        std::fs::read_to_string(self.folder.join("console.log")).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal = ["journalctl", "--quiet", "--no-pager", "--lines", LOG_LINES];
            let journal = self.run(&journal).stdout;
            eprintln!("the machine logged last:\n{}", String::from_utf8_lossy(&journal));
        }
        drop(self.shell.stdin.take());
        drop(self.shell.wait());
        drop(self.listening.shutdown(Shutdown::Both));
    }
}

/// True if this host can run machines. If not, prints the reason.
fn is_possible() -> bool {
    static POSSIBLE: OnceLock<bool> = OnceLock::new();
    *POSSIBLE.get_or_init(|| {
        let Some(why) = obstacle() else { return true };
        left_out(&format!("{why}, so nothing was tested under a real systemd"));
        false
    })
}

/// Why this host cannot run machines. A missing program is an error if `PUNCTUAL_REQUIRE_SERVERS` is 1.
fn obstacle() -> Option<String> {
    if !is_root() && !succeeds(&mut as_root("true")) {
        return Some("neither root nor sudo without a password is there".to_owned());
    }
    for (program, package) in PROGRAMS {
        if !succeeds(Command::new(program).arg("--version")) {
            let why = format!("{program} is not installed (Debian package {package})");
            assert!(!is_required(), "{why}, and PUNCTUAL_REQUIRE_SERVERS asks for it");
            return Some(why);
        }
    }
    let namespaces = ["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--fork"];
    let probe = as_root("unshare").args(namespaces).args(["sh", "-c", PROBE]).output().unwrap();
    (!probe.status.success()).then(|| {
        let said = String::from_utf8_lossy(&probe.stderr);
        format!("the kernel allows no container with an overlay ({})", said.trim())
    })
}

/// The folder for the root filesystem and the packages.
fn cache() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("machine");
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// A lock that is held while a test program makes what the programs share.
fn lock() -> File {
    let file = File::create(cache().join("lock")).unwrap();
    file.lock().unwrap();
    file
}

/// The root filesystem of machines, which is made if it does not exist.
fn image() -> PathBuf {
    let recipe = std::fs::read_to_string(script("image.sh")).unwrap();
    let release = std::fs::read_to_string("/etc/os-release").unwrap();
    let mut hasher = DefaultHasher::new();
    (recipe, release).hash(&mut hasher);
    let path = cache().join(format!("image-{:016x}", hasher.finish()));
    let _lock = lock();
    if !path.exists() {
        let making = cache().join("making");
        succeeded(as_root("rm").arg("-rf").arg(&making));
        succeeded(as_root("sh").arg(script("image.sh")).arg(&making));
        succeeded(as_root("mv").arg(making).arg(&path));
    }
    path
}

/// A folder with packages of this program: of revision 1, and of revision 2 for upgrades.
fn packages() -> &'static PathBuf {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let path = cache().join("packages");
        let _lock = lock();
        for revision in ["1", "2"] {
            let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/deb.sh");
            let mut building = Command::new(build);
            building.arg(program()).arg(&path);
            // The package is read once or twice, so compressing it would take longer.
            building.env("REVISION", revision).env("DPKG_DEB_COMPRESSOR_TYPE", "none");
            succeeded(&mut building);
        }
        path
    })
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machine").join(name)
}

/// A command that root runs on the host.
fn as_root(program: &str) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["--non-interactive", "--", program]);
    command
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Runs a command, which has to succeed, and returns its output.
fn succeeded(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{printed}{error}", output.status);
    printed
}

/// Kills the process group of a child, which may run as root.
fn end(child: &mut Child) {
    succeeded(as_root("kill").args(["--", &format!("-{}", child.id())]));
    child.wait().expect("a child is waited for once");
}
