//! Worker processes: this program, started again to run builtins in isolation. What a builtin
//! breaks there, it breaks there only.
//!
//! The protocol is one JSON object a line over the worker's standard input and output: first a
//! hello, then one request and one answer at a time. A worker ends when its input ends, so it
//! does not outlive its daemon, however that ends.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, mpsc};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::report::{bounded_result, failed};
use super::{Assignment, thread};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::job::{JobId, Task};
use crate::run::{Outcome, RunId};
use crate::task::builtin::Registry;
use crate::task::context::Context;

/// Bytes of one line: an answer's output and result are bounded far below it, even with every byte escaped.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// How a worker process is started.
#[derive(Debug, Clone)]
pub struct WorkerProgram {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// What it is told first, so that it can build the same registry.
    pub hello: Value,
}

impl WorkerProgram {
    /// The program itself, even after an upgrade has replaced its file.
    pub fn own(hello: Value) -> Self {
        Self { program: Self::itself(), arguments: vec!["worker".to_owned()], hello }
    }

    /// The file of this program, even after an upgrade has replaced it.
    pub(super) fn itself() -> PathBuf {
        "/proc/self/exe".into()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    run_id: String,
    job_id: String,
    attempt: u32,
    scheduled_at: Option<Timestamp>,
    name: String,
    args: Map<String, Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    result: Option<Value>,
    error: Option<String>,
    permanent: bool,
    output: String,
}

/// A worker process, seen from the daemon. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a worker and tells it what it needs to know.
    pub(super) async fn start(program: &WorkerProgram) -> std::io::Result<Self> {
        let mut child = tokio::process::Command::new(&program.program)
            .args(&program.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let missing = || std::io::Error::other("a pipe is missing");
        let requests = child.stdin.take().ok_or_else(missing)?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        let mut worker = Self { child, requests, answers };
        worker.send(&program.hello).await?;
        Ok(worker)
    }

    /// Has the worker run a builtin. An error means that the worker is of no more use.
    pub(super) async fn call(
        &mut self,
        assignment: &Assignment,
    ) -> std::io::Result<(Outcome, String)> {
        let Task::Builtin { name, args } = &*assignment.task else {
            return Ok((failed("a worker process runs builtin tasks only"), String::new()));
        };
        let request = Request {
            run_id: assignment.run_id.0.to_string(),
            job_id: assignment.job_id.to_string(),
            attempt: assignment.attempt,
            scheduled_at: assignment.scheduled_at,
            name: name.clone(),
            args: args.clone(),
        };
        self.send(&request).await?;
        let mut line = String::new();
        let read = (&mut self.answers).take(LINE_BYTES_MAX).read_line(&mut line).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let answer: Answer = serde_json::from_str(&line)?;
        let permanent = answer.permanent;
        let outcome = match answer.error {
            Some(error) => Outcome::Failed { error, exit_code: None, signal: None, permanent },
            None => Outcome::Succeeded { result: answer.result, exit_code: None },
        };
        Ok((outcome, answer.output))
    }

    /// Ends a worker that broke off, or is to; how it ended, in words.
    pub(super) async fn death(mut self) -> String {
        drop(self.requests);
        let killed = self.child.start_kill();
        match (killed, self.child.wait().await) {
            (Ok(()) | Err(_), Ok(status)) => format!("the worker process ended: {status}"),
            (_, Err(error)) => format!("the worker process ended: {error}"),
        }
    }

    async fn send(&mut self, message: &impl Serialize) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.requests.write_all(&line).await?;
        self.requests.flush().await
    }
}

/// The worker's side: reads the hello, builds the registry from it, then answers requests until the input ends.
pub fn serve<E: From<std::io::Error>>(
    build: impl FnOnce(Value) -> Result<Registry, E>,
) -> Result<(), E> {
    // A thread of its own reads, so that the end of the input is seen while a builtin runs.
    let (lines, requests) = mpsc::sync_channel::<String>(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if lines.send(line).is_err() {
                break;
            }
        }
        leave();
    });
    let Ok(hello) = requests.recv() else { return Ok(()) };
    let registry = build(serde_json::from_str(&hello).map_err(std::io::Error::from)?)?;
    while let Ok(line) = requests.recv() {
        let request: Request = serde_json::from_str(&line).map_err(std::io::Error::from)?;
        let mut answer =
            serde_json::to_vec(&answer(&registry, request)).map_err(std::io::Error::from)?;
        answer.push(b'\n');
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&answer)?;
        stdout.flush()?;
    }
    Ok(())
}

/// Ends the worker at once: its daemon is gone, and nobody would read its answer.
#[expect(
    clippy::disallowed_methods,
    clippy::exit,
    reason = "the builtin on the main thread cannot be asked to return"
)]
fn leave() {
    std::process::exit(0);
}

fn answer(registry: &Registry, request: Request) -> Answer {
    let refused = |error: String| Answer {
        result: None,
        error: Some(error),
        permanent: true,
        output: String::new(),
    };
    let job_id = match JobId::parse(&request.job_id) {
        Ok(job_id) => job_id,
        Err(invalid) => return refused(invalid.to_string()),
    };
    let assignment = Assignment {
        run_id: RunId(request.run_id.into()),
        job_id,
        attempt: request.attempt,
        scheduled_at: request.scheduled_at,
        task: Arc::new(Task::Builtin { name: request.name, args: request.args }),
        timeout: None,
        event: None,
    };
    let (context, clock) = (Arc::new(Context::default()), SystemClock);
    let clock: Arc<dyn Clock> = Arc::new(clock);
    let ended = thread::call(registry, &assignment, &context, &clock);
    let output = context.log.close(clock.now()).text();
    match ended.outcome {
        Outcome::Succeeded { result, .. } => {
            let result = result.map(bounded_result);
            Answer { result, error: None, permanent: false, output }
        }
        Outcome::Failed { error, permanent, .. } => {
            Answer { result: None, error: Some(error), permanent, output }
        }
        // Whoever cancels ends the worker, and need not be answered.
        Outcome::Cancelled { reason: error }
        | Outcome::TimedOut { error }
        | Outcome::Lost { error } => refused(error),
    }
}
