//! Which client may have commands run as which user, where the daemon is root or may change users: the rights of a
//! command are then more than those of a member of the socket's group. Root and those that the file trusts may ask for
//! everything. Others may have commands run as themselves or as the default user, in groups of that user, without a
//! higher priority, and with no secret, since the daemon would read it with its own rights.

use nix::unistd::{Gid, Uid};

use super::identity::{Identity, Unusable, find_group, find_user};
use super::privileges::Privileges;
use crate::invalid::Invalid;
use crate::job::{Command, Task};
use crate::user;

impl Privileges {
    /// Whether this user may have this task run; none stands for somebody who is not known.
    pub fn check_requester(&self, uid: Option<u32>, task: &Task) -> Result<(), Invalid> {
        let uid = uid.map(Uid::from_raw);
        if self.may_ask_for_all(uid) {
            return Ok(());
        }
        if let Some(field) = task.secret_field() {
            return Err(not_trusted(field, "give a secret to a job"));
        }
        match task {
            Task::Command(command) => self.check_command_of(uid, command),
            Task::Builtin { .. } | Task::Http(_) | Task::Mail(_) | Task::Unreadable(_) => Ok(()),
        }
    }

    /// Whether this user may give a secret of this daemon to a job.
    pub fn check_secret_of(&self, uid: Option<u32>, field: &str) -> Result<(), Invalid> {
        if self.may_ask_for_all(uid.map(Uid::from_raw)) {
            return Ok(());
        }
        Err(not_trusted(field, "give a secret to a job"))
    }

    /// Whether a user may ask for everything: always where the daemon has no more rights than everyone who can reach it.
    fn may_ask_for_all(&self, uid: Option<Uid>) -> bool {
        let is_trusted = |uid: Uid| {
            let is_it = |name: &String| find_user(name).is_ok_and(|(found, _)| found == uid);
            uid.is_root() || self.trusted_users.iter().any(is_it)
        };
        !self.is_powerful() || uid.is_some_and(is_trusted)
    }

    fn check_command_of(&self, uid: Option<Uid>, command: &Command) -> Result<(), Invalid> {
        let own = uid.and_then(|uid| user::name_of(uid.as_raw()));
        let own = own.map_or_else(|| "your own user".to_owned(), |own| format!("\"{own}\""));
        let own_number = uid.filter(|uid| *uid == self.uid).map(|uid| uid.to_string());
        let Some(user) = self.user_of(command).or(own_number.as_deref()) else {
            let why = format!(
                "is missing: the command would run as the user of the daemon, which has more rights; give {own}"
            );
            return Err(Invalid::new("user", why));
        };
        // As the user, without the group: a group is judged by the user's own.
        let Some(identity) = Identity::find(Some(user), None).map_err(Unusable::refused)? else {
            return Ok(());
        };
        let is_default = self.default_user.as_deref().is_some_and(|default| {
            find_user(default).is_ok_and(|(found, _)| Some(found) == identity.uid)
        });
        if identity.uid != uid && !is_default {
            return Err(not_trusted("user", &format!("name another user than {own}")));
        }
        if let Some(group) = &command.group {
            let is_own = |gid: Gid| identity.groups().contains(&gid);
            match find_group(group).map(is_own) {
                Ok(true) => {}
                Ok(false) => {
                    let what = format!("name a group that \"{user}\" is not in");
                    return Err(not_trusted("group", &what));
                }
                Err(unusable) => return Err(unusable.refused()),
            }
        }
        if command.nice.is_some_and(|nice| nice < 0) {
            return Err(not_trusted("nice", "give a priority above the usual one"));
        }
        Ok(())
    }
}

fn not_trusted(field: impl Into<String>, what: &str) -> Invalid {
    let why = format!("only root and the users in [control] trusted_users may {what}");
    Invalid::new(field, why)
}
