//! Which user and group a command runs as, looked up on this machine.

use std::ffi::CString;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::invalid::Invalid;

/// The folder of those who have none.
const ROOT_FOLDER: &str = "/";

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
    pub(super) fn permanent(field: &'static str, why: impl Into<String>) -> Self {
        Self { field, why: why.into(), is_passing: false }
    }

    /// The same as an error of the definition; none if it may be usable later.
    pub(super) fn invalid(self) -> Option<Invalid> {
        (!self.is_passing).then(|| self.refused())
    }

    /// The same as an error of the definition, also if it may be usable later.
    pub(super) fn refused(self) -> Invalid {
        Invalid::new(self.field, self.why)
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
        // The user of this process stays what it is, whatever group it was started in.
        let own = (uid == Uid::effective()).then(Gid::effective);
        let gid = gid.or(own).or(entry.as_ref().map(|entry| entry.gid)).ok_or_else(no_group)?;
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

    /// All groups of the user; only the given one where the user has no entry.
    pub(super) fn groups(&self) -> Vec<Gid> {
        let name = self.entry.as_ref().and_then(|user| CString::new(user.name.as_str()).ok());
        let listed = name.and_then(|name| getgrouplist(&name, self.gid).ok());
        listed.unwrap_or_else(|| vec![self.gid])
    }

    /// The user's home; `/` where the user has no entry, or the home does not exist.
    pub(super) fn home(&self) -> PathBuf {
        home_or_root(self.entry.as_ref().map(|user| user.dir.clone()))
    }
}

/// A folder that exists: this one, or `/`.
pub(super) fn home_or_root(home: Option<PathBuf>) -> PathBuf {
    home.filter(|home| home.is_dir()).unwrap_or_else(|| ROOT_FOLDER.into())
}

/// A user by name or number; a number needs no entry.
pub(super) fn find_user(user: &str) -> Result<(Uid, Option<User>), Unusable> {
    let unknown = |error: Option<nix::Error>| lookup_failed("user", user, error);
    if let Some(entry) = User::from_name(user).map_err(|error| unknown(Some(error)))? {
        return Ok((entry.uid, Some(entry)));
    }
    let uid = Uid::from_raw(number(user).ok_or_else(|| unknown(None))?);
    Ok((uid, User::from_uid(uid).map_err(|error| unknown(Some(error)))?))
}

pub(super) fn find_group(group: &str) -> Result<Gid, Unusable> {
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
