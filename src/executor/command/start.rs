//! How a command is started, and what its environment says about its run.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::net::unix::pipe::Receiver;

use super::Commands;
use super::given::Given;
use super::order::{Order, Refusal, Sheet, memory_file};
use super::output::Outputs;
use super::process::{NoProcess, Process};
use super::running::Running;
use super::spawn::Spawn;
use crate::clock::rfc3339;
use crate::executor::Assignment;
use crate::executor::notice;
use crate::executor::report::Shared;
use crate::executor::shortage::is_shortage;
use crate::job::{Bytes, Command, Program, RUN_VARIABLES};
use crate::program;
use crate::task::context::Context;

/// What carries out a script.
pub(super) const SHELL: &str = "/bin/sh";

/// The variables by which the processes of a run are found. The daemon alone sets them.
const MARKS: [&str; 3] = ["PUNCTUAL_RUN_ID", "PUNCTUAL_HOOK_RUN_ID", "PUNCTUAL_ATTEMPT"];

type Environment = BTreeMap<OsString, OsString>;

/// Starts a command. It leads a session of its own, and both of its outputs are pipes.
pub(super) async fn start<'a>(
    commands: &'a Commands,
    command: &Command,
    assignment: &Assignment,
    context: &'a Context,
    shared: &'a Shared,
) -> Result<Running<'a>, Refusal> {
    let given = Given::read(command, assignment, context, &shared.clients.reading).await?;
    let argv = match &command.program {
        Program::Argv(argv) => argv.clone(),
        Program::Shell(script) => vec![SHELL.to_owned(), "-c".to_owned(), script.clone()],
    };
    let name = argv.first().map_or("", String::as_str);
    commands.secrets.completed().await;
    let named = command.secret_variables();
    let env = environment(commands, &given, &named, assignment);
    let (writers, pipes) = output_pipes().map_err(|error| no_means(&error))?;
    let [stdout, stderr] = writers.map(OwnedFd::from);
    let (program, spawn, sheet) = if let Some(order) =
        order(command, commands.default_user.as_ref())
    {
        let variables = given.env.iter().map(|(name, _)| name.clone());
        let variables = variables.chain(RUN_VARIABLES.map(str::to_owned)).collect();
        // The shim looks for it, with the rights and from the folder of the command.
        let (program, stdin) = (PathBuf::from(name), given.stdin.clone());
        let soft_files = commands.files.and_then(|limit| limit.current);
        let marks = marks(&env);
        let env = env.into_iter().collect();
        let order =
            Order { program: program.clone(), argv, stdin, soft_files, env, variables, ..order };
        let sheet = Sheet::with(&order).map_err(|error| no_means(&error))?;
        let stdin = sheet.stdin().map_err(|error| no_means(&error))?;
        let argv = [commands.shim.display().to_string(), program::SHIM.to_owned()];
        let spawn = Spawn::new(&commands.shim, &argv, marks, [stdin, stdout, stderr]);
        (program, spawn, Some(sheet))
    } else {
        let program = given.find_program(name, command.cwd.as_deref())?;
        let stdin = input(given.stdin.as_deref()).map_err(|error| no_means(&error))?;
        let spawn = Spawn::new(&program, &argv, env, [stdin, stdout, stderr]);
        (program, spawn, None)
    };
    let spawn =
        spawn.map_err(|error| Refusal::passing(format!("an argument or a variable: {error}")))?;
    let mut launcher = commands.launcher(command).await?;
    let started = match &mut launcher {
        Some(launcher) => Process::start_by(launcher, &spawn).await,
        // The shim sets the limit itself.
        None => Process::start(&spawn, commands.files.filter(|_| sheet.is_none())),
    };
    // The daemon must not keep the writing ends, or the pipes would never end.
    drop(spawn);
    let process = match started {
        Ok(process) => process,
        Err(error) => {
            // Where a launcher lacks something, such as descriptors that a command has taken from it, another may not.
            if let (NoProcess::NotStarted(why), Some(launcher)) = (&error, launcher)
                && !is_shortage(why)
            {
                commands.give_back(launcher);
            }
            return Err(refusal(error, &program, sheet.is_some()));
        }
    };
    let record = commands.records.as_ref().and_then(|records| records.note(process.pid()));
    let outputs = Outputs::new(pipes, &context.log, &*shared.clock);
    let execution = assignment.execution();
    Ok(Running { execution, process, outputs, sheet, launcher, record, commands, shared })
}

/// Why there is no process.
fn refusal(error: NoProcess, program: &Path, is_through_shim: bool) -> Refusal {
    match error {
        NoProcess::NotStarted(error) if is_through_shim || is_shortage(&error) => no_means(&error),
        NoProcess::NotStarted(error) => Refusal::passing(explain(&error, program, None)),
        NoProcess::Unwatched(error) => Refusal::passing(format!(
            "the command was started, and ended again since it could not be watched: {error}"
        )),
        NoProcess::Lost(error) => {
            Refusal::passing(format!("the command could not be waited for: {error}"))
        }
    }
}

/// The command was not started, for a reason that is not its own.
pub(super) fn no_means(error: &io::Error) -> Refusal {
    let why = format!("the command could not be started: {error}");
    if is_shortage(error) { Refusal::shortage(why) } else { Refusal::passing(why) }
}

/// What a command reads: nothing, or a text.
fn input(text: Option<&str>) -> io::Result<OwnedFd> {
    Ok(match text {
        Some(text) => memory_file("punctual-input", text.as_bytes())?.into(),
        None => File::open("/dev/null")?.into(),
    })
}

/// What only the shim can set; none if there is nothing of the kind.
fn order(command: &Command, default_user: Option<&String>) -> Option<Order> {
    let limits = command.limits.clone().unwrap_or_default();
    let order = Order {
        cwd: command.cwd.clone(),
        user: command.user.as_ref().or(default_user).cloned(),
        group: command.group.clone(),
        umask: command.umask(),
        nice: command.nice,
        memory: limits.memory.as_ref().and_then(Bytes::count),
        cpu: limits.cpu,
        files: limits.files,
        begins_at_home: default_user.is_some(),
        ..Order::default()
    };
    (order != Order::default()).then_some(order)
}

/// The variables by which a process of the run is found, without any that a client has chosen.
fn marks(env: &Environment) -> Environment {
    let is_mark = |name: &OsString| MARKS.iter().any(|mark| name == mark);
    env.iter()
        .filter(|(name, _)| is_mark(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// What the command inherits, what it was given, and what the run is.
fn environment(
    commands: &Commands,
    given: &Given,
    named: &[&str],
    assignment: &Assignment,
) -> Environment {
    let mut env = commands.inherited.clone();
    commands.secrets.withhold(&mut env, named);
    // The daemon itself may have been started by a run of another one.
    for name in RUN_VARIABLES {
        env.remove(OsStr::new(name));
    }
    env.extend(given.env.iter().map(|(name, value)| (name.into(), value.into())));
    let scheduled_at = assignment.scheduled_at.map(rfc3339);
    let own_run =
        if assignment.event.is_some() { "PUNCTUAL_HOOK_RUN_ID" } else { "PUNCTUAL_RUN_ID" };
    let own = [
        ("PUNCTUAL_JOB_ID", Some(assignment.job_id.as_str().to_owned())),
        (own_run, Some(assignment.run_id.0.to_string())),
        ("PUNCTUAL_ATTEMPT", Some(assignment.attempt.to_string())),
        ("TRACEPARENT", Some(assignment.traceparent())),
        ("PUNCTUAL_SCHEDULED_AT", scheduled_at),
    ];
    env.extend(own.into_iter().filter_map(|(name, value)| Some((name.into(), value?.into()))));
    if let Some(facts) = assignment.event.as_deref() {
        env.extend(reported(facts));
    }
    env
}

/// What a hook finds in its environment about the run that it reports.
fn reported(facts: &Value) -> impl Iterator<Item = (OsString, OsString)> {
    let variables = [
        ("PUNCTUAL_EVENT", "/event"),
        ("PUNCTUAL_HOST", "/host"),
        ("PUNCTUAL_RUN_ID", "/run/id"),
        ("PUNCTUAL_SCHEDULED_AT", "/run/scheduled_at"),
        ("PUNCTUAL_STATE", "/run/state"),
        ("PUNCTUAL_EXIT_CODE", "/run/exit_code"),
        ("PUNCTUAL_ERROR", "/run/error"),
        ("PUNCTUAL_OUTPUT", "/output"),
    ];
    variables.into_iter().filter_map(|(name, pointer)| {
        // A variable cannot hold a NUL byte.
        let value = notice::text(facts, pointer).replace('\0', "\u{fffd}");
        (!value.is_empty()).then(|| (name.into(), value.into()))
    })
}

/// For both outputs: ends to write to, and ends to read from.
fn output_pipes() -> io::Result<([PipeWriter; 2], [Receiver; 2])> {
    let pipe = || {
        let (reader, writer) = io::pipe()?;
        Ok::<_, io::Error>((writer, Receiver::from_owned_fd(reader.into())?))
    };
    let ((stdout, stdout_pipe), (stderr, stderr_pipe)) = (pipe()?, pipe()?);
    Ok(([stdout, stderr], [stdout_pipe, stderr_pipe]))
}

/// Why a program could not be executed, in words: the kernel has one number for several reasons.
pub(super) fn explain(error: &io::Error, program: &Path, cwd: Option<&str>) -> String {
    let place = program.display();
    if let Some(cwd) = cwd
        && let Some(why) = unusable(Path::new(cwd))
    {
        return format!("the working directory \"{cwd}\" {why}");
    }
    let kind = error.kind();
    let why = if kind == io::ErrorKind::NotFound && program.exists() {
        "the interpreter that it names was not found".to_owned()
    } else if kind == io::ErrorKind::PermissionDenied && program.is_dir() {
        "it is a directory".to_owned()
    } else if kind == io::ErrorKind::ArgumentListTooLong {
        "its arguments and its environment are too long".to_owned()
    } else {
        error.to_string()
    };
    format!("\"{place}\" could not be started: {why}")
}

fn unusable(folder: &Path) -> Option<String> {
    match folder.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            let error = rustix::fs::access(folder, rustix::fs::Access::EXEC_OK).err()?;
            Some(format!("cannot be entered: {}", io::Error::from(error)))
        }
        Ok(_) => Some("is not a directory".to_owned()),
        Err(error) => Some(format!("cannot be entered: {error}")),
    }
}
