//! The shim: this program, started in place of a command whose process must be set up first. It has one thread and no
//! runtime, so it can do all that a forked child must not; then it becomes the command.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CString, NulError, OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use nix::unistd::{execve, initgroups, setgid, setgroups, setuid};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit, umask};
use rustix::stdio::dup2_stdin;

use super::given::find_in_path;
use super::identity::{Identity, Unusable};
use super::order::{Order, Refusal, Sheet, memory_file};
use super::privileges::Privileges;
use super::spawn::environment;
use super::start::{SHELL, explain};

/// Seconds between the signal that can be handled and the one that cannot, when time on processors is used up.
const CPU_GRACE: u64 = 1;

/// Variables of the daemon that a command of another user gets, beside `LC_*`.
const COMMON_VARIABLES: [&str; 4] = ["PATH", "LANG", "LANGUAGE", "TZ"];

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
    if let Some(nice) = order.nice {
        setpriority_process(None, nice).map_err(|error| unsettable("nice", nice, error))?;
    }
    if let Some(mask) = order.umask {
        umask(Mode::from_raw_mode(mask));
    }
    take_input(order.stdin.as_deref())
        .map_err(|error| Refusal::passing(format!("the input cannot be set up: {error}")))?;
    if let (None, Some(soft)) = (order.files, order.soft_files) {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum })
            .map_err(|error| unsettable("the limit of open files", soft, error))?;
    }
    limit("files", Resource::Nofile, order.files, 0)?;
    limit("cpu", Resource::Cpu, order.cpu, CPU_GRACE)?;
    let identity = Identity::find(order.user.as_deref(), order.group.as_deref())?;
    let image = Image::of(order, identity.as_ref())
        .map_err(|error| Refusal::passing(format!("an argument or a variable: {error}")))?;
    // The daemon's folder is the business of the daemon's user.
    let named = identity.as_ref().filter(|identity| identity.uid.is_some());
    let away = named.filter(|identity| identity.is_other_user() || order.begins_at_home);
    let home = away.map(Identity::home);
    if let Some(identity) = &identity {
        become_user(identity)?;
    }
    // As the user, who may not be allowed to see it.
    let failed = |error: io::Error| {
        let why = explain(&error, &order.program, order.cwd.as_deref());
        // A lack of memory or of descriptors may come from the command's own limits.
        let is_shortage = matches!(Errno::from_io_error(&error), Some(Errno::AGAIN | Errno::NFILE));
        if is_shortage { Refusal::shortage(why) } else { Refusal::passing(why) }
    };
    if let Some(home) = home {
        let folder = std::env::set_current_dir(home);
        folder.or_else(|_| std::env::set_current_dir("/")).map_err(failed)?;
    }
    if let Some(cwd) = &order.cwd {
        std::env::set_current_dir(cwd).map_err(failed)?;
    }
    let program = image.program()?;
    // A Rust program ignores this signal, and a command that is executed would go on to do so.
    sigpipe::reset();
    // The last: from here on there may be no memory.
    limit("memory", Resource::As, order.memory, 0)?;
    let Err(error) = execve(&program, &image.argv, &image.env);
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
    /// A path, or a name to look for.
    name: PathBuf,
    path: Option<OsString>,
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Image {
    fn of(order: &Order, identity: Option<&Identity>) -> Result<Self, NulError> {
        let is_given = |name: &OsString| order.variables.iter().any(|given| name == given.as_str());
        let mut env: BTreeMap<OsString, OsString> = order.env.iter().cloned().collect();
        if identity.is_some_and(Identity::is_other_user) {
            // What is in the daemon's environment is the business of the daemon's user.
            env.retain(|name, _| is_given(name) || is_common(name));
        }
        let login = identity.map(login).unwrap_or_default();
        env.extend(login.into_iter().filter(|(name, _)| !is_given(name)));
        Ok(Self {
            name: order.program.clone(),
            path: env.get(OsStr::new("PATH")).cloned(),
            argv: order
                .argv
                .iter()
                .map(|word| CString::new(word.as_str()))
                .collect::<Result<_, _>>()?,
            env: environment(env)?,
        })
    }

    /// The file to execute, looked for with the rights and from the folder that this process has now.
    fn program(&self) -> Result<CString, Refusal> {
        let name = self.name.to_string_lossy();
        let file = if name.contains('/') {
            self.name.clone()
        } else {
            find_in_path(&name, self.path.as_deref())?
        };
        CString::new(file.into_os_string().into_encoded_bytes())
            .map_err(|error| Refusal::passing(format!("the program: {error}")))
    }
}

/// Whether a variable of the daemon is passed on to a command of another user.
fn is_common(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    COMMON_VARIABLES.contains(&&*name) || name.starts_with("LC_")
}

/// What a login sets, as cron does it. A user without an entry has a home all the same, and no name.
fn login(identity: &Identity) -> Vec<(OsString, OsString)> {
    if identity.uid.is_none() {
        return Vec::new();
    }
    let name = identity.entry.iter().flat_map(|user| {
        ["USER", "LOGNAME"].map(|variable| (variable.into(), OsString::from(&user.name)))
    });
    let places = [("HOME", identity.home().into()), ("SHELL", SHELL.into())];
    let places = places.map(|(variable, place): (&str, OsString)| (variable.into(), place));
    name.chain(places).collect()
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

/// Changes the user and the group. A user gets all groups that he belongs to.
fn become_user(identity: &Identity) -> Result<(), Refusal> {
    Privileges::of_this_process().check_identity(identity)?;
    if identity.is_own() {
        return Ok(());
    }
    let refuse = |step: &str| {
        let step = step.to_owned();
        move |error: nix::Error| Refusal::permanent(format!("{step} cannot be changed: {error}"))
    };
    let gid = identity.gid;
    let Some(uid) = identity.uid else {
        setgroups(&[gid]).map_err(refuse("the groups"))?;
        return setgid(gid).map_err(refuse("the group"));
    };
    let entry = identity.entry.as_ref();
    match entry.and_then(|user| CString::new(user.name.as_str()).ok()) {
        Some(name) => initgroups(&name, gid),
        None => setgroups(&[gid]),
    }
    .map_err(refuse("the groups"))?;
    setgid(gid).map_err(refuse("the group"))?;
    setuid(uid).map_err(refuse("the user"))
}

impl From<Unusable> for Refusal {
    fn from(unusable: Unusable) -> Self {
        let error = unusable.to_string();
        if unusable.is_passing { Self::passing(error) } else { Self::permanent(error) }
    }
}
