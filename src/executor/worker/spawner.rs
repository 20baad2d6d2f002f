//! The thread that starts worker processes. The kernel kills a worker with the thread that has started it, so that
//! must be one that lives as long as the pool: threads of the runtime come and go.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::Pid;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::WorkerProgram;
use super::socket::Socket;
use crate::executor::children;
use crate::executor::command::is_daemons_own;

/// Starts that wait for the thread; a pool asks for no more at a time than it may have workers.
const QUEUE: usize = super::super::WORKERS_MAX;

/// The variable that sets the level of the log.
const LEVEL_VARIABLE: &str = "PUNCTUAL_LOG";

/// A process that has just been started.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) child: Child,
    pub(super) socket: Socket,
    pub(super) stdout: pipe::Receiver,
    pub(super) stderr: pipe::Receiver,
}

type Reply = oneshot::Sender<std::io::Result<Spawned>>;

/// Starts worker processes, from one thread.
#[derive(Debug)]
pub(in crate::executor) struct Spawner {
    program: Arc<WorkerProgram>,
    runtime: Handle,
    /// Where the thread is asked; none until there is one.
    requests: Mutex<Option<mpsc::Sender<Reply>>>,
}

impl Spawner {
    /// Starts the thread, which ends with this.
    pub(in crate::executor) fn new(program: Arc<WorkerProgram>, runtime: Handle) -> Self {
        let spawner = Self { program, runtime, requests: Mutex::default() };
        if let Err(error) = spawner.thread() {
            tracing::warn!(%error, "the thread that starts worker processes is started later");
        }
        spawner
    }

    pub(super) async fn spawn(&self) -> std::io::Result<Spawned> {
        let missing = || std::io::Error::other("the thread that starts worker processes has ended");
        let (reply, spawned) = oneshot::channel();
        self.thread()?.send(reply).await.map_err(|_| missing())?;
        spawned.await.map_err(|_| missing())?
    }

    /// The thread, which is started if there is none. If it cannot be, the next start tries it again.
    fn thread(&self) -> std::io::Result<mpsc::Sender<Reply>> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(requests) = requests.as_ref().filter(|requests| !requests.is_closed()) {
            return Ok(requests.clone());
        }
        let (sender, waiting) = mpsc::channel(QUEUE);
        let (program, runtime) = (Arc::clone(&self.program), self.runtime.clone());
        let thread = std::thread::Builder::new().name("punctual-spawn".to_owned());
        thread.spawn(move || serve(&program, &runtime, waiting))?;
        *requests = Some(sender.clone());
        Ok(sender)
    }
}

fn serve(program: &WorkerProgram, runtime: &Handle, mut waiting: mpsc::Receiver<Reply>) {
    let _runtime = runtime.enter();
    while let Some(reply) = waiting.blocking_recv() {
        // Who does not want it any more drops it, which kills it.
        drop(reply.send(spawn(program)));
    }
}

/// Starts a process the fast way (`posix_spawn`): a group of its own, no hook.
fn spawn(program: &WorkerProgram) -> std::io::Result<Spawned> {
    if program.is_running_here() {
        return Err(std::io::Error::other("this process was itself started as a worker"));
    }
    let (socket, its) = std::os::unix::net::UnixStream::pair()?;
    let (stdout, its_stdout) = std::io::pipe()?;
    let (stderr, its_stderr) = std::io::pipe()?;
    let mut command = Command::new(&program.program);
    command
        .args(&program.arguments)
        .stdin(Stdio::from(OwnedFd::from(its)))
        .stdout(its_stdout)
        .stderr(its_stderr)
        .process_group(0)
        .kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        // It logs as the daemon does.
        if name != LEVEL_VARIABLE && is_daemons_own(&name) {
            command.env_remove(name);
        }
    }
    let pid_of = |child: &Child| Pid::from_raw(i32::try_from(child.id()?).ok()?);
    let child = children::start(|| command.spawn(), pid_of)?;
    drop(command);
    Ok(Spawned {
        child,
        socket: Socket::new(socket)?,
        stdout: pipe::Receiver::from_owned_fd(stdout.into())?,
        stderr: pipe::Receiver::from_owned_fd(stderr.into())?,
    })
}
