//! Launchers: each is a small process in a cgroup of its own, which starts commands there one after the other. Entering
//! a cgroup takes about 10 ms; a launcher does it once, usually before a command needs it.

mod process;
mod protocol;

pub use process::launch;

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
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::cgroup::{Cgroup, Cgroups};
use super::delegation::Controllers;
use super::outcome::in_words;
use super::process::{NoProcess, Process};
use super::spawn::Spawn;
use crate::job::Limits;
use crate::program;
use crate::run::Cost;
use protocol::{Reply, Request, receive, send};

/// The environment of a launcher: with this its allocator takes memory page by page. Huge pages in advance, as for the
/// daemon, would cost each launcher 4 MiB.
const ENVIRONMENT: [(&str, &str); 1] = [("MIMALLOC_ARENA_EAGER_COMMIT", "0")];
/// Launchers that wait for commands, at most. Each has about 1 MiB of memory of its own.
const IDLE_MAX: usize = 32;
/// How long one waits before it is ended, unless it is the spare one.
const IDLE_LIMIT: Duration = Duration::from_mins(1);
/// How long a launcher may take to be ready, or to answer about a command that has ended.
const READY_LIMIT: Duration = Duration::from_secs(30);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait for killed processes to end, and the pause between two checks.
const DEATH_LIMIT: Duration = Duration::from_secs(5);
const PAUSES: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(200)];

/// The launchers of a daemon.
#[derive(Debug)]
pub(super) struct Launchers {
    cgroups: Arc<Cgroups>,
    state: Mutex<State>,
    runtime: Handle,
    /// The tasks that watch over launchers, each until its cgroup is removed.
    keepers: TaskTracker,
}

#[derive(Debug, Default)]
struct State {
    /// Those that wait for a command; the one that was busy last is the last, and the next to be taken.
    idle: Vec<Launcher>,
    /// A spare one is being made.
    is_making: bool,
    is_closed: bool,
}

/// What a launcher needs beside its cgroup.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// This program.
    pub(super) path: PathBuf,
    /// The soft limit of open files that commands get, if that is not the daemon's own.
    pub(super) files: Option<u64>,
}

/// A launcher in its cgroup. Dropping it ends everything in the cgroup by force.
#[derive(Debug)]
pub(super) struct Launcher {
    socket: AsyncFd<OwnedFd>,
    pid: Pid,
    pub(super) cgroup: Arc<Cgroup>,
    /// How it ended, once it has.
    end: watch::Receiver<Option<String>>,
    /// Tells its keeper that nobody needs the cgroup any more.
    _held: oneshot::Sender<()>,
    condition: Condition,
    /// Whether its cgroup has limits.
    is_limited: bool,
    /// Processes that were killed in the cgroup before its command, because there was no memory.
    oom_kills_before: u64,
    idle_since: Instant,
}

/// What may be done with a launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// No command was given to it yet.
    Fresh,
    /// It has had commands, and nothing is left of those that it has waited for.
    Used,
    /// Something was in its cgroup beside it when its command had ended.
    NotAlone,
    /// It has not answered a request, or not yet.
    Silent,
}

/// How a command ended that a launcher has waited for.
#[derive(Debug)]
pub(super) struct Reaped {
    pub(super) status: ExitStatus,
    pub(super) cost: Cost,
}

impl Launchers {
    /// None where the daemon may make no cgroups.
    pub(super) fn find() -> Option<Arc<Self>> {
        let cgroups = Arc::new(Cgroups::find()?);
        let (state, keepers) = (Mutex::default(), TaskTracker::new());
        Some(Arc::new(Self { cgroups, state, runtime: Handle::current(), keepers }))
    }

    /// What limits of a run can be enforced by.
    pub(super) fn controllers(&self) -> Controllers {
        self.cgroups.controllers()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A launcher that is ready, with these limits of everything in its cgroup.
    pub(super) async fn take(
        self: &Arc<Self>,
        program: &Program,
        limits: Option<&Limits>,
    ) -> io::Result<Launcher> {
        // Memory of earlier commands may still be counted in the cgroup of a launcher that was used.
        let limits = limits.filter(|limits| limits.are_of_the_run());
        let idle = self.state().take(limits.is_some());
        self.keep_spare(program);
        let mut launcher = match idle {
            Some(launcher) => launcher,
            None => self.make(program).await?,
        };
        launcher.condition = Condition::Used;
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

    /// Takes back a launcher whose command has been waited for. One that cannot be used again is ended.
    pub(super) fn give_back(&self, mut launcher: Launcher) {
        let is_clean = matches!(launcher.condition, Condition::Fresh | Condition::Used);
        if launcher.is_limited || !is_clean || !launcher.lives() {
            return;
        }
        launcher.idle_since = Instant::now();
        let mut state = self.state();
        let old = state.trim(launcher.idle_since);
        if !state.is_closed && state.idle.len() < IDLE_MAX {
            state.idle.push(launcher);
        }
        drop(state);
        drop(old);
    }

    /// Has a launcher made in the background, if there is none that was never used.
    fn keep_spare(self: &Arc<Self>, program: &Program) {
        let mut state = self.state();
        if state.is_closed || state.is_making || state.idle.iter().any(Launcher::is_fresh) {
            return;
        }
        state.is_making = true;
        drop(state);
        let (launchers, program) = (Arc::clone(self), program.clone());
        let making = async move {
            let made = launchers.make(&program).await;
            launchers.state().is_making = false;
            match made {
                Ok(spare) => launchers.give_back(spare),
                Err(error) => tracing::debug!(%error, "no spare launcher could be made"),
            }
        };
        self.keepers.spawn_on(making, &self.runtime);
    }

    async fn make(&self, program: &Program) -> io::Result<Launcher> {
        let cgroup = Arc::new(self.cgroups.make()?);
        let (here, there) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // What lists of processes call it.
        let argv = [program::NAME.to_owned(), program::LAUNCHER.to_owned()];
        let null = || io::Result::Ok(OwnedFd::from(File::options().write(true).open("/dev/null")?));
        let files = [there, null()?, null()?];
        let env = ENVIRONMENT.map(|(name, value)| (name.into(), value.into())).into();
        let spawn = Spawn::new(&program.path, &argv, env, files)?;
        let process = Process::start(&spawn, None).map_err(|error| match error {
            NoProcess::NotStarted(error) | NoProcess::Unwatched(error) | NoProcess::Lost(error) => {
                error
            }
        });
        drop(spawn);
        let process = process.inspect_err(|_| forget(&cgroup))?;
        let (end_in, end) = watch::channel(None);
        let (held, released) = oneshot::channel();
        let pid = process.pid();
        self.keepers.spawn_on(keep(process, end_in, released, Arc::clone(&cgroup)), &self.runtime);
        let mut launcher = Launcher {
            socket: watched(here)?,
            pid,
            cgroup,
            end,
            _held: held,
            condition: Condition::Fresh,
            is_limited: false,
            oom_kills_before: 0,
            idle_since: Instant::now(),
        };
        let (folder, files) = (launcher.cgroup.folder().to_owned(), program.files);
        let entered = launcher.request(&Request::Enter { folder, files }, &[], READY_LIMIT).await?;
        if entered == Reply::Entered { Ok(launcher) } else { Err(nonsense()) }
    }

    /// Ends all launchers, and waits until they and their cgroups are gone.
    pub(super) async fn close(&self) {
        let idle = {
            let mut state = self.state();
            state.is_closed = true;
            std::mem::take(&mut state.idle)
        };
        drop(idle);
        self.keepers.close();
        if timeout(DEATH_LIMIT, self.keepers.wait()).await.is_err() {
            tracing::warn!("some launchers of commands did not end in time");
        }
    }
}

impl State {
    /// One that waits: the one that was busy last, or one that was never used.
    fn take(&mut self, has_to_be_fresh: bool) -> Option<Launcher> {
        self.idle.retain(Launcher::is_connected);
        let used = self.idle.iter().rposition(|idle| !idle.is_fresh()).filter(|_| !has_to_be_fresh);
        let place = used.or_else(|| self.idle.iter().rposition(Launcher::is_fresh))?;
        Some(self.idle.remove(place))
    }

    /// Takes out those that have waited for too long, but for the spare one.
    fn trim(&mut self, now: Instant) -> Vec<Launcher> {
        let is_old = |idle: &mut Launcher| !idle.is_fresh() && now - idle.idle_since > IDLE_LIMIT;
        self.idle.extract_if(.., is_old).collect()
    }
}

impl Launcher {
    /// Its process number. It is the only process in its cgroup that is not of the command.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Starts a command; its process number.
    pub(super) async fn start(&mut self, spawn: &Spawn) -> io::Result<Pid> {
        let description = spawn.description()?;
        let [stdin, stdout, stderr] = spawn.files();
        let files = [description.as_fd(), stdin, stdout, stderr];
        let started = self.request(&Request::Start, &files, READY_LIMIT).await?;
        let Reply::Started(pid) = started else { return Err(nonsense()) };
        Pid::from_raw(pid).ok_or_else(nonsense)
    }

    /// Waits for the command, which has ended.
    pub(super) async fn reap(&mut self) -> io::Result<Reaped> {
        let reaped = self.request(&Request::Reap, &[], ANSWER_LIMIT).await?;
        let Reply::Ended { status, cost, is_alone } = reaped else { return Err(nonsense()) };
        if !is_alone {
            self.condition = Condition::NotAlone;
        }
        Ok(Reaped { status: ExitStatus::from_raw(status), cost })
    }

    /// Whether it has not answered the last request.
    pub(super) fn is_silent(&self) -> bool {
        self.condition == Condition::Silent
    }

    fn is_fresh(&self) -> bool {
        self.condition == Condition::Fresh
    }

    /// Whether nothing else is in the cgroup, once its command was waited for.
    pub(super) fn is_alone(&mut self) -> bool {
        if self.condition == Condition::NotAlone && self.cgroup.holds_only(self.pid) {
            self.condition = Condition::Used;
        }
        self.condition == Condition::Used
    }

    /// Processes that were killed because there was no memory, of the command or of earlier ones.
    pub(super) fn oom_kills(&self) -> u64 {
        self.cgroup.oom_kills().saturating_sub(self.oom_kills_before)
    }

    /// Waits until it ends unasked, and returns how it ended. It is cancel-safe.
    pub(super) async fn ended(&self) -> String {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await;
        let how = ended.ok().and_then(|how| how.clone());
        how.unwrap_or_else(|| "it was not watched".to_owned())
    }

    /// Whether it has not ended.
    pub(super) fn lives(&self) -> bool {
        self.end.borrow().is_none() && self.end.has_changed().is_ok()
    }

    /// Whether it holds its end of the socket. A process that is killed lets go of it before its end can be seen.
    fn is_connected(&self) -> bool {
        let mut socket = [PollFd::new(&self.socket, PollFlags::empty())];
        let looked = poll(&mut socket, Some(&Timespec::default()));
        looked.is_ok_and(|hung_up| hung_up == 0) && self.lives()
    }

    /// Sends a request, and waits for the reply.
    async fn request(
        &mut self,
        request: &Request,
        files: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> io::Result<Reply> {
        let before = std::mem::replace(&mut self.condition, Condition::Silent);
        let sent = send(self.socket.get_ref(), request, files, SendFlags::DONTWAIT);
        let reply = match sent {
            Ok(()) => timeout(limit, self.reply()).await,
            Err(error) => Ok(Err(error)),
        };
        let reply = match reply {
            Ok(Ok(Some(reply))) => reply,
            Ok(Ok(None)) => return Err(self.gone().await),
            Ok(Err(error)) if is_cut_off(&error) => return Err(self.gone().await),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(io::Error::other("the process that starts it does not answer")),
        };
        self.condition = before;
        let Reply::Failed { errno, why } = reply else { return Ok(reply) };
        Err(errno.map_or_else(|| io::Error::other(why), io::Error::from_raw_os_error))
    }

    /// The next reply; none if the launcher is gone.
    async fn reply(&self) -> io::Result<Option<Reply>> {
        loop {
            let mut ready = self.socket.readable().await?;
            let read = |socket: &AsyncFd<OwnedFd>| receive(socket.get_ref(), RecvFlags::DONTWAIT);
            if let Ok(received) = ready.try_io(read) {
                return Ok(received?.map(|(reply, _)| reply));
            }
        }
    }

    async fn gone(&self) -> io::Error {
        io::Error::other(format!("the process that starts it is gone: {}", self.ended().await))
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.cgroup.kill();
    }
}

/// Looks after the process of a launcher: tells its end, and removes the cgroup when nobody needs it any more.
async fn keep(
    mut process: Process,
    end: watch::Sender<Option<String>>,
    released: oneshot::Receiver<()>,
    cgroup: Arc<Cgroup>,
) {
    let ended = process.reap().await;
    let how = ended.map_or_else(|error| error.to_string(), |ended| in_words(ended.status));
    end.send_replace(Some(how));
    // It is never sent, only dropped.
    drop(released.await);
    cgroup.kill();
    let deadline = Instant::now() + DEATH_LIMIT;
    let [mut pause, longest] = PAUSES;
    while cgroup.is_populated() && Instant::now() < deadline {
        tokio::time::sleep(pause).await;
        pause = longest.min(pause * 2);
    }
    forget(&cgroup);
}

fn forget(cgroup: &Cgroup) {
    if let Err(error) = cgroup.remove() {
        tracing::warn!(%error, folder = %cgroup.folder().display(), "a cgroup could not be removed");
    }
}

/// Whether an error says that the other side of a socket is gone.
fn is_cut_off(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn nonsense() -> io::Error {
    io::Error::other("the process that starts it gave the answer to another question")
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; an OwnedFd that is owned here cannot be closed behind its back"
)]
fn watched(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}
