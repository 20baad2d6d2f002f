//! How the daemon starts a command: directly, or through the shim if its definition wants what only the shim can set;
//! in a cgroup, by a launcher, where the daemon has one.

use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use tokio::net::unix::pipe::Receiver;

use super::environment::{self, Environment, ResolvedInputs, SHELL};
use super::error::CommandStartError;
use super::output::CommandOutput;
use super::process::{Process, SpawnError};
use super::runner::CommandRunner;
use super::running::RunningCommand;
use super::shim::{SharedBlock, ShimRequest};
use super::spawn::{Spawn, explain, stdin_file};
use crate::executor::assignment::Assignment;
use crate::executor::run::ExecutorServices;
use crate::executor::shortage::is_shortage;
use crate::job::{Command, MemorySize, Program, RUN_VARIABLES, TaskType};
use crate::program;
use crate::task::context::Context;

/// Starts a command. It leads a session of its own, and stdout and stderr are pipes.
pub(super) async fn start<'a>(
    runner: &'a CommandRunner,
    command: &Command,
    assignment: &Assignment,
    context: &'a Context,
    services: &'a ExecutorServices,
) -> Result<RunningCommand<'a>, CommandStartError> {
    let inputs =
        ResolvedInputs::read(command, assignment, context, &services.clients.blocking).await?;
    runner.secrets.completed().await;
    let mut env = runner.inherited.clone();
    runner.secrets.withhold(&mut env, &command.secret_variables());
    let env = environment::of_run(env, &inputs, assignment);
    let (writers, pipes) = output_pipes().map_err(|error| CommandStartError::of_daemon(&error))?;
    let PreparedCommand { program, spawn, block } = prepare(runner, command, inputs, env, writers)?;
    let mut launcher = runner.take_launcher(command).await?;
    let started = match &mut launcher {
        Some(launcher) => launcher.start(&spawn).await,
        // The shim sets the limit of open files itself.
        None => Process::start(&spawn, runner.files.filter(|_| block.is_none())),
    };
    // The daemon must not keep the writing ends of the pipes: they would never reach their end.
    drop(spawn);
    let process = match started {
        Ok(process) => process,
        Err(error) => {
            // A launcher that lacks something, such as descriptors that an earlier command took from it, is not used
            // again: another launcher may have it.
            if let (SpawnError::NotStarted(why), Some(launcher)) = (&error, launcher)
                && !is_shortage(why)
            {
                runner.give_back(launcher);
            }
            return Err(start_error(error, &program, block.is_some()));
        }
    };
    let record = runner.records.as_ref().and_then(|records| records.note(process.pid));
    let outputs = CommandOutput::new(pipes, &context.log, &*services.clock);
    let execution = assignment.execution();
    Ok(RunningCommand { execution, process, outputs, block, launcher, record, runner, services })
}

/// The process to create: the command itself, or the shim that becomes the command.
struct PreparedCommand {
    program: PathBuf,
    spawn: Spawn,
    /// The shim's handshake with the daemon.
    block: Option<SharedBlock>,
}

fn prepare(
    runner: &CommandRunner,
    command: &Command,
    inputs: ResolvedInputs,
    env: Environment,
    writers: [PipeWriter; 2],
) -> Result<PreparedCommand, CommandStartError> {
    let of_daemon = |error: io::Error| CommandStartError::of_daemon(&error);
    let [stdout, stderr] = writers.map(OwnedFd::from);
    let argv = match &command.program {
        Program::Argv(argv) => argv.clone(),
        Program::Shell(script) => vec![SHELL.to_owned(), "-c".to_owned(), script.clone()],
    };
    let name = argv.first().map_or("", String::as_str);
    let (program, spawn, block) =
        if let Some(request) = shim_request(command, runner.default_user.as_ref()) {
            // The shim looks the program up itself, with the rights and from the directory of the command.
            let program = PathBuf::from(name);
            let variables = inputs.env.iter().map(|(name, _)| name.clone());
            let variables = variables.chain(RUN_VARIABLES.map(str::to_owned)).collect();
            let soft_files = runner.files.and_then(|limit| limit.current);
            let markers = environment::run_markers(&env);
            let block = SharedBlock::with(&ShimRequest {
                program: program.clone(),
                argv,
                stdin: inputs.stdin,
                soft_files,
                env: env.into_iter().collect(),
                variables,
                ..request
            })
            .map_err(of_daemon)?;
            let stdin = block.as_stdin().map_err(of_daemon)?;
            let argv = [runner.shim.display().to_string(), program::SHIM.to_owned()];
            let spawn = Spawn::new(&runner.shim, &argv, markers, [stdin, stdout, stderr]);
            (program, spawn, Some(block))
        } else {
            let program = inputs.find_program(name, command.cwd.as_deref())?;
            let stdin = stdin_file(inputs.stdin.as_deref()).map_err(of_daemon)?.into();
            let spawn = Spawn::new(&program, &argv, env, [stdin, stdout, stderr]);
            (program, spawn, None)
        };
    let spawn = spawn.map_err(|error| {
        CommandStartError::transient(format!("an argument or a variable: {error}"))
    })?;
    Ok(PreparedCommand { program, spawn, block })
}

/// What only the shim can set; none if the command asks for nothing of the kind.
fn shim_request(command: &Command, default_user: Option<&String>) -> Option<ShimRequest> {
    let limits = command.limits.clone().unwrap_or_default();
    let request = ShimRequest {
        cwd: command.cwd.clone(),
        user: command.user.as_ref().or(default_user).cloned(),
        group: command.group.clone(),
        umask: command.umask(),
        nice: command.nice,
        memory: limits.memory.as_ref().and_then(MemorySize::count),
        cpu: limits.cpu,
        files: limits.files,
        begins_at_home: default_user.is_some(),
        ..ShimRequest::default()
    };
    (request != ShimRequest::default()).then_some(request)
}

fn start_error(error: SpawnError, program: &Path, is_through_shim: bool) -> CommandStartError {
    match error {
        SpawnError::NotStarted(error) if is_through_shim || is_shortage(&error) => {
            CommandStartError::of_daemon(&error)
        }
        SpawnError::NotStarted(error) => {
            CommandStartError::transient(explain(&error, program, None))
        }
        SpawnError::Unwatched(error) => CommandStartError::transient(format!(
            "the command was started, and killed because it could not be watched: {error}"
        )),
        SpawnError::Lost(error) => {
            CommandStartError::transient(format!("the command could not be waited for: {error}"))
        }
    }
}

/// The pipes of stdout and stderr: their ends to write to and their ends to read from.
fn output_pipes() -> io::Result<([PipeWriter; 2], [Receiver; 2])> {
    let pipe = || {
        let (reader, writer) = io::pipe()?;
        Ok::<_, io::Error>((writer, Receiver::from_owned_fd(reader.into())?))
    };
    let ((stdout, stdout_pipe), (stderr, stderr_pipe)) = (pipe()?, pipe()?);
    Ok(([stdout, stderr], [stdout_pipe, stderr_pipe]))
}
