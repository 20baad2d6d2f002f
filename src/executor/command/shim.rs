//! The shim: this program, started in place of a command whose process must be set up first. It has one thread and no
//! runtime, so it can do all that a forked child must not; then it becomes the command.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CString, NulError, OsString};
use std::fs::{self, File};
use std::io;
use std::process::ExitCode;

use nix::unistd::{Gid, Group, Uid, User, execve, initgroups, setgid, setgroups, setuid};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit, umask};
use rustix::stdio::dup2_stdin;

use super::order::{Order, Refusal, Sheet, memory_file};
use super::start::explain;

/// Seconds between the signal that can be handled and the one that cannot, when time on processors is used up.
const CPU_GRACE: u64 = 1;

/// Carries out the order that stands on the standard input. It only returns if it cannot: then it has written why on
/// that sheet, or answers why there is none.
pub fn exec() -> Result<ExitCode, String> {
    let (sheet, order) = Sheet::received().map_err(|error| {
        format!("only the daemon starts this, with an order as standard input ({error})")
    })?;
    let Err(refusal) = carry_out(&order);
    sheet.refuse(&refusal).map_err(|error| format!("{}: {error}", refusal.error))?;
    Ok(ExitCode::FAILURE)
}

fn carry_out(order: &Order) -> Result<Infallible, Refusal> {
    // Before the user is changed: afterwards this may not be allowed any more.
    if let Some(folder) = &order.cgroup {
        let joined = fs::write(folder.join("cgroup.procs"), "0");
        joined.map_err(|error| {
            Refusal::passing(format!("the cgroup {} cannot be joined: {error}", folder.display()))
        })?;
    }
    if let Some(nice) = order.nice {
        setpriority_process(None, nice).map_err(|error| unsettable("nice", nice, error))?;
    }
    if let Some(mask) = order.umask {
        umask(Mode::from_raw_mode(mask));
    }
    take_input(order.stdin.as_deref())
        .map_err(|error| Refusal::passing(format!("the input cannot be set up: {error}")))?;
    limit("files", Resource::Nofile, order.files, 0)?;
    limit("cpu", Resource::Cpu, order.cpu, CPU_GRACE)?;
    let login = become_user(order)?;
    let image = Image::of(order, login.as_ref())
        .map_err(|error| Refusal::passing(format!("an argument or a variable: {error}")))?;
    // As the user, who may not be allowed to see it.
    let failed =
        |error: io::Error| Refusal::passing(explain(&error, &order.program, order.cwd.as_deref()));
    if let Some(cwd) = &order.cwd {
        std::env::set_current_dir(cwd).map_err(failed)?;
    }
    // A Rust program ignores this signal, and a command that is executed would go on to do so.
    sigpipe::reset();
    // The last: from here on there may be no memory.
    limit("memory", Resource::As, order.memory, 0)?;
    let Err(error) = execve(&image.program, &image.argv, &image.env);
    Err(failed(error.into()))
}

/// What the command reads takes the place of the order.
fn take_input(text: Option<&str>) -> io::Result<()> {
    let file = match text {
        Some(text) => memory_file("punctual-input", text.as_bytes())?,
        None => File::open("/dev/null")?,
    };
    Ok(dup2_stdin(file)?)
}

/// A program, its arguments and its environment as the kernel takes them. Unlike the library's, this way to execute
/// has no shell try what the kernel refuses.
struct Image {
    program: CString,
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Image {
    fn of(order: &Order, login: Option<&User>) -> Result<Self, NulError> {
        let mut env: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        let login = login.into_iter().flat_map(variables);
        env.extend(
            login.filter(|(name, _)| !order.variables.iter().any(|given| name == given.as_str())),
        );
        let variable = |(mut name, value): (OsString, OsString)| {
            name.push("=");
            name.push(value);
            CString::new(name.into_encoded_bytes())
        };
        Ok(Self {
            program: CString::new(order.program.as_os_str().as_encoded_bytes())?,
            argv: order
                .argv
                .iter()
                .map(|word| CString::new(word.as_str()))
                .collect::<Result<_, _>>()?,
            env: env.into_iter().map(variable).collect::<Result<_, _>>()?,
        })
    }
}

/// What a login sets.
fn variables(user: &User) -> [(OsString, OsString); 4] {
    let (name, home, shell) = (OsString::from(&user.name), user.dir.clone(), user.shell.clone());
    [("HOME", home.into()), ("USER", name.clone()), ("LOGNAME", name), ("SHELL", shell.into())]
        .map(|(name, value)| (name.into(), value))
}

/// Sets a limit; what the process may set it to itself lies `more` above.
fn limit(name: &str, resource: Resource, value: Option<u64>, more: u64) -> Result<(), Refusal> {
    let Some(value) = value else { return Ok(()) };
    let hard = value.saturating_add(more);
    // Who may not raise a limit may still keep to the one there is, if that is the lower one above the value.
    let maximum = getrlimit(resource).maximum.map_or(hard, |maximum| maximum.min(hard)).max(value);
    setrlimit(resource, Rlimit { current: Some(value), maximum: Some(maximum) })
        .map_err(|error| unsettable(&format!("limits.{name}"), value, error))
}

fn unsettable(field: &str, value: impl std::fmt::Display, error: Errno) -> Refusal {
    let why = if matches!(error, Errno::PERM | Errno::ACCESS) {
        "the daemon may not go so far".to_owned()
    } else {
        io::Error::from(error).to_string()
    };
    Refusal::permanent(format!("{field} cannot be set to {value}: {why}"))
}

/// Changes the user and the group. A user gets all groups that he belongs to; the answer is what is known of him.
fn become_user(order: &Order) -> Result<Option<User>, Refusal> {
    if order.user.is_none() && order.group.is_none() {
        return Ok(None);
    }
    if !Uid::effective().is_root() {
        let field = if order.user.is_some() { "user" } else { "group" };
        return Err(Refusal::permanent(format!(
            "{field}: the daemon is not root, and cannot run a command as someone else"
        )));
    }
    let refuse = |step: &str| {
        let step = step.to_owned();
        move |error: nix::Error| Refusal::permanent(format!("{step} cannot be changed: {error}"))
    };
    let group = order.group.as_deref().map(find_group).transpose()?;
    let Some(user) = order.user.as_deref() else {
        let Some(group) = group else { return Ok(None) };
        setgroups(&[group]).map_err(refuse("the groups"))?;
        setgid(group).map_err(refuse("the group"))?;
        return Ok(None);
    };
    let (uid, entry) = find_user(user)?;
    let no_group = || {
        Refusal::permanent(format!("user: \"{user}\" has no group of its own; give \"group\" too"))
    };
    let gid = group.or(entry.as_ref().map(|user| user.gid)).ok_or_else(no_group)?;
    let name = entry.as_ref().and_then(|user| CString::new(user.name.as_str()).ok());
    match name {
        Some(name) => initgroups(&name, gid),
        None => setgroups(&[gid]),
    }
    .map_err(refuse("the groups"))?;
    setgid(gid).map_err(refuse("the group"))?;
    setuid(uid).map_err(refuse("the user"))?;
    Ok(entry)
}

/// A user by name or number; a number needs no entry.
fn find_user(user: &str) -> Result<(Uid, Option<User>), Refusal> {
    let unknown = |error: Option<nix::Error>| lookup_failed("user", user, error);
    if let Some(entry) = User::from_name(user).map_err(|error| unknown(Some(error)))? {
        return Ok((entry.uid, Some(entry)));
    }
    let uid = Uid::from_raw(number(user).ok_or_else(|| unknown(None))?);
    Ok((uid, User::from_uid(uid).map_err(|error| unknown(Some(error)))?))
}

fn find_group(group: &str) -> Result<Gid, Refusal> {
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

fn lookup_failed(kind: &str, name: &str, error: Option<nix::Error>) -> Refusal {
    match error {
        Some(error) => Refusal::passing(format!("{kind}: \"{name}\" cannot be looked up: {error}")),
        None => Refusal::permanent(format!("{kind}: there is no {kind} \"{name}\"")),
    }
}
