//! The cgroups in which commands run. Each holds every process of a run, whatever that process does to its session, its parent
//! and its environment.
//!
//! The cgroups of one daemon are in a folder of its own, which the daemon keeps locked while it lives. So the next daemon
//! can tell which folders belong to a dead one, and kills what is left in them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use tokio::time::{Instant, sleep};

use super::delegation::{Controllers, MAIN_SUBGROUP, bad_setting, delegated_folder};
use super::orphans::blocking_sleep;
use crate::job::{CORES_PERIOD, MemorySize, ResourceLimits};

/// Prefix of the name of the folder that holds a daemon's cgroups.
const PREFIX: &str = "commands-";
/// How often to check whether killed processes are gone, and the pause between two checks.
const CHECKS_MAX: usize = 200;
const PAUSE: Duration = Duration::from_millis(5);
/// How long to wait for the processes of a killed cgroup to end, and the first and the longest pause between two checks.
const DEATH_LIMIT: Duration = Duration::from_secs(5);
const DEATH_PAUSES: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(200)];
/// The most process names that a message lists.
const NAMES_MAX: usize = 8;

/// The folder of one daemon's cgroups. Dropping it kills what is in them and removes it.
#[derive(Debug)]
pub(super) struct Cgroups {
    folder: PathBuf,
    /// Enabled in the cgroups of commands, to limit whole runs.
    pub(super) controllers: Controllers,
    next_number: AtomicU64,
    /// Keeps the folder locked.
    _lock: File,
}

/// The cgroup of a command and of the launcher that starts it.
#[derive(Debug)]
pub(super) struct Cgroup {
    /// The launcher enters it by itself.
    pub(super) folder: PathBuf,
    parent: Arc<Cgroups>,
}

impl Cgroups {
    /// Makes the folder in the daemon's cgroup; none if the daemon may not make cgroups.
    pub(super) fn find() -> Option<Self> {
        if let Some(why) = bad_setting() {
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
        clear_dead_daemons(base);
        let (folder, lock) = locked_folder(base)?;
        let mut cgroups = Self {
            folder,
            controllers: Controllers::named_in(base, "cgroup.controllers"),
            next_number: AtomicU64::new(0),
            _lock: lock,
        };
        if !cgroups.folder.join("cgroup.kill").exists() {
            return Err(io::Error::other("this kernel cannot kill a cgroup"));
        }
        if let Err(error) = cgroups.enable_controllers(base) {
            tracing::warn!(%error, folder = %base.display(), "the controllers of the cgroup cannot be enabled");
        }
        cgroups.controllers = Controllers::named_in(&cgroups.folder, "cgroup.subtree_control");
        tracing::debug!(folder = %cgroups.folder.display(), controllers = ?cgroups.controllers.names(), "each command gets a cgroup of its own");
        Ok(cgroups)
    }

    /// Enables the available controllers. The kernel allows that only if no process stays in `base` itself.
    fn enable_controllers(&self, base: &Path) -> io::Result<()> {
        let names = self.controllers.names();
        if names.is_empty() {
            return Ok(());
        }
        let main = base.join(MAIN_SUBGROUP);
        fs::create_dir_all(&main)?;
        fs::write(main.join("cgroup.procs"), "0")?;
        let changes: Vec<String> = names.iter().map(|name| format!("+{name}")).collect();
        for folder in [base, &self.folder] {
            fs::write(folder.join("cgroup.subtree_control"), changes.join(" "))?;
        }
        Ok(())
    }

    pub(super) fn create(self: &Arc<Self>) -> io::Result<Cgroup> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(number.to_string());
        fs::create_dir(&folder)?;
        Ok(Cgroup { folder, parent: Arc::clone(self) })
    }
}

impl Drop for Cgroups {
    /// Usually no process is left by now.
    fn drop(&mut self) {
        kill_and_remove(&self.folder);
    }
}

impl Cgroup {
    /// Kills everything in it.
    pub(super) fn kill(&self) {
        kill(&self.folder);
    }

    /// Kills everything in it, and waits at most [`DEATH_LIMIT`] until no process is left.
    pub(super) async fn kill_and_wait(&self) {
        self.kill();
        let deadline = Instant::now() + DEATH_LIMIT;
        let [mut pause, longest] = DEATH_PAUSES;
        while is_populated(&self.folder) && Instant::now() < deadline {
            sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }

    /// The processes in it, and in cgroups that a command has made in it, except these.
    pub(super) fn others(&self, than: &[Pid]) -> Vec<Pid> {
        let mut found = Vec::new();
        for folder in folders(&self.folder) {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)));
        }
        found.retain(|pid| !than.contains(pid));
        found
    }

    /// Whether it holds this process and nothing else. A command may have moved the process out of it.
    pub(super) fn holds_only(&self, pid: Pid) -> bool {
        !has_subfolders(&self.folder) && self.others(&[]) == [pid]
    }

    /// Sends SIGTERM to these processes, if they are still in it.
    pub(super) fn terminate(&self, pids: &[Pid]) {
        let open = |pid: &Pid| Some((*pid, pidfd_open(*pid, PidfdFlags::empty()).ok()?));
        let opened: Vec<_> = pids.iter().filter_map(open).collect();
        // A process id that is still listed after the pidfds were opened belongs to the process that was opened.
        let present = self.others(&[]);
        for (pid, process) in opened.iter().filter(|(pid, _)| present.contains(pid)) {
            if let Err(error) = pidfd_send_signal(process, Signal::TERM) {
                tracing::debug!(%error, pid = pid.as_raw_pid(), "a process could not be sent SIGTERM");
            }
        }
    }

    /// Limits everything in it, including the launcher. An error names the field of the limit.
    pub(super) fn limit(&self, limits: &ResourceLimits) -> Result<(), (&'static str, io::Error)> {
        let write = |field, file, text: String| {
            fs::write(self.folder.join(file), text).map_err(|error| (field, error))
        };
        if let Some(bytes) = limits.total_memory.as_ref().and_then(MemorySize::count) {
            write("total_memory", "memory.max", bytes.to_string())?;
        }
        if let Some(processes) = limits.processes {
            // The launcher counts too.
            write("processes", "pids.max", processes.saturating_add(1).to_string())?;
        }
        if let Some(quota) = limits.cores_quota() {
            let text = format!("{} {}", quota.as_micros(), CORES_PERIOD.as_micros());
            write("cores", "cpu.max", text)?;
        }
        Ok(())
    }

    /// Processes in it that were killed so far for lack of memory; 0 if the kernel does not count them.
    pub(super) fn oom_kills(&self) -> usize {
        if !self.parent.controllers.memory {
            return 0;
        }
        let events = fs::read_to_string(self.folder.join("memory.events")).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// Fails if a process still lives in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove(&self.folder)
    }
}

/// The names of processes with their counts, such as `sh, sleep (2)`.
pub(super) fn process_names(pids: &[Pid]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for pid in pids {
        let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_pid()));
        let name = name.map_or_else(|_| "?".to_owned(), |name| name.trim_end().to_owned());
        *counts.entry(name).or_default() += 1;
    }
    let more = counts.len().saturating_sub(NAMES_MAX);
    let listed = counts.into_iter().take(NAMES_MAX);
    let mut words: Vec<String> = listed
        .map(|(name, count)| if count == 1 { name } else { format!("{name} ({count})") })
        .collect();
    if more > 0 {
        words.push(format!("and {more} more names"));
    }
    words.join(", ")
}

/// A new folder for the cgroups of this daemon, and the lock that shows others that this daemon lives.
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
        // A daemon that starts at the same time has taken the folder for an abandoned one, and removes it.
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Locks a folder; none if another process has locked it or has removed it meanwhile.
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

/// Kills what dead daemons have left in their cgroups, and removes these.
fn clear_dead_daemons(base: &Path) {
    for folder in subfolders(base) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(PREFIX) {
            continue;
        }
        // The lock is kept until the folder is gone.
        if let Ok(Some(_lock)) = lock(&folder) {
            if is_populated(&folder) {
                tracing::warn!(folder = %folder.display(), "ended commands whose daemon died");
            }
            kill_and_remove(&folder);
        }
    }
}

/// Kills everything in a cgroup and below, waits at most a second for that, and removes the folders.
fn kill_and_remove(folder: &Path) {
    if is_populated(folder) {
        kill(folder);
    }
    for _ in 0..CHECKS_MAX {
        if !is_populated(folder) {
            break;
        }
        blocking_sleep(PAUSE);
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

/// Removes a cgroup and those in it. It is no error if it is gone already.
fn remove(folder: &Path) -> io::Result<()> {
    for inner in folders(folder).iter().rev() {
        match fs::remove_dir(inner) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// A folder and all folders below it, each before those that it holds.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder.to_owned()];
    let mut next = 0;
    while let Some(folder) = all.get(next) {
        if has_subfolders(folder) {
            let inner = subfolders(folder);
            all.extend(inner);
        }
        next += 1;
    }
    all
}

/// Whether a cgroup has others in it. The kernel counts those as links, so this needs no listing.
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

    /// A folder with plain files in place of the kernel's: what is written can be read again.
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
            next_number: AtomicU64::new(0),
            _lock: File::open(folder).unwrap(),
        })
    }

    #[test]
    fn limits_of_a_run_are_written_to_its_cgroup_before_it_starts() {
        let base = fake("");
        let cgroup = cgroups(base.path(), "cpu memory pids").create().unwrap();
        let given = json!({"total_memory": "64M", "processes": 10, "cores": 1.5, "files": 7});
        cgroup.limit(&crate::invalid::read(given).unwrap()).unwrap();
        let read = |file: &str| fs::read_to_string(cgroup.folder.join(file)).unwrap();
        assert_eq!(read("memory.max"), "67108864");
        assert_eq!(read("pids.max"), "11", "the launcher is one of them");
        assert_eq!(read("cpu.max"), "150000 100000");
        let other = cgroups(base.path(), "cpu memory pids");
        other.next_number.store(1, Ordering::Relaxed);
        let other = other.create().unwrap();
        other.limit(&ResourceLimits::default()).unwrap();
        assert_eq!(fs::read_dir(&other.folder).unwrap().count(), 0, "nothing is limited");
        fs::remove_dir(&other.folder).unwrap();
        let (field, _) =
            other.limit(&crate::invalid::read(json!({"cores": 1})).unwrap()).unwrap_err();
        assert_eq!(field, "cores");
    }

    #[test]
    fn processes_killed_for_lack_of_memory_are_counted_if_the_kernel_counts_them() {
        let base = fake("");
        let cgroup = cgroups(base.path(), "memory").create().unwrap();
        assert_eq!(cgroup.oom_kills(), 0);
        let events = "low 0\nhigh 0\nmax 34\noom 5\noom_kill 4\noom_group_kill 0\n";
        fs::write(cgroup.folder.join("memory.events"), events).unwrap();
        assert_eq!(cgroup.oom_kills(), 4);
    }

    #[test]
    fn a_cgroup_is_used_again_only_if_it_holds_just_its_launcher() {
        let base = fake("");
        let cgroup = cgroups(base.path(), "").create().unwrap();
        let cases = [("7\n", true), ("", false), ("8\n", false), ("7\n8\n", false)];
        for (processes, is_usable) in cases {
            fs::write(cgroup.folder.join("cgroup.procs"), processes).unwrap();
            assert_eq!(cgroup.holds_only(Pid::from_raw(7).unwrap()), is_usable, "{processes:?}");
        }
    }

    #[test]
    fn the_daemon_moves_to_its_own_subgroup_and_enables_the_available_controllers() {
        let base = fake("cpuset cpu io memory");
        let folder = base.path().join("commands-1-0");
        fs::create_dir(&folder).unwrap();
        let own = cgroups(&folder, "");
        let own = Cgroups {
            controllers: Controllers::named_in(base.path(), "cgroup.controllers"),
            folder: own.folder.clone(),
            next_number: AtomicU64::new(0),
            _lock: File::open(&folder).unwrap(),
        };
        own.enable_controllers(base.path()).unwrap();
        let read = |file: &str| fs::read_to_string(base.path().join(file)).unwrap();
        assert_eq!(read("main/cgroup.procs"), "0", "0 stands for the process that writes");
        assert_eq!(read("cgroup.subtree_control"), "+cpu +memory");
        assert_eq!(read("commands-1-0/cgroup.subtree_control"), "+cpu +memory");
    }

    #[test]
    fn without_controllers_the_daemon_stays_in_its_cgroup() {
        let base = fake("hugetlb");
        let own = cgroups(base.path(), "");
        own.enable_controllers(base.path()).unwrap();
        assert!(!base.path().join("main").exists());
    }

    #[test]
    fn the_folder_of_a_dead_daemon_is_removed_and_that_of_a_living_one_is_kept() {
        let base = fake("");
        let (living, lock) = locked_folder(base.path()).unwrap();
        let (dead, its_lock) = locked_folder(base.path()).unwrap();
        assert_ne!(living, dead);
        fs::create_dir(dead.join("7")).unwrap();
        let foreign = base.path().join("something");
        fs::create_dir(&foreign).unwrap();
        drop(its_lock);
        clear_dead_daemons(base.path());
        assert_eq!([living.exists(), dead.exists(), foreign.exists()], [true, false, true]);
        drop(lock);
        clear_dead_daemons(base.path());
        assert!(!living.exists());
    }

    #[test]
    fn names_of_processes_are_counted() {
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        let listed = process_names(&[getpid(), getpid()]);
        assert_eq!(listed, format!("{} (2)", own.trim_end()));
        assert_eq!(process_names(&[]), "");
    }
}
