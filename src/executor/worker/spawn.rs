//! The thread that starts the worker processes of a pool. The kernel kills a worker when the thread that started it ends,
//! so this thread lives as long as the pool. Threads of the runtime come and go.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::Pid;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::program::WorkerProgram;
use super::socket::WorkerSocket;
use crate::executor::children;
use crate::executor::command::is_daemons_own;
use crate::executor::settings::WORKERS_MAX;

/// Starts that wait for the thread: at most one for each worker of the pool.
const QUEUE: usize = WORKERS_MAX;

/// The variable that sets the log level: a worker logs as its daemon does.
const LEVEL_VARIABLE: &str = "PUNCTUAL_LOG";

/// A process that has just been started.
#[derive(Debug)]
pub(super) struct SpawnedWorker {
    pub(super) child: Child,
    pub(super) socket: WorkerSocket,
    pub(super) stdout: pipe::Receiver,
    pub(super) stderr: pipe::Receiver,
}

type SpawnReply = oneshot::Sender<std::io::Result<SpawnedWorker>>;

/// Starts worker processes from one thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct WorkerSpawner {
    program: Arc<WorkerProgram>,
    runtime: Handle,
    /// The queue of the thread; `None` until it has been started.
    requests: Mutex<Option<mpsc::Sender<SpawnReply>>>,
}

impl WorkerSpawner {
    pub(super) fn new(program: Arc<WorkerProgram>, runtime: Handle) -> Self {
        let spawner = Self { program, runtime, requests: Mutex::default() };
        if let Err(error) = spawner.thread() {
            tracing::warn!(%error, "the thread that starts worker processes could not be started; it is started with the first worker");
        }
        spawner
    }

    pub(super) async fn spawn(&self) -> std::io::Result<SpawnedWorker> {
        let missing = || std::io::Error::other("the thread that starts worker processes has ended");
        let (reply, spawned) = oneshot::channel();
        self.thread()?.send(reply).await.map_err(|_| missing())?;
        spawned.await.map_err(|_| missing())?
    }

    /// The queue of the thread. Starts the thread if it does not run; if that fails, the next call tries again.
    fn thread(&self) -> std::io::Result<mpsc::Sender<SpawnReply>> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(requests) = requests.as_ref().filter(|requests| !requests.is_closed()) {
            return Ok(requests.clone());
        }
        let (sender, waiting) = mpsc::channel(QUEUE);
        let (program, runtime) = (Arc::clone(&self.program), self.runtime.clone());
        let thread = std::thread::Builder::new().name("punctual-spawn".to_owned());
        thread.spawn(move || spawn_requested(&program, &runtime, waiting))?;
        *requests = Some(sender.clone());
        Ok(sender)
    }
}

fn spawn_requested(
    program: &WorkerProgram,
    runtime: &Handle,
    mut waiting: mpsc::Receiver<SpawnReply>,
) {
    let _runtime = runtime.enter();
    while let Some(reply) = waiting.blocking_recv() {
        // If the receiver is gone, the worker is dropped here, which kills it.
        drop(reply.send(spawn(program)));
    }
}

/// Starts a process in a process group of its own. Without a `pre_exec` hook, std uses the fast `posix_spawn`.
fn spawn(program: &WorkerProgram) -> std::io::Result<SpawnedWorker> {
    if program.is_running_here() {
        return Err(std::io::Error::other("this process was itself started as a worker"));
    }
    let (socket, worker_socket) = std::os::unix::net::UnixStream::pair()?;
    let (stdout, worker_stdout) = std::io::pipe()?;
    let (stderr, worker_stderr) = std::io::pipe()?;
    let mut command = Command::new(&program.program);
    command
        .args(&program.arguments)
        .stdin(Stdio::from(OwnedFd::from(worker_socket)))
        .stdout(worker_stdout)
        .stderr(worker_stderr)
        .process_group(0)
        .kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        if name != LEVEL_VARIABLE && is_daemons_own(&name) {
            command.env_remove(name);
        }
    }
    let pid_of = |child: &Child| Pid::from_raw(i32::try_from(child.id()?).ok()?);
    let child = children::start(|| command.spawn(), pid_of)?;
    drop(command);
    Ok(SpawnedWorker {
        child,
        socket: WorkerSocket::new(socket)?,
        stdout: pipe::Receiver::from_owned_fd(stdout.into())?,
        stderr: pipe::Receiver::from_owned_fd(stderr.into())?,
    })
}
