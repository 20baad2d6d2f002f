//! The process of the shim. It has one thread and no async runtime, so it may do what a forked child must not.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CString, NulError, OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use nix::unistd::{execve, initgroups, setgid, setgroups, setuid};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit, umask};
use rustix::stdio::dup2_stdin;

use super::handshake::{SharedBlock, ShimRequest};
use crate::executor::command::environment::{SHELL, find_in_path};
use crate::executor::command::error::CommandStartError;
use crate::executor::command::privileges::{check_run_as, held_capabilities};
use crate::executor::command::run_as::{RunAs, RunAsError};
use crate::executor::command::spawn::{explain, kernel_environment, stdin_file};

/// Seconds between SIGXCPU, which a command can handle, and SIGKILL, once its CPU time is used up.
const CPU_GRACE: u64 = 1;

/// Variables of the daemon that a command of another user inherits, besides `LC_*`.
const COMMON_VARIABLES: [&str; 4] = ["PATH", "LANG", "LANGUAGE", "TZ"];

/// Becomes the command that the request on stdin describes. If this returns, it failed: `Ok` means that the daemon was
/// told why, `Err` that there was no request, or no way to tell the daemon.
pub fn exec() -> Result<ExitCode, String> {
    let (block, request) = SharedBlock::received().map_err(|error| {
        format!("only the daemon starts this, with a request as stdin ({error})")
    })?;
    let Err(start_error) = become_command(&request);
    block.refuse(&start_error).map_err(|error| format!("{}: {error}", start_error.error))?;
    Ok(ExitCode::FAILURE)
}

fn become_command(request: &ShimRequest) -> Result<Infallible, CommandStartError> {
    // Before the user is changed: afterwards this may not be allowed any more.
    if let Some(nice) = request.nice {
        setpriority_process(None, nice).map_err(|error| unsettable("nice", nice, error))?;
    }
    if let Some(mask) = request.umask {
        umask(Mode::from_raw_mode(mask));
    }
    // The stdin of the command replaces the request.
    stdin_file(request.stdin.as_deref()).and_then(|file| Ok(dup2_stdin(file)?)).map_err(
        |error| CommandStartError::transient(format!("the input cannot be set up: {error}")),
    )?;
    if let (None, Some(soft)) = (request.files, request.soft_files) {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum })
            .map_err(|error| unsettable("the limit of open files", soft, error))?;
    }
    limit("files", Resource::Nofile, request.files, 0)?;
    limit("cpu", Resource::Cpu, request.cpu, CPU_GRACE)?;
    let run_as = RunAs::find(request.user.as_deref(), request.group.as_deref())?;
    let image = ExecImage::of(request, run_as.as_ref()).map_err(|error| {
        CommandStartError::transient(format!("an argument or a variable: {error}"))
    })?;
    // A command of a named user starts in that user's home: the daemon's directory is of no use to it.
    let named = run_as.as_ref().filter(|run_as| run_as.uid.is_some());
    let away = named.filter(|run_as| run_as.is_other_user() || request.begins_at_home);
    let home = away.map(RunAs::home);
    if let Some(run_as) = &run_as {
        become_user(run_as)?;
    }
    // From here on files are found with the rights of the user.
    let failed = |error: io::Error| {
        let why = explain(&error, &request.program, request.cwd.as_deref());
        // A lack of memory or of descriptors of this process may come from the command's own limits, so it is none.
        let is_shortage = matches!(Errno::from_io_error(&error), Some(Errno::AGAIN | Errno::NFILE));
        if is_shortage {
            CommandStartError::shortage(why)
        } else {
            CommandStartError::transient(why)
        }
    };
    if let Some(home) = home {
        let folder = std::env::set_current_dir(home);
        folder.or_else(|_| std::env::set_current_dir("/")).map_err(failed)?;
    }
    if let Some(cwd) = &request.cwd {
        std::env::set_current_dir(cwd).map_err(failed)?;
    }
    let program = image.program()?;
    // A Rust program ignores SIGPIPE, and the command would inherit that.
    sigpipe::reset();
    // Last, because this process may be unable to allocate memory from here on.
    limit("memory", Resource::As, request.memory, 0)?;
    let Err(error) = execve(&program, &image.argv, &image.env);
    Err(failed(error.into()))
}

/// A program, its arguments and its environment as `execve` takes them. Unlike `execvp`, this does not let a shell try
/// what the kernel refuses.
struct ExecImage {
    /// A path, or a name to look up in `path`.
    name: PathBuf,
    path: Option<OsString>,
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl ExecImage {
    fn of(request: &ShimRequest, run_as: Option<&RunAs>) -> Result<Self, NulError> {
        let is_given =
            |name: &OsString| request.variables.iter().any(|given| name == given.as_str());
        let mut env: BTreeMap<OsString, OsString> = request.env.iter().cloned().collect();
        if run_as.is_some_and(RunAs::is_other_user) {
            // The daemon's environment may hold what other users must not see.
            env.retain(|name, _| is_given(name) || is_common(name));
        }
        let login = run_as.map(login).unwrap_or_default();
        env.extend(login.into_iter().filter(|(name, _)| !is_given(name)));
        Ok(Self {
            name: request.program.clone(),
            path: env.get(OsStr::new("PATH")).cloned(),
            argv: request
                .argv
                .iter()
                .map(|word| CString::new(word.as_str()))
                .collect::<Result<_, _>>()?,
            env: kernel_environment(env)?,
        })
    }

    /// The file to execute, looked up with the rights and in the directory that this process has now.
    fn program(&self) -> Result<CString, CommandStartError> {
        let name = self.name.to_string_lossy();
        let file = if name.contains('/') {
            self.name.clone()
        } else {
            find_in_path(&name, self.path.as_deref())?
        };
        CString::new(file.into_os_string().into_encoded_bytes())
            .map_err(|error| CommandStartError::transient(format!("the program: {error}")))
    }
}

/// Whether a variable of the daemon is passed on to a command of another user.
fn is_common(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    COMMON_VARIABLES.contains(&&*name) || name.starts_with("LC_")
}

/// The variables that a login sets, as cron sets them. A user without a passwd entry has no name, but a home.
fn login(run_as: &RunAs) -> Vec<(OsString, OsString)> {
    if run_as.uid.is_none() {
        return Vec::new();
    }
    let name = run_as.entry.iter().flat_map(|user| {
        ["USER", "LOGNAME"].map(|variable| (variable.into(), OsString::from(&user.name)))
    });
    let places = [("HOME", run_as.home().into()), ("SHELL", SHELL.into())];
    let places = places.map(|(variable, place): (&str, OsString)| (variable.into(), place));
    name.chain(places).collect()
}

/// Sets a soft limit, and a hard limit that is `more` above it.
fn limit(
    name: &str,
    resource: Resource,
    value: Option<u64>,
    more: u64,
) -> Result<(), CommandStartError> {
    let Some(value) = value else { return Ok(()) };
    let hard = value.saturating_add(more);
    // Without the right to raise a hard limit, the present one stays if it is lower but still above the value.
    let maximum = getrlimit(resource).maximum.map_or(hard, |maximum| maximum.min(hard)).max(value);
    setrlimit(resource, Rlimit { current: Some(value), maximum: Some(maximum) })
        .map_err(|error| unsettable(&format!("limits.{name}"), value, error))
}

fn unsettable(field: &str, value: impl std::fmt::Display, error: Errno) -> CommandStartError {
    let why = if matches!(error, Errno::PERM | Errno::ACCESS) {
        "permission denied: the daemon or the kernel allows less".to_owned()
    } else {
        io::Error::from(error).to_string()
    };
    CommandStartError::permanent(format!("{field} cannot be set to {value}: {why}"))
}

/// Changes the user and the group. A user gets all groups of which it is a member.
fn become_user(run_as: &RunAs) -> Result<(), CommandStartError> {
    check_run_as(held_capabilities(), run_as)?;
    if run_as.is_own() {
        return Ok(());
    }
    let refuse = |step: &str| {
        let step = step.to_owned();
        move |error: nix::Error| {
            CommandStartError::permanent(format!("{step} cannot be changed: {error}"))
        }
    };
    let gid = run_as.gid;
    let Some(uid) = run_as.uid else {
        setgroups(&[gid]).map_err(refuse("the groups"))?;
        return setgid(gid).map_err(refuse("the group"));
    };
    let entry = run_as.entry.as_ref();
    match entry.and_then(|user| CString::new(user.name.as_str()).ok()) {
        Some(name) => initgroups(&name, gid),
        None => setgroups(&[gid]),
    }
    .map_err(refuse("the groups"))?;
    setgid(gid).map_err(refuse("the group"))?;
    setuid(uid).map_err(refuse("the user"))
}

impl From<RunAsError> for CommandStartError {
    fn from(error: RunAsError) -> Self {
        let why = error.to_string();
        if error.is_transient { Self::transient(why) } else { Self::permanent(why) }
    }
}
