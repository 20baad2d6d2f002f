//! The cgroups in which commands run. Each holds every process of a run, whatever that does to its session, its parents
//! and its environment.
//!
//! Those of one daemon are in a folder of their own, which the daemon holds locked while it lives: so the next one can tell
//! which folders belong to a daemon that has died, and ends what is left in them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use super::delegation::{Controllers, MAIN, delegated_folder, misunderstood};
use crate::job::{Bytes, CORES_PERIOD, Limits};

/// What the name of the folder with a daemon's cgroups begins with.
const PREFIX: &str = "commands-";
/// Looks at whether the processes of a daemon that has died are gone, and the pause between two.
const LOOKS_MAX: usize = 200;
const PAUSE: Duration = Duration::from_millis(5);
/// How many names of processes a message lists at most.
const NAMES_MAX: usize = 8;

/// Where the cgroups of one daemon's commands are made. Dropping it ends what is in them, and removes it.
#[derive(Debug)]
pub(super) struct Cgroups {
    folder: PathBuf,
    /// Those that are enabled for the commands.
    controllers: Controllers,
    number: AtomicU64,
    /// Holds the lock of the folder.
    _lock: File,
}

/// The cgroup of a command and of the launcher that starts it.
#[derive(Debug)]
pub(super) struct Cgroup {
    folder: PathBuf,
    among: Arc<Cgroups>,
}

impl Cgroups {
    /// Takes over the cgroup of the daemon, if it may divide one.
    pub(super) fn find() -> Option<Self> {
        if let Some(why) = misunderstood() {
            tracing::warn!("{why}");
        }
        let base = delegated_folder()?;
        let opened = Self::open(&base);
        opened
            .inspect_err(|error| {
                tracing::warn!(%error, folder = %base.display(), "commands run without cgroups of their own");
            })
            .ok()
    }

    fn open(base: &Path) -> io::Result<Self> {
        end_dead_daemons(base);
        let (folder, lock) = locked_folder(base)?;
        let mut cgroups = Self {
            folder,
            controllers: Controllers::named_in(base, "cgroup.controllers"),
            number: AtomicU64::new(0),
            _lock: lock,
        };
        if !cgroups.folder.join("cgroup.kill").exists() {
            return Err(io::Error::other("this kernel cannot end a cgroup"));
        }
        if let Err(error) = cgroups.enable_controllers(base) {
            tracing::warn!(%error, folder = %base.display(), "the controllers of the cgroup cannot be enabled");
        }
        cgroups.controllers = Controllers::named_in(&cgroups.folder, "cgroup.subtree_control");
        tracing::debug!(folder = %cgroups.folder.display(), controllers = ?cgroups.controllers.names(), "each command gets a cgroup of its own");
        Ok(cgroups)
    }

    /// Enables what is there of the controllers, for which no process may stay in the base itself.
    fn enable_controllers(&self, base: &Path) -> io::Result<()> {
        let names = self.controllers.names();
        if names.is_empty() {
            return Ok(());
        }
        let main = base.join(MAIN);
        make_folder(&main)?;
        fs::write(main.join("cgroup.procs"), "0")?;
        let order: Vec<String> = names.iter().map(|name| format!("+{name}")).collect();
        for folder in [base, &self.folder] {
            fs::write(folder.join("cgroup.subtree_control"), order.join(" "))?;
        }
        Ok(())
    }

    /// What limits can be enforced by.
    pub(super) fn controllers(&self) -> Controllers {
        self.controllers
    }

    /// Makes a cgroup.
    pub(super) fn make(self: &Arc<Self>) -> io::Result<Cgroup> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(number.to_string());
        fs::create_dir(&folder)?;
        Ok(Cgroup { folder, among: Arc::clone(self) })
    }
}

impl Drop for Cgroups {
    /// Usually no process is left by now.
    fn drop(&mut self) {
        end_folder(&self.folder);
    }
}

impl Cgroup {
    /// Its folder, which a launcher enters by itself.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ends everything in it by force.
    pub(super) fn kill(&self) {
        kill(&self.folder);
    }

    /// Whether anything lives in it, or in cgroups that a command has made in it.
    pub(super) fn is_populated(&self) -> bool {
        is_populated(&self.folder)
    }

    /// The processes in it, and in cgroups that a command has made in it, but for these.
    pub(super) fn others(&self, than: &[Pid]) -> Vec<Pid> {
        let mut found = Vec::new();
        for folder in folders(&self.folder) {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)));
        }
        found.retain(|pid| !than.contains(pid));
        found
    }

    /// Whether it holds this process, and nothing else. A command may have moved that out of it.
    pub(super) fn holds_only(&self, pid: Pid) -> bool {
        !has_subfolders(&self.folder) && self.others(&[]) == [pid]
    }

    /// Asks these processes to end, if they are still in it.
    pub(super) fn terminate(&self, pids: &[Pid]) {
        let open = |pid: &Pid| Some((*pid, pidfd_open(*pid, PidfdFlags::empty()).ok()?));
        let opened: Vec<_> = pids.iter().filter_map(open).collect();
        // What is in it after that is what was opened.
        let present = self.others(&[]);
        for (pid, process) in opened.iter().filter(|(pid, _)| present.contains(pid)) {
            if let Err(error) = pidfd_send_signal(process, Signal::TERM) {
                tracing::debug!(%error, pid = pid.as_raw_pid(), "a process could not be asked to end");
            }
        }
    }

    /// Limits everything in it, the launcher included.
    pub(super) fn limit(&self, limits: &Limits) -> Result<(), (&'static str, io::Error)> {
        let write = |field, file, text: String| {
            fs::write(self.folder.join(file), text).map_err(|error| (field, error))
        };
        if let Some(bytes) = limits.total_memory.as_ref().and_then(Bytes::count) {
            write("total_memory", "memory.max", bytes.to_string())?;
        }
        if let Some(processes) = limits.processes {
            // The launcher is one, too.
            write("processes", "pids.max", processes.saturating_add(1).to_string())?;
        }
        if let Some(quota) = limits.cores_quota() {
            let text = format!("{} {}", quota.as_micros(), CORES_PERIOD.as_micros());
            write("cores", "cpu.max", text)?;
        }
        Ok(())
    }

    /// Processes in it that were killed so far because there was no memory; 0 where that is not counted.
    pub(super) fn oom_kills(&self) -> u64 {
        if !self.among.controllers.memory {
            return 0;
        }
        let events = fs::read_to_string(self.folder.join("memory.events")).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// Removes it, if nothing lives in it any more.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove(&self.folder)
    }
}

/// The names of processes with their counts, such as `sh, sleep (2)`.
pub(super) fn names(pids: &[Pid]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for pid in pids {
        let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_pid()));
        let name = name.map_or_else(|_| "?".to_owned(), |name| name.trim_end().to_owned());
        *counts.entry(name).or_default() += 1;
    }
    let more = counts.len().saturating_sub(NAMES_MAX);
    let told = counts.into_iter().take(NAMES_MAX);
    let mut words: Vec<String> = told
        .map(|(name, count)| if count == 1 { name } else { format!("{name} ({count})") })
        .collect();
    if more > 0 {
        words.push(format!("and {more} more names"));
    }
    words.join(", ")
}

/// A new folder for the cgroups of this daemon, and the lock by which others know that it lives.
fn locked_folder(base: &Path) -> io::Result<(PathBuf, File)> {
    let own = getpid().as_raw_pid();
    for number in 0..u16::MAX {
        let folder = base.join(format!("{PREFIX}{own}-{number}"));
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        if let Some(lock) = lock(&folder)? {
            return Ok((folder, lock));
        }
        // A daemon that was started at the same time takes it for one that was left behind, and removes it.
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Locks a folder; none if somebody else has locked it, or has removed it meanwhile.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file = match File::open(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    let is_same = fs::metadata(folder).is_ok_and(|now| {
        file.metadata().is_ok_and(|then| (now.dev(), now.ino()) == (then.dev(), then.ino()))
    });
    Ok(is_same.then_some(file))
}

/// Ends what daemons that have died have left in their cgroups, and removes these.
fn end_dead_daemons(base: &Path) {
    for folder in subfolders(base) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(PREFIX) {
            continue;
        }
        // The lock is held until the folder is gone.
        if let Ok(Some(_lock)) = lock(&folder) {
            if is_populated(&folder) {
                tracing::warn!(folder = %folder.display(), "ended commands whose daemon died");
            }
            end_folder(&folder);
        }
    }
}

/// Ends everything in a cgroup and below, waits for a moment until it has ended, and removes all of it.
fn end_folder(folder: &Path) {
    if is_populated(folder) {
        kill(folder);
    }
    for _ in 0..LOOKS_MAX {
        if !is_populated(folder) {
            break;
        }
        // Nothing can come: this is a sleep.
        if let Err(error) = poll(&mut [], Timespec::try_from(PAUSE).ok().as_ref()) {
            tracing::debug!(%error, "a pause was cut short");
        }
    }
    if let Err(error) = remove(folder) {
        tracing::warn!(%error, folder = %folder.display(), "a cgroup could not be removed");
    }
}

fn kill(folder: &Path) {
    match fs::write(folder.join("cgroup.kill"), "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, folder = %folder.display(), "a cgroup could not be killed");
        }
        Ok(()) | Err(_) => {}
    }
}

fn is_populated(folder: &Path) -> bool {
    let events = fs::read_to_string(folder.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 1")
}

fn make_folder(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a cgroup and those in it; one that is gone already is no error.
fn remove(folder: &Path) -> io::Result<()> {
    for inner in folders(folder).iter().rev() {
        match fs::remove_dir(inner) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// A folder and all folders in it, each before those that it holds.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder.to_owned()];
    let mut next = 0;
    while let Some(folder) = all.get(next) {
        // The kernel counts the folders in a cgroup as links to it, which spares most listings.
        if has_subfolders(folder) {
            let inner = subfolders(folder);
            all.extend(inner);
        }
        next += 1;
    }
    all
}

/// Whether a cgroup has others in it.
fn has_subfolders(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|metadata| metadata.nlink() != 2)
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.filter(is_folder).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A folder that has the files which the kernel would have made: what is written can be read again.
    fn fake(controllers: &str) -> tempfile::TempDir {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("cgroup.controllers"), controllers).unwrap();
        base
    }

    fn cgroups(folder: &Path, names: &str) -> Arc<Cgroups> {
        fs::write(folder.join("cgroup.subtree_control"), names).unwrap();
        Arc::new(Cgroups {
            folder: folder.to_owned(),
            controllers: Controllers::named_in(folder, "cgroup.subtree_control"),
            number: AtomicU64::new(0),
            _lock: File::open(folder).unwrap(),
        })
    }

    #[test]
    fn limits_of_a_run_are_written_to_its_cgroup_before_it_starts() {
        let base = fake("");
        let cgroup = cgroups(base.path(), "cpu memory pids").make().unwrap();
        let given = json!({"total_memory": "64M", "processes": 10, "cores": 1.5, "files": 7});
        cgroup.limit(&crate::invalid::read(given).unwrap()).unwrap();
        let read = |file: &str| fs::read_to_string(cgroup.folder().join(file)).unwrap();
        assert_eq!(read("memory.max"), "67108864");
        assert_eq!(read("pids.max"), "11", "the launcher is one of them");
        assert_eq!(read("cpu.max"), "150000 100000");
        let other = cgroups(base.path(), "cpu memory pids");
        other.number.store(1, Ordering::Relaxed);
        let other = other.make().unwrap();
        other.limit(&Limits::default()).unwrap();
        assert_eq!(fs::read_dir(other.folder()).unwrap().count(), 0, "nothing is limited");
        fs::remove_dir(other.folder()).unwrap();
        let (field, _) =
            other.limit(&crate::invalid::read(json!({"cores": 1})).unwrap()).unwrap_err();
        assert_eq!(field, "cores");
    }

    #[test]
    fn processes_that_were_killed_for_lack_of_memory_are_counted_where_the_kernel_does() {
        let base = fake("");
        let cgroup = cgroups(base.path(), "memory").make().unwrap();
        assert_eq!(cgroup.oom_kills(), 0);
        let events = "low 0\nhigh 0\nmax 34\noom 5\noom_kill 4\noom_group_kill 0\n";
        fs::write(cgroup.folder().join("memory.events"), events).unwrap();
        assert_eq!(cgroup.oom_kills(), 4);
    }

    #[test]
    fn a_cgroup_is_used_again_only_if_its_launcher_is_in_it_and_nothing_else() {
        let base = fake("");
        let cgroup = cgroups(base.path(), "").make().unwrap();
        let cases = [("7\n", true), ("", false), ("8\n", false), ("7\n8\n", false)];
        for (processes, is_usable) in cases {
            fs::write(cgroup.folder().join("cgroup.procs"), processes).unwrap();
            assert_eq!(cgroup.holds_only(Pid::from_raw(7).unwrap()), is_usable, "{processes:?}");
        }
    }

    #[test]
    fn the_daemon_moves_to_its_own_subgroup_and_enables_what_is_there_for_the_commands() {
        let base = fake("cpuset cpu io memory");
        let folder = base.path().join("commands-1-0");
        fs::create_dir(&folder).unwrap();
        let own = cgroups(&folder, "");
        let own = Cgroups {
            controllers: Controllers::named_in(base.path(), "cgroup.controllers"),
            folder: own.folder.clone(),
            number: AtomicU64::new(0),
            _lock: File::open(&folder).unwrap(),
        };
        own.enable_controllers(base.path()).unwrap();
        let read = |file: &str| fs::read_to_string(base.path().join(file)).unwrap();
        assert_eq!(read("main/cgroup.procs"), "0", "which stands for the process that writes");
        assert_eq!(read("cgroup.subtree_control"), "+cpu +memory");
        assert_eq!(read("commands-1-0/cgroup.subtree_control"), "+cpu +memory");
    }

    #[test]
    fn without_controllers_the_daemon_stays_where_it_is() {
        let base = fake("hugetlb");
        let own = cgroups(base.path(), "");
        own.enable_controllers(base.path()).unwrap();
        assert!(!base.path().join("main").exists());
    }

    #[test]
    fn the_folder_of_a_daemon_that_lives_is_left_alone_and_that_of_one_that_died_is_removed() {
        let base = fake("");
        let (living, lock) = locked_folder(base.path()).unwrap();
        let (dead, its_lock) = locked_folder(base.path()).unwrap();
        assert_ne!(living, dead);
        fs::create_dir(dead.join("7")).unwrap();
        let foreign = base.path().join("something");
        fs::create_dir(&foreign).unwrap();
        drop(its_lock);
        end_dead_daemons(base.path());
        assert_eq!([living.exists(), dead.exists(), foreign.exists()], [true, false, true]);
        drop(lock);
        end_dead_daemons(base.path());
        assert!(!living.exists());
    }

    #[test]
    fn names_of_processes_are_counted() {
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        let told = names(&[getpid(), getpid()]);
        assert_eq!(told, format!("{} (2)", own.trim_end()));
        assert_eq!(names(&[]), "");
    }
}
