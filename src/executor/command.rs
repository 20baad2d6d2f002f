//! A command as a child process in a group of its own, its output read as it comes.

use std::io::PipeWriter;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::Child;

use super::Assignment;
use super::report::{Ended, failed};
use crate::clock::{Clock, rfc3339};
use crate::job::Command;
use crate::output::Stream;
use crate::run::Outcome;
use crate::task::context::Context;
use crate::task::log::Log;

/// Time between the request to end and the end by force.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// How long output is still read after the command has ended: a grandchild may hold the pipe open for ever.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);
/// Where programs are looked for when there is no PATH.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Bytes of one read from a pipe.
const READ_BYTES: usize = 8 * 1024;

/// Runs a command to its end, or ends its whole group when it is cancelled.
pub(super) async fn execute(
    command: &Command,
    assignment: &Assignment,
    context: &Context,
    clock: &Arc<dyn Clock>,
) -> Ended {
    let mut process = match spawn(command, assignment) {
        Ok((child, pipe)) => Process::new(child, pipe, &context.log, clock),
        Err(error) => return failed(error).into(),
    };
    let outcome = tokio::select! {
        biased;
        status = process.wait() => outcome(status),
        ending = context.cancellation.cancelled() => {
            process.end_group().await;
            ending.into()
        }
    };
    process.read_rest().await;
    outcome.into()
}

/// Everything that a child is given goes the fast way (`posix_spawn`): an absolute path, a group, no hook. Both of its
/// outputs are one pipe, so that what it writes stays in its order.
fn spawn(command: &Command, assignment: &Assignment) -> Result<(Child, pipe::Receiver), String> {
    let Some((name, arguments)) = command.argv.split_first() else {
        return Err("the command is empty".to_owned());
    };
    let inherited = std::env::var("PATH").ok();
    let path = command.env.get("PATH").or(inherited.as_ref()).map_or(DEFAULT_PATH, String::as_str);
    let program = find_program(name, path, command.cwd.as_deref())
        .ok_or_else(|| format!("the program \"{name}\" was not found in {path}"))?;
    let (output, errors, pipe) =
        output_pipe().map_err(|error| format!("there is no pipe for the output: {error}"))?;
    let mut process = tokio::process::Command::new(&program);
    process
        .args(arguments)
        .envs(&command.env)
        .env("PUNCTUAL_JOB_ID", assignment.job_id.as_str())
        .env("PUNCTUAL_RUN_ID", &*assignment.run_id.0)
        .env("PUNCTUAL_ATTEMPT", assignment.attempt.to_string())
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .kill_on_drop(true);
    if let Some(at) = assignment.scheduled_at {
        process.env("PUNCTUAL_SCHEDULED_AT", rfc3339(at));
    }
    if let Some(cwd) = &command.cwd {
        process.current_dir(cwd);
    }
    let child = process.spawn();
    let child = child
        .map_err(|error| format!("\"{}\" could not be started: {error}", program.display()))?;
    Ok((child, pipe))
}

/// Two ends to write to and one to read from. The daemon must not keep a writing end, or the pipe would never end:
/// the process builder holds them, and goes when the child has been started.
fn output_pipe() -> std::io::Result<(PipeWriter, PipeWriter, pipe::Receiver)> {
    let (reader, writer) = std::io::pipe()?;
    Ok((writer.try_clone()?, writer, pipe::Receiver::from_owned_fd(reader.into())?))
}

/// The file to execute: what has a slash is a path (from `cwd`), what has none is looked for in `path`.
fn find_program(name: &str, path: &str, cwd: Option<&str>) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(cwd.map_or_else(|| PathBuf::from(name), |cwd| Path::new(cwd).join(name)));
    }
    std::env::split_paths(path).map(|folder| folder.join(name)).find(|file| {
        file.is_absolute()
            && file.is_file()
            && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
    })
}

/// A command that was started, and what it has written so far.
struct Process<'a> {
    child: Child,
    group: Option<Pid>,
    pipe: pipe::Receiver,
    log: &'a Log,
    clock: &'a Arc<dyn Clock>,
}

impl<'a> Process<'a> {
    fn new(child: Child, pipe: pipe::Receiver, log: &'a Log, clock: &'a Arc<dyn Clock>) -> Self {
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Self { child, group, pipe, log, clock }
    }

    /// Waits for the command itself, while it reads what the command writes. It can be broken off and begun again.
    async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        tokio::select! {
            status = self.child.wait() => return status,
            () = read_all(&mut self.pipe, self.log, self.clock) => {}
        }
        self.child.wait().await
    }

    /// Reads what is left after the end.
    async fn read_rest(&mut self) {
        let reading = read_all(&mut self.pipe, self.log, self.clock);
        if tokio::time::timeout(OUTPUT_GRACE, reading).await.is_err() {
            tracing::debug!("a command has ended while another process holds its output open");
        }
    }

    /// Asks the whole group to end, then makes it.
    async fn end_group(&mut self) {
        let Some(group) = self.group else { return };
        // An error means that nothing of the group is left, which is what is wanted.
        let signal = |signal: Signal| kill_process_group(group, signal).is_ok();
        if signal(Signal::TERM) && tokio::time::timeout(KILL_GRACE, self.wait()).await.is_err() {
            tracing::warn!(
                process_group = group.as_raw_nonzero().get(),
                "a command did not end when asked to; it is killed"
            );
        }
        signal(Signal::KILL);
        if let Err(error) = self.child.wait().await {
            tracing::warn!(%error, "a command could not be waited for");
        }
    }
}

async fn read_all(pipe: &mut pipe::Receiver, log: &Log, clock: &Arc<dyn Clock>) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        log.write(clock.now(), Stream::Stdout, buffer.get(..count).unwrap_or_default());
    }
}

fn outcome(status: std::io::Result<ExitStatus>) -> Outcome {
    let status = match status {
        Ok(status) => status,
        Err(error) => return failed(format!("the command could not be waited for: {error}")),
    };
    let failed = |error: String| Outcome::Failed {
        error,
        exit_code: status.code(),
        signal: status.signal(),
        permanent: false,
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => Outcome::Succeeded { result: None, exit_code: Some(0) },
        (Some(code), _) => failed(format!("exit code {code}")),
        (None, Some(signal)) => failed(format!("ended by signal {signal}")),
        (None, None) => failed(status.to_string()),
    }
}
