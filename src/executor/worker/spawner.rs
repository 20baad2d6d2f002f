//! The thread that starts worker processes. The kernel kills a worker with the thread that has started it, so that
//! must be one that lives as long as the pool: threads of the runtime come and go.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;

use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::WorkerProgram;
use super::socket::Socket;

/// Starts that wait for the thread; a pool asks for no more at a time than it may have workers.
const QUEUE: usize = super::super::WORKERS_MAX;

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
    requests: mpsc::Sender<Reply>,
}

impl Spawner {
    /// Starts the thread; it ends with this.
    pub(in crate::executor) fn new(program: Arc<WorkerProgram>, runtime: Handle) -> Self {
        let (requests, waiting) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("punctual-spawn".to_owned());
        if let Err(error) = thread.spawn(move || serve(&program, &runtime, waiting)) {
            tracing::error!(%error, "there is no thread that could start worker processes");
        }
        Self { requests }
    }

    pub(super) async fn spawn(&self) -> std::io::Result<Spawned> {
        let missing = || std::io::Error::other("there is no thread for it");
        let (reply, spawned) = oneshot::channel();
        self.requests.send(reply).await.map_err(|_| missing())?;
        spawned.await.map_err(|_| missing())?
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
    let child = Command::new(&program.program)
        .args(&program.arguments)
        .stdin(Stdio::from(OwnedFd::from(its)))
        .stdout(its_stdout)
        .stderr(its_stderr)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok(Spawned {
        child,
        socket: Socket::new(socket)?,
        stdout: pipe::Receiver::from_owned_fd(stdout.into())?,
        stderr: pipe::Receiver::from_owned_fd(stderr.into())?,
    })
}
