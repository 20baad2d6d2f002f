//! What this process may give to the commands that it starts. The admission of a job uses it to refuse what can never
//! run here; the shim uses it before it changes the user.

use nix::unistd::{Gid, Uid};
use rustix::process::{Resource, getpriority_process, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::delegation::Controllers;
use super::identity::{Identity, Unusable, find_user};
use crate::invalid::Invalid;
use crate::job::{Bytes, Command, Limits};

/// The nice value that an `RLIMIT_NICE` of 0 stands for.
const NICE_CEILING: i32 = 20;
/// What it takes to run commands of other users, and to end them.
const OF_OTHER_USERS: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::SETUID, "CAP_SETUID"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
    (CapabilitySet::KILL, "CAP_KILL"),
];
/// Where the drop-in for jobs of other users is described.
const ADVICE: &str = "see \"Jobs as other users\" in OPERATIONS.md";

/// What a process may give to the commands that it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privileges {
    /// Its user.
    pub(super) uid: Uid,
    held: CapabilitySet,
    /// The lowest nice value that it may give.
    lowest_nice: i32,
    /// Of each process of a command, at most: open files, bytes of address space, and seconds on processors.
    files_max: u64,
    memory_max: u64,
    cpu_max: u64,
    /// By what a whole run can be limited.
    controllers: Controllers,
    /// The user of commands that name none; where it is not given, the process's own.
    pub(super) default_user: Option<String>,
    /// Users who may, as root may, have commands run as any user.
    pub(super) trusted_users: Vec<String>,
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

    /// Those of a process that is not known: only what no process of this machine could do is refused.
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

    /// The same, with the user of commands that name none. It has to exist, and this process has to be able to run commands
    /// as it.
    pub fn running_as(self, default_user: Option<String>) -> Result<Self, Invalid> {
        if let Some(user) = &default_user {
            self.check_names(Some(user), None)
                .map_err(|invalid| Invalid::new("", invalid.message))?;
        }
        Ok(self.with_default(default_user))
    }

    /// The same, with a user of commands that name none which was found usable before.
    #[must_use]
    pub fn with_default(self, default_user: Option<String>) -> Self {
        Self { default_user, ..self }
    }

    /// The same, where these users may have commands run as any user. Each has to exist.
    pub fn trusting(self, trusted_users: Vec<String>) -> Result<Self, Invalid> {
        for (number, user) in trusted_users.iter().enumerate() {
            if let Some(invalid) = find_user(user).err().and_then(Unusable::invalid) {
                return Err(Invalid::new(format!("[{number}]"), invalid.message));
            }
        }
        Ok(Self { trusted_users, ..self })
    }

    /// The user that a command names, or the one of commands that name none.
    pub(super) fn user_of<'a>(&'a self, command: &'a Command) -> Option<&'a str> {
        command.user.as_ref().or(self.default_user.as_ref()).map(String::as_str)
    }

    /// Whether a command can be started as it asks for. What may change by itself, such as a directory service that does
    /// not answer, is left to its runs.
    pub fn check(&self, command: &Command) -> Result<(), Invalid> {
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

    fn check_limits(&self, limits: &Limits) -> Result<(), Invalid> {
        let memory = limits.memory.as_ref().and_then(Bytes::count);
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

    /// Whether commands can be run as this user and in this group, and ended.
    fn check_names(&self, user: Option<&str>, group: Option<&str>) -> Result<(), Invalid> {
        let identity = match Identity::find(user, group) {
            Ok(Some(identity)) => identity,
            Ok(None) => return Ok(()),
            Err(unusable) => return unusable.invalid().map_or(Ok(()), Err),
        };
        if let Some(invalid) = self.check_identity(&identity).err().and_then(Unusable::invalid) {
            return Err(invalid);
        }
        let is_in_vain = identity.is_other_user() && !self.held.contains(CapabilitySet::KILL);
        if is_in_vain { Err(Invalid::new("user", self.incapable())) } else { Ok(()) }
    }

    /// Whether this process may start a command as this user and in this group.
    pub(super) fn check_identity(&self, identity: &Identity) -> Result<(), Unusable> {
        let both = CapabilitySet::SETUID | CapabilitySet::SETGID;
        if identity.is_other_user() && !self.held.contains(both) {
            return Err(Unusable::permanent("user", self.incapable()));
        }
        let changes_group = identity.gid != Gid::effective();
        if changes_group && !self.held.contains(CapabilitySet::SETGID) {
            let why = format!(
                "this daemon lacks CAP_SETGID, and cannot run a command in another group; {ADVICE}"
            );
            return Err(Unusable::permanent("group", why));
        }
        Ok(())
    }

    /// Whether this process could run commands with rights that not everybody has who may send it jobs.
    pub(super) fn is_powerful(&self) -> bool {
        self.uid.is_root() || self.held.contains(CapabilitySet::SETUID)
    }

    fn incapable(&self) -> String {
        let missing =
            OF_OTHER_USERS.iter().filter(|(capability, _)| !self.held.contains(*capability));
        let missing: Vec<&str> = missing.map(|(_, name)| *name).collect();
        format!(
            "this daemon lacks {}, and cannot run and end commands of another user; {ADVICE}",
            missing.join(", ")
        )
    }
}

fn hard_limit(resource: Resource) -> u64 {
    getrlimit(resource).maximum.unwrap_or(u64::MAX)
}
