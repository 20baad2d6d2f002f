//! How a command is started, and what it is told of its run.

use std::io::{self, PipeWriter};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Stdio};
use std::sync::Arc;

use tokio::net::unix::pipe::Receiver;

use super::Commands;
use super::cgroup::Cgroup;
use super::given::Given;
use super::order::{Order, Refusal, Sheet, memory_file};
use super::output::Outputs;
use super::process::Process;
use super::running::Running;
use crate::clock::{Clock, rfc3339};
use crate::executor::Assignment;
use crate::job::{Bytes, Command, Program};
use crate::task::context::Context;

/// What carries out a script.
const SHELL: &str = "/bin/sh";
/// The argument that makes this program a shim.
const SHIM_VERB: &str = "exec";

/// Starts a command. It leads a group of its own, and both of its outputs are pipes.
pub(super) async fn start<'a>(
    commands: &'a Commands,
    command: &Command,
    assignment: &Assignment,
    context: &'a Context,
    clock: &'a Arc<dyn Clock>,
) -> Result<Running<'a>, Refusal> {
    let given = Given::read(command, assignment, context).await?;
    let argv = match &command.program {
        Program::Argv(argv) => argv.clone(),
        Program::Shell(script) => vec![SHELL.to_owned(), "-c".to_owned(), script.clone()],
    };
    let name = argv.first().map_or("", String::as_str);
    let program = given.find_program(name, command.cwd.as_deref())?;
    let cgroup = commands.cgroup(assignment);
    let (mut builder, sheet) = match order(command, cgroup.as_ref()) {
        None => (
            directly(&program, &argv, &given, command.cwd.as_deref())
                .map_err(|error| no_means(&error))?,
            None,
        ),
        Some(order) => {
            let variables = given.env.iter().map(|(name, _)| name.clone()).collect();
            let Given { stdin, .. } = &given;
            let order =
                Order { program: program.clone(), argv, stdin: stdin.clone(), variables, ..order };
            let (builder, sheet) =
                through_shim(&commands.shim, &order).map_err(|error| no_means(&error))?;
            (builder, Some(sheet))
        }
    };
    for name in &commands.withheld {
        builder.env_remove(name);
    }
    tell(&mut builder, &given, assignment);
    let (writers, pipes) = output_pipes().map_err(|error| no_means(&error))?;
    let [stdout, stderr] = writers;
    builder.stdout(stdout).stderr(stderr).process_group(0);
    let started = Process::start(&mut builder);
    // The daemon must not keep the writing ends, or the pipes would never end.
    drop(builder);
    let process = started.map_err(|error| match sheet {
        None => Refusal::passing(explain(&error, &program, command.cwd.as_deref())),
        Some(_) => no_means(&error),
    })?;
    let outputs = Outputs::new(pipes, &context.log, &**clock);
    let execution = assignment.execution();
    Ok(Running { execution, process, outputs, sheet, cgroup })
}

fn no_means(error: &io::Error) -> Refusal {
    Refusal::passing(format!("the command could not be started: {error}"))
}

/// Everything that a child is given so goes the fast way (`posix_spawn`): an absolute path, a group, no hook.
fn directly(
    program: &Path,
    argv: &[String],
    given: &Given,
    cwd: Option<&str>,
) -> io::Result<process::Command> {
    let mut builder = process::Command::new(program);
    if let Some((name, arguments)) = argv.split_first() {
        builder.arg0(name).args(arguments);
    }
    if let Some(cwd) = cwd {
        builder.current_dir(cwd);
    }
    builder.stdin(input(given.stdin.as_deref())?);
    Ok(builder)
}

/// What a command reads: nothing, or a text.
fn input(text: Option<&str>) -> io::Result<Stdio> {
    text.map_or(
        Ok(Stdio::null()),
        |text| Ok(memory_file("punctual-input", text.as_bytes())?.into()),
    )
}

/// This program, which carries out the order and becomes the command.
fn through_shim(shim: &Path, order: &Order) -> io::Result<(process::Command, Sheet)> {
    let sheet = Sheet::with(order)?;
    let mut builder = process::Command::new(shim);
    builder.arg(SHIM_VERB).stdin(sheet.stdin()?);
    Ok((builder, sheet))
}

/// What only the shim can set; none if there is nothing of the kind.
fn order(command: &Command, cgroup: Option<&Cgroup<'_>>) -> Option<Order> {
    let limits = command.limits.clone().unwrap_or_default();
    let order = Order {
        cwd: command.cwd.clone(),
        user: command.user.clone(),
        group: command.group.clone(),
        umask: command.umask(),
        nice: command.nice,
        memory: limits.memory.as_ref().and_then(Bytes::count),
        cpu: limits.cpu,
        files: limits.files,
        cgroup: cgroup.map(|cgroup| cgroup.folder().to_owned()),
        ..Order::default()
    };
    // A working directory alone is no reason.
    let plain = Order { cwd: command.cwd.clone(), ..Order::default() };
    (order != plain).then_some(order)
}

/// Adds what the command was given to the environment, and what the run is.
fn tell(builder: &mut process::Command, given: &Given, assignment: &Assignment) {
    let env = given.env.iter().map(|(name, value)| (name, value));
    builder
        .envs(env)
        .env("PUNCTUAL_JOB_ID", assignment.job_id.as_str())
        .env("PUNCTUAL_RUN_ID", &*assignment.run_id.0)
        .env("PUNCTUAL_ATTEMPT", assignment.attempt.to_string())
        .env("TRACEPARENT", assignment.traceparent());
    let scheduled_at = assignment.scheduled_at.map(rfc3339);
    let event = assignment.event.as_deref().and_then(|event| event.get("event")?.as_str());
    let optional = [("PUNCTUAL_SCHEDULED_AT", scheduled_at.as_deref()), ("PUNCTUAL_EVENT", event)];
    for (name, value) in optional {
        match value {
            Some(value) => builder.env(name, value),
            // The daemon itself may have been started by a run of another one.
            None => builder.env_remove(name),
        };
    }
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
