//! What this process may give to the commands that it starts, and which client may ask for it.
//!
//! Admission uses both to refuse a job that can never run here; the shim checks the first again before it changes the user.
//!
//! Where the daemon is root or may change users, its commands can get more rights than a member of the socket's group
//! has. So root and the `trusted_users` may ask for everything. Other clients may have commands run as themselves or as
//! the default user, in groups of that user, without a higher priority, and with no secret, since the daemon would read it
//! with its own rights.

use std::sync::Arc;

use nix::unistd::{Gid, Uid};
use rustix::process::{Resource, getpriority_process, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::delegation::Controllers;
use super::run_as::{RunAs, RunAsError, find_group, find_user};
use crate::invalid::Invalid;
use crate::job::admission::CommandRights;
use crate::job::{Command, MemorySize, ResourceLimits, Task};
use crate::user;

/// The lowest nice value is this minus `RLIMIT_NICE`.
const NICE_CEILING: i32 = 20;
/// The capabilities that are needed to start commands of other users and to kill them.
const FOR_OTHER_USERS: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::SETUID, "CAP_SETUID"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
    (CapabilitySet::KILL, "CAP_KILL"),
];
/// What clients that are not trusted may not do.
const SECRET_REFUSED: &str = "give a secret to a job";
/// Where the systemd drop-in for jobs of other users is described.
const ADVICE: &str = "see \"Jobs as other users\" in OPERATIONS.md";

/// The rights and limits of a process, as far as its commands depend on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privileges {
    uid: Uid,
    held: CapabilitySet,
    /// The lowest nice value that a command can get.
    lowest_nice: i32,
    /// The highest limits that a command can get, for each of its processes: open files, bytes of address space, and
    /// seconds of CPU time.
    files_max: u64,
    memory_max: u64,
    cpu_max: u64,
    /// The controllers by which a whole run can be limited.
    controllers: Controllers,
    /// The user of commands that name none; if none is given, the user of this process.
    default_user: Option<String>,
    /// Users that may, as root may, have commands run as any user.
    trusted_users: Vec<String>,
}

impl Privileges {
    pub fn of_this_process() -> Self {
        let held = held_capabilities();
        let lowest_nice = if held.contains(CapabilitySet::SYS_NICE) {
            i32::MIN
        } else {
            let limit =
                getrlimit(Resource::Nice).current.and_then(|limit| i32::try_from(limit).ok());
            let allowed = limit.map_or(i32::MIN, |limit| NICE_CEILING.saturating_sub(limit));
            getpriority_process(None).map_or(allowed, |own| own.min(allowed))
        };
        let raises_limits = held.contains(CapabilitySet::SYS_RESOURCE);
        let files_max = if raises_limits {
            let most = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
            most.trim().parse().unwrap_or(u64::MAX)
        } else {
            hard_limit(Resource::Nofile)
        };
        let most = |resource| if raises_limits { u64::MAX } else { hard_limit(resource) };
        Self {
            uid: Uid::effective(),
            held,
            lowest_nice,
            files_max,
            memory_max: most(Resource::As),
            cpu_max: most(Resource::Cpu),
            controllers: Controllers::of_this_process(),
            default_user: None,
            trusted_users: Vec::new(),
        }
    }

    /// The privileges of a daemon of which nothing is known: they refuse only what no process of this machine could do.
    pub fn unknown() -> Self {
        Self {
            uid: Uid::effective(),
            held: CapabilitySet::all(),
            lowest_nice: i32::MIN,
            files_max: u64::MAX,
            memory_max: u64::MAX,
            cpu_max: u64::MAX,
            controllers: Controllers::ALL,
            default_user: None,
            trusted_users: Vec::new(),
        }
    }

    /// Sets the user of commands that name none. The user has to exist, and this process has to be able to run commands as
    /// that user.
    pub fn running_as(self, default_user: Option<String>) -> Result<Self, Invalid> {
        if let Some(user) = &default_user {
            self.check_names(Some(user), None)
                .map_err(|invalid| Invalid::new("", invalid.message))?;
        }
        Ok(self.with_default(default_user))
    }

    /// Sets the user of commands that name none, without a check.
    #[must_use]
    fn with_default(self, default_user: Option<String>) -> Self {
        Self { default_user, ..self }
    }

    /// Sets the users that may have commands run as any user. Each has to exist.
    pub fn trusting(self, trusted_users: Vec<String>) -> Result<Self, Invalid> {
        for (number, user) in trusted_users.iter().enumerate() {
            if let Some(invalid) = find_user(user).err().and_then(RunAsError::permanent_fault) {
                return Err(Invalid::new(format!("[{number}]"), invalid.message));
            }
        }
        Ok(Self { trusted_users, ..self })
    }

    /// The user that a command names, or else the default user.
    fn user_of<'a>(&'a self, command: &'a Command) -> Option<&'a str> {
        command.user.as_ref().or(self.default_user.as_ref()).map(String::as_str)
    }

    fn check_limits(&self, limits: &ResourceLimits) -> Result<(), Invalid> {
        let memory = limits.memory.as_ref().and_then(MemorySize::count);
        let wanted = [
            ("files", limits.files, self.files_max),
            ("memory", memory, self.memory_max),
            ("cpu", limits.cpu, self.cpu_max),
        ];
        for (field, given, most) in wanted {
            if let Some(given) = given.filter(|given| *given > most) {
                let why =
                    format!("{given} is not possible: this daemon may not set more than {most}");
                return Err(Invalid::new(field, why));
            }
        }
        self.controllers.check(limits)
    }

    /// Checks that commands can be started as this user and in this group, and killed.
    fn check_names(&self, user: Option<&str>, group: Option<&str>) -> Result<(), Invalid> {
        let run_as = match RunAs::find(user, group) {
            Ok(Some(run_as)) => run_as,
            Ok(None) => return Ok(()),
            Err(error) => return error.permanent_fault().map_or(Ok(()), Err),
        };
        if let Some(invalid) =
            check_run_as(self.held, &run_as).err().and_then(RunAsError::permanent_fault)
        {
            return Err(invalid);
        }
        let is_unkillable = run_as.is_other_user() && !self.held.contains(CapabilitySet::KILL);
        if is_unkillable {
            Err(Invalid::new("user", lacks_capabilities(self.held)))
        } else {
            Ok(())
        }
    }

    /// Whether this process could run commands with more rights than some of the clients that may send it jobs.
    fn is_powerful(&self) -> bool {
        self.uid.is_root() || self.held.contains(CapabilitySet::SETUID)
    }
}

/// The capabilities that this process has in effect.
pub(super) fn held_capabilities() -> CapabilitySet {
    capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}

/// Checks that a process with these capabilities may start a command as this user and in this group.
pub(super) fn check_run_as(held: CapabilitySet, run_as: &RunAs) -> Result<(), RunAsError> {
    let both = CapabilitySet::SETUID | CapabilitySet::SETGID;
    if run_as.is_other_user() && !held.contains(both) {
        return Err(RunAsError::permanent("user", lacks_capabilities(held)));
    }
    let changes_group = run_as.gid != Gid::effective();
    if changes_group && !held.contains(CapabilitySet::SETGID) {
        let why = format!(
            "this daemon lacks CAP_SETGID, and cannot run a command in another group; {ADVICE}"
        );
        return Err(RunAsError::permanent("group", why));
    }
    Ok(())
}

fn lacks_capabilities(held: CapabilitySet) -> String {
    let missing = FOR_OTHER_USERS.iter().filter(|(capability, _)| !held.contains(*capability));
    let missing: Vec<&str> = missing.map(|(_, name)| *name).collect();
    format!(
        "this daemon lacks {}, and cannot run and end commands of another user; {ADVICE}",
        missing.join(", ")
    )
}

impl Privileges {
    /// Every user may ask for everything if the daemon has no more rights than any client that can reach it.
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
        // Without the group: it is checked against the groups of the user below.
        let Some(run_as) = RunAs::find(Some(user), None).map_err(RunAsError::into_invalid)? else {
            return Ok(());
        };
        let is_default = self.default_user.as_deref().is_some_and(|default| {
            find_user(default).is_ok_and(|(found, _)| Some(found) == run_as.uid)
        });
        if run_as.uid != uid && !is_default {
            return Err(not_trusted("user", &format!("name another user than {own}")));
        }
        if let Some(group) = &command.group {
            let is_own = |gid: Gid| run_as.groups().contains(&gid);
            match find_group(group).map(is_own) {
                Ok(true) => {}
                Ok(false) => {
                    let what = format!("name a group that \"{user}\" is not in");
                    return Err(not_trusted("group", &what));
                }
                Err(error) => return Err(error.into_invalid()),
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

fn hard_limit(resource: Resource) -> u64 {
    getrlimit(resource).maximum.unwrap_or(u64::MAX)
}

impl CommandRights for Privileges {
    /// Checks that a command can be started as it is defined. Transient errors, such as a directory service that does not
    /// answer, are left to its runs.
    fn check(&self, command: &Command) -> Result<(), Invalid> {
        self.check_names(self.user_of(command), command.group.as_deref())?;
        if let Some(nice) = command.nice.filter(|nice| *nice < self.lowest_nice) {
            let why = format!(
                "{nice} is not possible: this daemon lacks CAP_SYS_NICE, and may not go below {}",
                self.lowest_nice
            );
            return Err(Invalid::new("nice", why));
        }
        command.limits.as_ref().map_or(Ok(()), |limits| {
            self.check_limits(limits).map_err(|invalid| invalid.within("limits"))
        })
    }

    /// Checks that a client may have this task run. `uid` is none if the user of the client is not known.
    fn check_requester(&self, uid: Option<u32>, task: &Task) -> Result<(), Invalid> {
        let uid = uid.map(Uid::from_raw);
        if self.may_ask_for_all(uid) {
            return Ok(());
        }
        if let Some(field) = task.secret_field() {
            return Err(not_trusted(field, SECRET_REFUSED));
        }
        if let Task::Command(command) = task { self.check_command_of(uid, command) } else { Ok(()) }
    }

    /// Checks that a client may give a secret of this daemon to a job.
    fn check_secret_of(&self, uid: Option<u32>, field: &str) -> Result<(), Invalid> {
        if self.may_ask_for_all(uid.map(Uid::from_raw)) {
            return Ok(());
        }
        Err(not_trusted(field, SECRET_REFUSED))
    }

    fn with_default_user(&self, user: Option<String>) -> Arc<dyn CommandRights> {
        Arc::new(self.clone().with_default(user))
    }
}
