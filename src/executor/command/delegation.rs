//! Finds the cgroup in which the daemon may make others: one that systemd has delegated to it (`Delegate=yes`), or, with
//! `PUNCTUAL_CGROUP=1`, the one that it is in; with `PUNCTUAL_CGROUP=0` none. Nothing here changes a cgroup.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, getxattr};

use crate::invalid::Invalid;
use crate::job::ResourceLimits;

const VARIABLE: &str = "PUNCTUAL_CGROUP";
/// The extended attributes by which systemd marks a delegated folder. Only root can read the second one.
const DELEGATED: [&str; 2] = ["user.delegate", "trusted.delegate"];
/// The subgroup of the daemon itself: a cgroup that enables controllers for its subgroups may hold no processes.
pub(super) const MAIN_SUBGROUP: &str = "main";

/// The controllers of cgroup v2 that are available to limit a whole run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four facts that do not depend on each other")]
pub struct Controllers {
    /// The daemon may make cgroups at all.
    has_cgroup: bool,
    pub(super) memory: bool,
    pub(super) pids: bool,
    pub(super) cpu: bool,
}

impl Controllers {
    pub(super) const ALL: Self = Self { has_cgroup: true, memory: true, pids: true, cpu: true };

    /// Those that this process may enable for its subgroups.
    pub(super) fn of_this_process() -> Self {
        delegated_folder()
            .map_or_else(Self::default, |folder| Self::named_in(&folder, "cgroup.controllers"))
    }

    /// Those that a file of a cgroup lists.
    pub(super) fn named_in(folder: &Path, file: &str) -> Self {
        let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
        let has = |name: &str| text.split_whitespace().any(|word| word == name);
        Self { has_cgroup: true, memory: has("memory"), pids: has("pids"), cpu: has("cpu") }
    }

    /// The names of the available ones.
    pub(super) fn names(self) -> Vec<&'static str> {
        let all = [("cpu", self.cpu), ("memory", self.memory), ("pids", self.pids)];
        all.into_iter().filter_map(|(name, is_available)| is_available.then_some(name)).collect()
    }

    /// Refuses limits that these controllers cannot enforce.
    pub(super) fn check(self, limits: &ResourceLimits) -> Result<(), Invalid> {
        let wanted = [
            ("total_memory", limits.total_memory.is_some(), self.memory, "memory"),
            ("processes", limits.processes.is_some(), self.pids, "pids"),
            ("cores", limits.cores.is_some(), self.cpu, "cpu"),
        ];
        for (field, is_given, is_available, controller) in wanted {
            if !is_given || is_available {
                continue;
            }
            let why = if self.has_cgroup {
                format!("this daemon's cgroup has no \"{controller}\" controller of cgroup v2")
            } else {
                "this daemon has no cgroup of its own (under systemd: Delegate=yes)".to_owned()
            };
            return Err(Invalid::new(field, format!("cannot be enforced here: {why}")));
        }
        Ok(())
    }
}

/// What is wrong with the value of `PUNCTUAL_CGROUP`; none if it is valid or not set.
pub(super) fn bad_setting() -> Option<String> {
    let value = std::env::var_os(VARIABLE).filter(|value| value != "0" && value != "1")?;
    Some(format!("{VARIABLE} must be 0 or 1, and is ignored: {}", value.display()))
}

/// The folder of the cgroup in which this process may make others, if there is one.
pub(super) fn delegated_folder() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let folder = without_main(own_folder(&mounts, &own)?);
    let is_delegated = match std::env::var(VARIABLE).as_deref() {
        Ok("1") => true,
        Ok("0") => false,
        Ok(_) | Err(_) => DELEGATED.iter().any(|name| is_marked(&folder, name)),
    };
    if !is_delegated {
        return None;
    }
    if access(&folder, Access::WRITE_OK).is_err() {
        tracing::warn!(folder = %folder.display(), "the cgroup is delegated, but cannot be written to");
        return None;
    }
    Some(folder)
}

/// The delegated cgroup itself, if the daemon is in its own subgroup already: it has moved there, or systemd has started it
/// there (`DelegateSubgroup=main`).
fn without_main(folder: PathBuf) -> PathBuf {
    match folder.parent() {
        Some(parent) if folder.ends_with(MAIN_SUBGROUP) => parent.to_owned(),
        Some(_) | None => folder,
    }
}

fn is_marked(folder: &Path, name: &str) -> bool {
    let mut value = [0; 8];
    getxattr(folder, name, &mut value[..]).is_ok_and(|length| value.get(..length) == Some(b"1"))
}

/// The folder of this process's own cgroup v2. The file system may be mounted anywhere, or only in part.
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
    use serde_json::json;

    #[test]
    fn the_daemons_cgroup_is_found_wherever_it_is_mounted() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        let own = "4:memory:/elsewhere\n0::/system.slice/punctual.service\n";
        let folder = PathBuf::from("/sys/fs/cgroup/unified/system.slice/punctual.service");
        assert_eq!(own_folder(hybrid, own), Some(folder.clone()));
        assert_eq!(without_main(folder.join("main")), folder);
        assert_eq!(without_main(folder.clone()), folder);
        let part = "41 31 0:38 /docker/7 /sys/fs/cgroup rw - cgroup2 cgroup rw";
        assert_eq!(own_folder(part, "0::/docker/7/x"), Some("/sys/fs/cgroup/x".into()));
        assert_eq!(own_folder(part, "0::/elsewhere"), None);
        assert_eq!(own_folder(hybrid, "4:memory:/elsewhere"), None);
        assert_eq!(own_folder("", own), None);
    }

    #[test]
    fn a_limit_without_its_controller_is_refused_with_its_field() {
        let folder = tempfile::tempdir().unwrap();
        let named = |names: &str| {
            fs::write(folder.path().join("cgroup.controllers"), names).unwrap();
            Controllers::named_in(folder.path(), "cgroup.controllers")
        };
        let limits = |value| crate::invalid::read::<ResourceLimits>(value).unwrap();
        let cases = [
            (json!({"total_memory": "64M"}), "total_memory", "cpu io pids", "cpuset io memory"),
            (json!({"processes": 10}), "processes", "cpu memory", "pids"),
            (json!({"cores": 0.5}), "cores", "cpuset memory pids", "cpu pids"),
        ];
        for (limit, field, without, with) in cases {
            let refused = named(without).check(&limits(limit.clone())).unwrap_err();
            assert_eq!(refused.field, field);
            assert!(refused.to_string().contains("controller of cgroup v2"), "{refused}");
            assert_eq!(named(with).check(&limits(limit.clone())), Ok(()), "{limit}");
            let refused = Controllers::default().check(&limits(limit)).unwrap_err();
            assert!(refused.to_string().contains("has no cgroup of its own"), "{refused}");
        }
        assert_eq!(named("").check(&limits(json!({"memory": "1G", "cpu": 1}))), Ok(()));
        assert_eq!(named("pids io cpu memory").names(), ["cpu", "memory", "pids"]);
    }
}
