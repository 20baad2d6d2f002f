//! The file of a SQLite store: locked for one daemon, and watched for as long as it is open.
//!
//! The lock is on the file itself, so neither another name of the file nor a removed lock file gets around it. While the
//! store is open, its path must lead to the file that is open: what is written into a file that was removed, renamed or
//! replaced would be lost at the next start.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{major, minor};
use tokio::time::Instant;

use crate::store::StoreError;
use crate::store::sql::error_text::{file_lasts, without_number};

/// The mode of a new database. SQLite gives the same mode to its WAL and its shared memory.
const MODE: u32 = 0o640;

/// A hint that follows the reason why a file cannot be written.
pub(super) const NEEDED_RIGHTS: &str =
    " (the user of the daemon must be able to write to the file, and to the folder that it is in)";

/// Identifies a file, whatever its path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DatabaseFileId {
    device: u64,
    inode: u64,
}

impl DatabaseFileId {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// How long to wait for a lock whose holder is not in /proc/locks. A daemon that was killed while it started a command leaves its
/// lock to the child process until that has become the command, for some milliseconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// What happens if the file does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfMissing {
    Create,
    Refuse,
}

/// Why a file could not be locked.
#[derive(Debug)]
enum LockError {
    /// The process that has locked it has died, or belongs to another PID namespace. Holds the path.
    HolderNotVisible(String),
    /// The file cannot be used, or a living process has locked it.
    Store(StoreError),
}

impl From<StoreError> for LockError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<LockError> for StoreError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::HolderNotVisible(path) => Self::Unusable(format!(
                "{path} is in use by another daemon (its process is not visible from here)"
            )),
            LockError::Store(error) => error,
        }
    }
}

/// A database file that this process has locked. The system frees the lock when the process ends.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    path: PathBuf,
    identity: DatabaseFileId,
    /// The WAL and the shared memory, with their identity while the database is open.
    companions: OnceLock<Vec<(PathBuf, DatabaseFileId)>>,
    /// Holds the lock, and keeps the identity from being given to another file. It must be closed after the last
    /// connection: closing it frees SQLite's own locks on the file.
    file: File,
}

impl Drop for DatabaseFile {
    /// Frees the lock. A child process may have the file open until it has become its command, so closing the file is not
    /// enough.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::debug!(%error, "the database file could not be unlocked");
        }
    }
}

impl DatabaseFile {
    /// Opens and locks a file. Fails if another process has locked it.
    pub(super) async fn lock(path: &Path, absent: IfMissing) -> Result<Self, StoreError> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match Self::try_lock(path, absent) {
                Err(LockError::HolderNotVisible(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                tried => return tried.map_err(StoreError::from),
            }
        }
    }

    fn try_lock(path: &Path, absent: IfMissing) -> Result<Self, LockError> {
        let shown = path.display();
        let fail = |error: io::Error| not_opened(path, &error);
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(absent == IfMissing::Create)
            .truncate(false)
            .mode(MODE);
        let file = options.open(path).map_err(fail)?;
        let path = path.canonicalize().map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        let refuse = |why: &str| Err(StoreError::Unusable(format!("{shown} {why}")).into());
        let refuse_for_good = |why: &str| Err(StoreError::Refused(format!("{shown} {why}")).into());
        if !metadata.is_file() {
            return refuse_for_good("is not a regular file");
        }
        if metadata.nlink() > 1 {
            return refuse_for_good(
                "has more than one name (hard links): the changes that SQLite keeps beside one name are \
                 not seen under the other; remove the other names, or copy the file",
            );
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => {
                return refuse(&format!("cannot be locked: {error}"));
            }
            Err(TryLockError::WouldBlock) => {
                return match holder(&metadata) {
                    Some(holder) => refuse(&format!("is in use by another daemon ({holder})")),
                    None => Err(LockError::HolderNotVisible(shown.to_string())),
                };
            }
        }
        let identity = DatabaseFileId::of(&metadata);
        let locked = Self { path, identity, companions: OnceLock::new(), file };
        locked.verify()?;
        Ok(locked)
    }

    /// The path without symbolic links.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes the identity of the WAL and the shared memory. To be called once, when SQLite has created them.
    pub(super) fn note_companions(&self) -> Result<(), StoreError> {
        let companion = |suffix: &str| {
            let mut name = self.path.clone().into_os_string();
            name.push(suffix);
            let path = PathBuf::from(name);
            let metadata = path.symlink_metadata().map_err(|error| lost(&path, &error))?;
            Ok((path, DatabaseFileId::of(&metadata)))
        };
        let found =
            ["-wal", "-shm"].map(companion).into_iter().collect::<Result<_, StoreError>>()?;
        self.companions.get_or_init(|| found);
        Ok(())
    }

    /// An error if the paths of the database no longer lead to the files that are open.
    pub(super) fn verify(&self) -> Result<(), StoreError> {
        check(&self.path, self.identity)?;
        let mut companions = self.companions.get().into_iter().flatten();
        companions.try_for_each(|(path, identity)| check(path, *identity))
    }
}

/// The error of a file that could not be opened, or of a folder that could not be created.
pub(super) fn not_opened(path: &Path, error: &io::Error) -> StoreError {
    let message = format!("cannot open {}: {}", path.display(), without_number(error));
    if !file_lasts(error) {
        return StoreError::Unusable(message);
    }
    StoreError::Refused(format!("{message}{NEEDED_RIGHTS}"))
}

fn check(path: &Path, identity: DatabaseFileId) -> Result<(), StoreError> {
    let found = path.symlink_metadata().map_err(|error| lost(path, &error))?;
    if DatabaseFileId::of(&found) == identity {
        return Ok(());
    }
    let path = path.display();
    let message = format!("{path} was replaced by another file while the daemon has it open");
    Err(StoreError::Unavailable(message))
}

fn lost(path: &Path, error: &io::Error) -> StoreError {
    let path = path.display();
    StoreError::Unavailable(if error.kind() == io::ErrorKind::NotFound {
        format!("{path} was removed or renamed while the daemon has it open")
    } else {
        format!("{path} cannot be checked: {error}")
    })
}

/// The living process that has locked a file, as `/proc/locks` lists it.
fn holder(metadata: &Metadata) -> Option<String> {
    let device = metadata.dev();
    let file = format!("{:02x}:{:02x}:{}", major(device), minor(device), metadata.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let mut lines = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.find_map(|line| match line.as_slice() {
        [_, "FLOCK", _, _, process, place, ..] if *place == file => {
            Path::new("/proc").join(process).exists().then(|| format!("process {process}"))
        }
        _ => None,
    })
}
