//! The daemon's side of its launchers: which of them wait for a command, and what each is asked to do.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::Pid;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::protocol::{LauncherReply, LauncherRequest, receive, send};
use crate::executor::command::cgroup::{Cgroup, Cgroups};
use crate::executor::command::process::{Process, SpawnError, readable};
use crate::executor::command::spawn::Spawn;
use crate::executor::exit_status::describe_exit;
use crate::job::ResourceLimits;
use crate::program;
use crate::run::Cost;

/// The environment of a launcher. It makes its allocator take memory page by page; huge pages in advance, as for the daemon,
/// would cost each launcher 4 MiB.
const ENVIRONMENT: [(&str, &str); 1] = [("MIMALLOC_ARENA_EAGER_COMMIT", "0")];
/// The most launchers that wait for commands. Each takes about 1 MiB of memory.
const IDLE_MAX: usize = 32;
/// How long a launcher waits before it is ended, unless it is the spare one.
const IDLE_LIMIT: Duration = Duration::from_mins(1);
/// How long a launcher may take to be ready or to start a command, and to answer about a command that has ended.
const READY_LIMIT: Duration = Duration::from_secs(30);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait for all launchers to end when the daemon stops.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct LauncherPool {
    pub(crate) cgroups: Arc<Cgroups>,
    idle: Mutex<IdleLaunchers>,
    runtime: Handle,
    /// The tasks that supervise launchers, each until its cgroup is removed.
    supervisors: TaskTracker,
}

#[derive(Debug, Default)]
struct IdleLaunchers {
    /// The launcher that was used last is at the end, and is taken first.
    launchers: Vec<Launcher>,
    /// A spare launcher is being made.
    is_making: bool,
    is_closed: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct LauncherProgram {
    pub(crate) path: PathBuf,
    /// The soft limit of open files of commands, if that is not the daemon's own.
    pub(crate) files: Option<u64>,
}

/// A launcher in its cgroup. Dropping it ends everything in the cgroup by force.
#[derive(Debug)]
pub(crate) struct Launcher {
    socket: AsyncFd<OwnedFd>,
    /// Its process id. It is the only process in its cgroup that does not belong to a command.
    pub(crate) pid: Pid,
    pub(crate) cgroup: Arc<Cgroup>,
    /// How its process ended, in words, once it has.
    end: watch::Receiver<Option<String>>,
    /// Dropping it tells the supervisor that the cgroup is not needed any more.
    _held: oneshot::Sender<()>,
    state: LauncherState,
    /// Whether its cgroup has limits.
    is_limited: bool,
    /// Processes in the cgroup that were killed for lack of memory before its present command.
    oom_kills_before: usize,
    idle_since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LauncherState {
    /// It has not had a command yet.
    Fresh,
    /// It has had commands, and nothing is left of those that it has reaped.
    Used,
    /// Its command has ended, but other processes were in its cgroup then.
    NotAlone,
    /// It has not answered the last request, or not yet.
    Silent,
}

#[derive(Debug)]
pub(crate) struct ReapedCommand {
    pub(crate) status: ExitStatus,
    pub(crate) cost: Cost,
}

impl LauncherPool {
    /// None if the daemon may not make cgroups.
    pub(crate) fn find() -> Option<Arc<Self>> {
        let cgroups = Arc::new(Cgroups::find()?);
        let (idle, supervisors) = (Mutex::default(), TaskTracker::new());
        Some(Arc::new(Self { cgroups, idle, runtime: Handle::current(), supervisors }))
    }

    fn lock(&self) -> MutexGuard<'_, IdleLaunchers> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A launcher that is ready, whose cgroup has these limits.
    pub(crate) async fn take(
        self: &Arc<Self>,
        program: &LauncherProgram,
        limits: Option<&ResourceLimits>,
    ) -> io::Result<Launcher> {
        let limits = limits.filter(|limits| limits.are_of_the_run());
        // The cgroup of a used launcher may still count memory of earlier commands.
        let idle = self.lock().take(limits.is_some());
        self.keep_spare(program);
        let mut launcher = match idle {
            Some(launcher) => launcher,
            None => self.make(program).await?,
        };
        launcher.state = LauncherState::Used;
        launcher.oom_kills_before = launcher.cgroup.oom_kills();
        if let Some(limits) = limits {
            launcher.is_limited = true;
            launcher.cgroup.limit(limits).map_err(|(field, error)| {
                let kind = error.kind();
                io::Error::new(kind, format!("limits.{field} cannot be set: {error}"))
            })?;
        }
        Ok(launcher)
    }

    /// Takes back a launcher whose command has been reaped. One that cannot be used again is ended.
    pub(crate) fn give_back(&self, mut launcher: Launcher) {
        let is_clean = matches!(launcher.state, LauncherState::Fresh | LauncherState::Used);
        if launcher.is_limited || !is_clean || !launcher.is_alive() {
            return;
        }
        launcher.idle_since = Instant::now();
        let mut idle = self.lock();
        let expired = idle.take_expired(launcher.idle_since);
        if !idle.is_closed && idle.launchers.len() < IDLE_MAX {
            idle.launchers.push(launcher);
        }
        drop(idle);
        // Dropping a launcher kills its cgroup, which takes time.
        drop(expired);
    }

    /// Makes a fresh launcher in the background, if there is none.
    fn keep_spare(self: &Arc<Self>, program: &LauncherProgram) {
        let mut idle = self.lock();
        if idle.is_closed || idle.is_making || idle.launchers.iter().any(Launcher::is_fresh) {
            return;
        }
        idle.is_making = true;
        drop(idle);
        let (launchers, program) = (Arc::clone(self), program.clone());
        let making = async move {
            let made = launchers.make(&program).await;
            launchers.lock().is_making = false;
            match made {
                Ok(spare) => launchers.give_back(spare),
                Err(error) => tracing::debug!(%error, "no spare launcher could be made"),
            }
        };
        self.supervisors.spawn_on(making, &self.runtime);
    }

    async fn make(&self, program: &LauncherProgram) -> io::Result<Launcher> {
        let cgroup = Arc::new(self.cgroups.create()?);
        let (here, there) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // The first word is its name in lists of processes.
        let argv = [program::NAME.to_owned(), program::LAUNCHER.to_owned()];
        let null = || io::Result::Ok(OwnedFd::from(File::options().write(true).open("/dev/null")?));
        let files = [there, null()?, null()?];
        let env = ENVIRONMENT.map(|(name, value)| (name.into(), value.into())).into();
        let spawn = Spawn::new(&program.path, &argv, env, files)?;
        let process = Process::start(&spawn, None).map_err(|error| match error {
            SpawnError::NotStarted(error)
            | SpawnError::Unwatched(error)
            | SpawnError::Lost(error) => error,
        });
        drop(spawn);
        let process = process.inspect_err(|_| remove(&cgroup))?;
        let (end_in, end) = watch::channel(None);
        let (held, released) = oneshot::channel();
        let pid = process.pid;
        let supervision = supervise(process, end_in, released, Arc::clone(&cgroup));
        self.supervisors.spawn_on(supervision, &self.runtime);
        let mut launcher = Launcher {
            socket: readable(here)?,
            pid,
            cgroup,
            end,
            _held: held,
            state: LauncherState::Fresh,
            is_limited: false,
            oom_kills_before: 0,
            idle_since: Instant::now(),
        };
        let (folder, files) = (launcher.cgroup.folder.clone(), program.files);
        let entered =
            launcher.request(&LauncherRequest::Enter { folder, files }, &[], READY_LIMIT).await?;
        if entered == LauncherReply::Entered { Ok(launcher) } else { Err(unexpected_reply()) }
    }

    /// Ends all launchers, and waits until they and their cgroups are gone.
    pub(crate) async fn close(&self) {
        let idle = {
            let mut idle = self.lock();
            idle.is_closed = true;
            std::mem::take(&mut idle.launchers)
        };
        drop(idle);
        self.supervisors.close();
        if timeout(CLOSE_LIMIT, self.supervisors.wait()).await.is_err() {
            tracing::warn!("some launchers of commands did not end in time");
        }
    }
}

impl IdleLaunchers {
    /// The launcher that was used last, or a fresh one.
    fn take(&mut self, must_be_fresh: bool) -> Option<Launcher> {
        self.launchers.retain(Launcher::is_connected);
        let used = self.launchers.iter().rposition(|launcher| !launcher.is_fresh());
        let used = used.filter(|_| !must_be_fresh);
        let index = used.or_else(|| self.launchers.iter().rposition(Launcher::is_fresh))?;
        Some(self.launchers.remove(index))
    }

    /// Takes out the launchers that have waited for too long, except the spare one.
    fn take_expired(&mut self, now: Instant) -> Vec<Launcher> {
        let is_expired =
            |idle: &mut Launcher| !idle.is_fresh() && now - idle.idle_since > IDLE_LIMIT;
        self.launchers.extract_if(.., is_expired).collect()
    }
}

impl Launcher {
    /// Starts a command in the launcher's cgroup.
    pub(crate) async fn start(&mut self, spawn: &Spawn) -> Result<Process, SpawnError> {
        // Keeps a descriptor free for the pidfd.
        let reserve = File::open("/dev/null").map_err(SpawnError::NotStarted)?;
        let started = self.start_process(spawn).await;
        let pid = started.map_err(|error| match self.state {
            LauncherState::Silent => SpawnError::Lost(error),
            _ => SpawnError::NotStarted(error),
        })?;
        drop(reserve);
        Process::of_launcher(pid)
    }

    async fn start_process(&mut self, spawn: &Spawn) -> io::Result<Pid> {
        let description = spawn.description()?;
        let [stdin, stdout, stderr] = spawn.files();
        let files = [description.as_fd(), stdin, stdout, stderr];
        let started = self.request(&LauncherRequest::Start, &files, READY_LIMIT).await?;
        let LauncherReply::Started(pid) = started else { return Err(unexpected_reply()) };
        Pid::from_raw(pid).ok_or_else(unexpected_reply)
    }

    /// Reaps the command, which has ended.
    pub(crate) async fn reap(&mut self) -> io::Result<ReapedCommand> {
        let reaped = self.request(&LauncherRequest::Reap, &[], ANSWER_LIMIT).await?;
        let LauncherReply::Ended { status, cost, is_alone } = reaped else {
            return Err(unexpected_reply());
        };
        if !is_alone {
            self.state = LauncherState::NotAlone;
        }
        Ok(ReapedCommand { status: ExitStatus::from_raw(status), cost })
    }

    fn is_fresh(&self) -> bool {
        self.state == LauncherState::Fresh
    }

    /// Whether the cgroup holds no other process, after its command has been reaped.
    pub(crate) fn is_alone(&mut self) -> bool {
        if self.state == LauncherState::NotAlone && self.cgroup.holds_only(self.pid) {
            self.state = LauncherState::Used;
        }
        self.state == LauncherState::Used
    }

    /// Processes of its present command that were killed for lack of memory.
    pub(crate) fn oom_kills(&self) -> usize {
        self.cgroup.oom_kills().saturating_sub(self.oom_kills_before)
    }

    /// Waits until its process ends, and returns how that ended, in words. Cancel-safe.
    pub(crate) async fn ended(&self) -> String {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await;
        let how = ended.ok().and_then(|how| how.clone());
        how.unwrap_or_else(|| "it was not watched".to_owned())
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.end.borrow().is_none() && self.end.has_changed().is_ok()
    }

    /// Whether its process holds its end of the socket. The kernel closes that before the end of a killed process can be
    /// seen.
    fn is_connected(&self) -> bool {
        let mut socket = [PollFd::new(&self.socket, PollFlags::empty())];
        let polled = poll(&mut socket, Some(&Timespec::default()));
        polled.is_ok_and(|hung_up| hung_up == 0) && self.is_alive()
    }

    /// Sends a request and waits for the reply.
    async fn request(
        &mut self,
        request: &LauncherRequest,
        files: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> io::Result<LauncherReply> {
        let before = std::mem::replace(&mut self.state, LauncherState::Silent);
        let sent = send(self.socket.get_ref(), request, files, SendFlags::DONTWAIT);
        let reply = match sent {
            Ok(()) => timeout(limit, self.reply()).await,
            Err(error) => Ok(Err(error)),
        };
        let reply = match reply {
            Ok(Ok(Some(reply))) => reply,
            Ok(Ok(None)) => return Err(self.ended_error().await),
            Ok(Err(error)) if is_disconnect(&error) => return Err(self.ended_error().await),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(io::Error::other("the launcher does not answer")),
        };
        self.state = before;
        let LauncherReply::Failed { errno, why } = reply else { return Ok(reply) };
        Err(errno.map_or_else(|| io::Error::other(why), io::Error::from_raw_os_error))
    }

    /// The next reply; none if the launcher is gone.
    async fn reply(&self) -> io::Result<Option<LauncherReply>> {
        loop {
            let mut ready = self.socket.readable().await?;
            let read = |socket: &AsyncFd<OwnedFd>| receive(socket.get_ref(), RecvFlags::DONTWAIT);
            if let Ok(received) = ready.try_io(read) {
                return Ok(received?.map(|(reply, _)| reply));
            }
        }
    }

    async fn ended_error(&self) -> io::Error {
        io::Error::other(format!("the launcher has ended: {}", self.ended().await))
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.cgroup.kill();
    }
}

/// Supervises the process of a launcher: reports its end, and removes the cgroup when it is not needed any more.
async fn supervise(
    mut process: Process,
    end: watch::Sender<Option<String>>,
    released: oneshot::Receiver<()>,
    cgroup: Arc<Cgroup>,
) {
    let ended = process.reap().await;
    let how = ended.map_or_else(|error| error.to_string(), |ended| describe_exit(ended.status));
    end.send_replace(Some(how));
    // Nothing is ever sent: the sender is only dropped.
    drop(released.await);
    cgroup.kill_and_wait().await;
    remove(&cgroup);
}

fn remove(cgroup: &Cgroup) {
    if let Err(error) = cgroup.remove() {
        tracing::warn!(%error, folder = %cgroup.folder.display(), "a cgroup could not be removed");
    }
}

/// Whether an error means that the other side of the socket is closed.
fn is_disconnect(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn unexpected_reply() -> io::Error {
    io::Error::other("the launcher sent an unexpected reply")
}
