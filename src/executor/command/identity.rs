//! Which user and group a command runs as, and what this process may give to a command. The launcher uses it to
//! change the user; the admission of a job uses it to refuse what can never run here.

use nix::unistd::{Gid, Group, Uid, User};
use rustix::process::{Resource, getpriority_process, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::delegation::Controllers;
use crate::invalid::Invalid;
use crate::job::Command;

/// The nice value that an `RLIMIT_NICE` of 0 stands for.
const NICE_CEILING: i32 = 20;

/// Why a user or a group cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub(super) struct Unusable {
    field: &'static str,
    why: String,
    /// Whether it may be usable later: a directory service did not answer.
    pub(super) is_passing: bool,
}

impl Unusable {
    fn permanent(field: &'static str, why: impl Into<String>) -> Self {
        Self { field, why: why.into(), is_passing: false }
    }
}

/// The user and the group that a command names, looked up on this machine.
#[derive(Debug)]
pub(super) struct Identity {
    /// The user to become; none if the command names no user.
    pub(super) uid: Option<Uid>,
    /// The group to change to.
    pub(super) gid: Gid,
    /// The user's entry; a user that is given by number may have none.
    pub(super) entry: Option<User>,
}

impl Identity {
    /// Looks both up; none if the command names neither.
    pub(super) fn find(user: Option<&str>, group: Option<&str>) -> Result<Option<Self>, Unusable> {
        let gid = group.map(find_group).transpose()?;
        let Some(user) = user else {
            return Ok(gid.map(|gid| Self { uid: None, gid, entry: None }));
        };
        let (uid, entry) = find_user(user)?;
        let no_group = || {
            let why = format!("\"{user}\" has no group of its own; give \"group\" too");
            Unusable::permanent("user", why)
        };
        let gid = gid.or(entry.as_ref().map(|entry| entry.gid)).ok_or_else(no_group)?;
        Ok(Some(Self { uid: Some(uid), gid, entry }))
    }

    /// Whether the command runs as another user than this process.
    pub(super) fn is_other_user(&self) -> bool {
        self.uid.is_some_and(|uid| uid != Uid::effective())
    }

    /// Whether user and group are those that this process has already.
    pub(super) fn is_own(&self) -> bool {
        !self.is_other_user() && self.gid == Gid::effective()
    }
}

/// A user by name or number; a number needs no entry.
fn find_user(user: &str) -> Result<(Uid, Option<User>), Unusable> {
    let unknown = |error: Option<nix::Error>| lookup_failed("user", user, error);
    if let Some(entry) = User::from_name(user).map_err(|error| unknown(Some(error)))? {
        return Ok((entry.uid, Some(entry)));
    }
    let uid = Uid::from_raw(number(user).ok_or_else(|| unknown(None))?);
    Ok((uid, User::from_uid(uid).map_err(|error| unknown(Some(error)))?))
}

fn find_group(group: &str) -> Result<Gid, Unusable> {
    let unknown = |error: Option<nix::Error>| lookup_failed("group", group, error);
    if let Some(entry) = Group::from_name(group).map_err(|error| unknown(Some(error)))? {
        return Ok(entry.gid);
    }
    number(group).map(Gid::from_raw).ok_or_else(|| unknown(None))
}

/// The number of a user or a group; the last one means "none" to the kernel.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

fn lookup_failed(kind: &'static str, name: &str, error: Option<nix::Error>) -> Unusable {
    match error {
        Some(error) => Unusable {
            field: kind,
            why: format!("\"{name}\" cannot be looked up: {error}"),
            is_passing: true,
        },
        None => Unusable::permanent(kind, format!("there is no {kind} \"{name}\"")),
    }
}

/// What a process may give to the commands that it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Privileges {
    /// Whether it may run commands as another user.
    pub sets_user: bool,
    /// Whether it may run commands in another group.
    pub sets_group: bool,
    /// The lowest nice value that it may give.
    pub lowest_nice: i32,
    /// Open files of a command, at most.
    pub files_max: u64,
    /// By what a whole run can be limited.
    pub controllers: Controllers,
}

impl Privileges {
    /// Those of this process.
    pub fn of_this_process() -> Self {
        let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
        let lowest_nice = if held.contains(CapabilitySet::SYS_NICE) {
            i32::MIN
        } else {
            let limit =
                getrlimit(Resource::Nice).current.and_then(|limit| i32::try_from(limit).ok());
            let allowed = limit.map_or(i32::MIN, |limit| NICE_CEILING.saturating_sub(limit));
            getpriority_process(None).map_or(allowed, |own| own.min(allowed))
        };
        let files_max = if held.contains(CapabilitySet::SYS_RESOURCE) {
            let most = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
            most.trim().parse().unwrap_or(u64::MAX)
        } else {
            getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
        };
        Self {
            sets_user: held.contains(CapabilitySet::SETUID),
            sets_group: held.contains(CapabilitySet::SETGID),
            lowest_nice,
            files_max,
            controllers: Controllers::of_this_process(),
        }
    }

    /// Whether a command can be started as it asks for. What may change by itself, such as a directory service that does
    /// not answer, is left to its runs.
    pub fn check(&self, command: &Command) -> Result<(), Invalid> {
        let found = Identity::find(command.user.as_deref(), command.group.as_deref());
        let identity = match found {
            Ok(identity) => identity,
            Err(unusable) if unusable.is_passing => None,
            Err(Unusable { field, why, .. }) => return Err(Invalid::new(field, why)),
        };
        if let Some(identity) = &identity {
            self.check_identity(identity)
                .map_err(|Unusable { field, why, .. }| Invalid::new(field, why))?;
        }
        if let Some(nice) = command.nice.filter(|nice| *nice < self.lowest_nice) {
            let why = format!(
                "{nice} is not possible: this daemon may not go below {}",
                self.lowest_nice
            );
            return Err(Invalid::new("nice", why));
        }
        let files = command.limits.as_ref().and_then(|limits| limits.files);
        if let Some(files) = files.filter(|files| *files > self.files_max) {
            let why = format!(
                "{files} is not possible: this daemon may not set more than {}",
                self.files_max
            );
            return Err(Invalid::new("limits.files", why));
        }
        if let Some(limits) = &command.limits {
            self.controllers.check(limits).map_err(|invalid| invalid.within("limits"))?;
        }
        Ok(())
    }

    /// Whether this process may start a command as this user and in this group.
    pub(super) fn check_identity(&self, identity: &Identity) -> Result<(), Unusable> {
        let changes_group = identity.gid != Gid::effective();
        if identity.is_other_user() && !(self.sets_user && self.sets_group) {
            let why = "this daemon is not root, and cannot run a command as another user";
            return Err(Unusable::permanent("user", why));
        }
        if changes_group && !self.sets_group {
            let why = "this daemon is not root, and cannot run a command in another group";
            return Err(Unusable::permanent("group", why));
        }
        Ok(())
    }
}
