//! A cgroup for each run, where the daemon may make some: it holds every process of the run, whatever that does.
//!
//! The daemon may in a cgroup that systemd has delegated to it (`Delegate=yes`), or that `PUNCTUAL_CGROUP=1` says is
//! its own. No controller is switched on, so the daemon itself can stay where it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Access, access, getxattr};

use crate::run::Execution;

/// Says that the daemon's cgroup is its own.
const VARIABLE: &str = "PUNCTUAL_CGROUP";
/// How systemd marks a folder that it has delegated: the second one can be read by root only.
const DELEGATED: [&str; 2] = ["user.delegate", "trusted.delegate"];
/// What the name of a run's folder begins with.
const PREFIX: &str = "run-";
/// Folders of earlier runs that are looked at again at the end of a run.
const RETRIES: usize = 4;

/// Where the cgroups of runs are made.
#[derive(Debug)]
pub(super) struct Cgroups {
    folder: PathBuf,
    /// Folders in which something lived on after the end of the run.
    inhabited: Mutex<Vec<PathBuf>>,
}

/// The cgroup of one run. Dropping it removes it, or leaves it for later if something lives in it.
#[derive(Debug)]
pub(super) struct Cgroup<'a> {
    folder: PathBuf,
    among: &'a Cgroups,
}

impl Cgroups {
    /// The daemon's own cgroup, if it may make others in it.
    pub(super) fn find() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let folder = own_folder(&mounts, &own)?;
        let is_asked = std::env::var(VARIABLE).is_ok_and(|value| value == "1");
        if !is_asked && !DELEGATED.iter().any(|name| is_marked(&folder, name)) {
            return None;
        }
        if access(&folder, Access::WRITE_OK).is_err() {
            tracing::warn!(folder = %folder.display(), "the cgroup is delegated, and cannot be written");
            return None;
        }
        tracing::debug!(folder = %folder.display(), "each run gets a cgroup of its own");
        let cgroups = Self { folder, inhabited: Mutex::default() };
        cgroups.adopt();
        Some(cgroups)
    }

    /// Takes over the folders that a daemon before this one has left.
    fn adopt(&self) {
        let Ok(folders) = fs::read_dir(&self.folder) else { return };
        let is_run =
            |folder: &fs::DirEntry| folder.file_name().to_string_lossy().starts_with(PREFIX);
        let left = folders.filter_map(Result::ok).filter(is_run).map(|folder| folder.path());
        self.inhabited.lock().unwrap_or_else(PoisonError::into_inner).extend(left);
        self.sweep();
    }

    /// The folder of a run.
    fn folder_of(&self, (run_id, attempt): &Execution) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let id: String = run_id.0.chars().map(plain).collect();
        self.folder.join(format!("{PREFIX}{id}-{attempt}"))
    }

    /// Ends by force what a daemon that has died has left in the cgroup of a run.
    pub(super) fn kill(&self, execution: &Execution) {
        match fs::write(self.folder_of(execution).join("cgroup.kill"), "1") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "the cgroup of an earlier run could not be killed");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Makes the cgroup of a run.
    pub(super) fn make(&self, execution: &Execution) -> io::Result<Cgroup<'_>> {
        let folder = self.folder_of(execution);
        match fs::create_dir(&folder) {
            // The same attempt, by a daemon that has died.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        let cgroup = Cgroup { folder, among: self };
        if !cgroup.file("cgroup.kill").exists() {
            return Err(io::Error::other("this kernel cannot end a cgroup"));
        }
        Ok(cgroup)
    }

    /// Removes the folder of a run that has ended, and some of those for which it was too early.
    fn remove(&self, folder: PathBuf) {
        let mut inhabited = self.inhabited.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = inhabited.len().saturating_sub(RETRIES);
        let mut tried = inhabited.split_off(kept);
        tried.push(folder);
        tried.retain(|folder| !is_removed(folder));
        // To the front, so that others get their turn.
        inhabited.splice(0..0, tried);
    }

    /// Removes all that can be removed.
    fn sweep(&self) {
        let mut inhabited = self.inhabited.lock().unwrap_or_else(PoisonError::into_inner);
        inhabited.retain(|folder| !is_removed(folder));
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        self.sweep();
    }
}

impl Cgroup<'_> {
    /// Its folder, which a process joins by itself.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ends everything in it by force.
    pub(super) fn kill(&self) {
        if let Err(error) = fs::write(self.file("cgroup.kill"), "1") {
            tracing::warn!(%error, folder = %self.folder.display(), "a cgroup could not be killed");
        }
    }

    /// Whether anything lives in it.
    pub(super) fn is_populated(&self) -> bool {
        let events = fs::read_to_string(self.file("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == "populated 1")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Cgroup<'_> {
    fn drop(&mut self) {
        self.among.remove(std::mem::take(&mut self.folder));
    }
}

/// Whether a folder is gone.
fn is_removed(folder: &Path) -> bool {
    match fs::remove_dir(folder) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn is_marked(folder: &Path, name: &str) -> bool {
    let mut value = [0; 8];
    getxattr(folder, name, &mut value[..]).is_ok_and(|length| value.get(..length) == Some(b"1"))
}

/// The folder of the process's own cgroup of version 2, which may be mounted anywhere, or only in part.
fn own_folder(mounts: &str, own: &str) -> Option<PathBuf> {
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    // id parent device ROOT MOUNTPOINT options… - TYPE source options
    let mount = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        let is_version_2 = right.split(' ').next() == Some("cgroup2");
        let below = Path::new(own).strip_prefix(root).ok().filter(|_| is_version_2)?;
        Some(Path::new(place).join(below))
    };
    mounts.lines().find_map(mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_found_wherever_it_is_mounted() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        let own = "4:memory:/elsewhere\n0::/system.slice/punctual.service\n";
        assert_eq!(
            own_folder(hybrid, own),
            Some("/sys/fs/cgroup/unified/system.slice/punctual.service".into())
        );
        let part = "41 31 0:38 /docker/7 /sys/fs/cgroup rw - cgroup2 cgroup rw";
        assert_eq!(own_folder(part, "0::/docker/7/x"), Some("/sys/fs/cgroup/x".into()));
        assert_eq!(own_folder(part, "0::/elsewhere"), None);
        assert_eq!(own_folder(hybrid, "4:memory:/elsewhere"), None);
        assert_eq!(own_folder("", own), None);
    }
}
