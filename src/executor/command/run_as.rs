//! The user and the group that a command runs as, looked up on this machine.

use std::ffi::CString;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::invalid::Invalid;

/// Why a command cannot run as a user or in a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub(super) struct RunAsError {
    field: &'static str,
    why: String,
    /// It may succeed later: a directory service such as LDAP did not answer.
    pub(super) is_transient: bool,
}

impl RunAsError {
    pub(super) fn permanent(field: &'static str, why: impl Into<String>) -> Self {
        Self { field, why: why.into(), is_transient: false }
    }

    /// The error as a fault of the job's definition; none if it is transient.
    pub(super) fn permanent_fault(self) -> Option<Invalid> {
        (!self.is_transient).then(|| self.into_invalid())
    }

    /// The error as a fault of the job's definition, even if it is transient.
    pub(super) fn into_invalid(self) -> Invalid {
        Invalid::new(self.field, self.why)
    }
}

#[derive(Debug)]
pub(super) struct RunAs {
    /// None if the command names no user, so that the process keeps its own.
    pub(super) uid: Option<Uid>,
    pub(super) gid: Gid,
    /// The passwd entry; a user that is given by number may have none.
    pub(super) entry: Option<User>,
}

impl RunAs {
    /// Looks up user and group; none if the command names neither.
    pub(super) fn find(
        user: Option<&str>,
        group: Option<&str>,
    ) -> Result<Option<Self>, RunAsError> {
        let gid = group.map(find_group).transpose()?;
        let Some(user) = user else {
            return Ok(gid.map(|gid| Self { uid: None, gid, entry: None }));
        };
        let (uid, entry) = find_user(user)?;
        let no_group = || {
            let why = format!("\"{user}\" has no group of its own; give \"group\" too");
            RunAsError::permanent("user", why)
        };
        // The daemon's own user keeps the group in which the daemon was started.
        let own = (uid == Uid::effective()).then(Gid::effective);
        let gid = gid.or(own).or(entry.as_ref().map(|entry| entry.gid)).ok_or_else(no_group)?;
        Ok(Some(Self { uid: Some(uid), gid, entry }))
    }

    pub(super) fn is_other_user(&self) -> bool {
        self.uid.is_some_and(|uid| uid != Uid::effective())
    }

    /// Whether this process has this user and group already.
    pub(super) fn is_own(&self) -> bool {
        !self.is_other_user() && self.gid == Gid::effective()
    }

    /// All groups of the user; only the given one if the user has no passwd entry.
    pub(super) fn groups(&self) -> Vec<Gid> {
        let name = self.entry.as_ref().and_then(|user| CString::new(user.name.as_str()).ok());
        let listed = name.and_then(|name| getgrouplist(&name, self.gid).ok());
        listed.unwrap_or_else(|| vec![self.gid])
    }

    /// The user's home; `/` if the user has no passwd entry or the home does not exist.
    pub(super) fn home(&self) -> PathBuf {
        home_or_root(self.entry.as_ref().map(|user| user.dir.clone()))
    }
}

/// This directory if it exists, else `/`.
pub(super) fn home_or_root(home: Option<PathBuf>) -> PathBuf {
    home.filter(|home| home.is_dir()).unwrap_or_else(|| "/".into())
}

/// A user by name or number. A number needs no passwd entry.
pub(super) fn find_user(user: &str) -> Result<(Uid, Option<User>), RunAsError> {
    let unknown = |error: Option<nix::Error>| lookup_failed("user", user, error);
    if let Some(entry) = User::from_name(user).map_err(|error| unknown(Some(error)))? {
        return Ok((entry.uid, Some(entry)));
    }
    let uid = Uid::from_raw(number(user).ok_or_else(|| unknown(None))?);
    Ok((uid, User::from_uid(uid).map_err(|error| unknown(Some(error)))?))
}

pub(super) fn find_group(group: &str) -> Result<Gid, RunAsError> {
    let unknown = |error: Option<nix::Error>| lookup_failed("group", group, error);
    if let Some(entry) = Group::from_name(group).map_err(|error| unknown(Some(error)))? {
        return Ok(entry.gid);
    }
    number(group).map(Gid::from_raw).ok_or_else(|| unknown(None))
}

/// The id of a user or a group. The largest number means "no change" to the kernel.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

fn lookup_failed(kind: &'static str, name: &str, error: Option<nix::Error>) -> RunAsError {
    match error {
        Some(error) => RunAsError {
            field: kind,
            why: format!("\"{name}\" cannot be looked up: {error}"),
            is_transient: true,
        },
        None => RunAsError::permanent(kind, format!("there is no {kind} \"{name}\"")),
    }
}
