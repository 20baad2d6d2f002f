//! The command line: what a person types, and how answers are shown.
//!
//! `arguments.rs` is what clap reads, with the help; `options/` holds the options that define a job, which serialize to
//! the JSON that is sent. [`run`] carries out a command with the [`Client`]; `view/` and `table.rs` show its answer to
//! people, and `console.rs` prints it, or the JSON as it came. Only `preview` computes something here. Nothing of the
//! daemon behind the socket is known.

mod arguments;
mod bulk;
mod check;
mod console;
mod edit;
mod error;
mod generate;
mod import;
mod lists;
mod log_level;
mod logs;
mod modify;
mod named;
mod options;
mod preview;
mod runs;
mod selection;
mod table;
mod time_context;
mod times;
mod view;

pub use arguments::{
    CheckArguments, CliArguments, ClientArguments, ClientCommand, LogLevelArguments, LogsArguments,
    MigrateArguments, PauseArguments, PreviewArguments, ServeArguments, Verb, parse,
};
pub use check::view_of_check;
pub use console::{Console, note, report};
pub use error::CliError;
pub use generate::{completions, man};
pub use import::ImportArguments;
pub use selection::{ListArguments, PausedJobs, RemovedJobs, RunsArguments};

use std::process::ExitCode;

use serde_json::Value;

use crate::client::{Client, percent_encode};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::{self, ClientSocket};
use crate::printable::escaped;
use crate::zone::Zone;
use time_context::TimeContext;
use times::Zones;

/// A client of the daemon that the arguments name, else of the one at `configured`, else of the one that is found.
pub fn client(
    arguments: &ClientArguments,
    configured: Option<ClientSocket>,
) -> Result<Client, CliError> {
    if let Some(path) = &arguments.socket {
        return Ok(Client::new(path));
    }
    let found = configured.map_or_else(config::client_socket, Ok);
    let ClientSocket { path, users, elsewhere } =
        found.map_err(|invalid| CliError::Unreachable(invalid.to_string()))?;
    let client = Client::new(path).of_users(users);
    Ok(match elsewhere {
        Some(elsewhere) => client.not_found(elsewhere, config::is_service_installed()),
        None => client,
    })
}

/// Carries out a command that talks to a daemon, or computes a preview.
pub fn run(arguments: &ClientArguments, command: ClientCommand) -> ExitCode {
    let console = arguments.console();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Refused(error.to_string()));
    let client = client(arguments, None);
    console.report(runtime.and_then(|runtime| {
        if let ClientCommand::Preview(preview) = &command {
            return runtime.block_on(preview::run(client.ok().as_ref(), preview, &console));
        }
        runtime.block_on(call(&client?, command, &console))
    }))
}

async fn call(client: &Client, command: ClientCommand, console: &Console) -> Result<(), CliError> {
    let now = SystemClock.now();
    match command {
        ClientCommand::Add(mut options) => {
            let zone = options.trigger.zone()?;
            let context = TimeContext::of_times(client, zone, options.times_mut(), now).await?;
            context.resolve(options.times_mut())?;
            let job = client.add(&options.to_json()?).await?;
            console.show(&job, |job| view::added(job, options.replace_existing, now))
        }
        ClientCommand::Modify(options) => modify::modify(client, *options, console, now).await,
        ClientCommand::Reschedule(options) => {
            modify::reschedule(client, *options, console, now).await
        }
        ClientCommand::Edit { id } => edit::run(client, &id, console, now).await,
        ClientCommand::List(arguments) => lists::jobs(client, &arguments, console).await,
        ClientCommand::Show { id } => show(client, &id, console, now).await,
        ClientCommand::Pause(arguments) => pause(client, &arguments, console, now).await,
        ClientCommand::Resume(PausedJobs { all: true, .. }) => {
            let answer = client.resume_all().await?;
            console.show(&answer, |_| "resumed the scheduler".to_owned())
        }
        ClientCommand::Resume(PausedJobs { ids, bulk, .. }) => {
            if bulk.is_given() {
                return bulk::run(client, &bulk::Action::Resume, &bulk, console).await;
            }
            for_each(&ids, console, async |id| Ok(client.resume(id).await?), "resumed").await
        }
        ClientCommand::Cancel { runs, reason, no_wait } => {
            let cancel =
                async |id: &str| runs::cancel(client, id, reason.as_deref(), no_wait).await;
            let done = if no_wait { "asked to end:" } else { "ended:" };
            for_each(&runs, console, cancel, done).await
        }
        ClientCommand::Remove(RemovedJobs { ids, bulk }) => {
            if bulk.is_given() {
                return bulk::run(client, &bulk::Action::Remove, &bulk, console).await;
            }
            for_each(&ids, console, async |id| remove(client, id, console).await, "removed").await
        }
        ClientCommand::Run { id, wait, raw } => {
            let form = wait.then(|| logs::Form::plain(raw));
            runs::start(client, &id, form, console).await
        }
        ClientCommand::Explain { id, at } => {
            let query = at.map(|at| format!("at={}", percent_encode(&at)));
            let answer = client.explain(&id, &query.unwrap_or_default()).await?;
            console.show(&answer, view::explanation)
        }
        ClientCommand::Runs(arguments) => lists::runs(client, &arguments, console).await,
        ClientCommand::Logs(arguments) => logs::run(client, &arguments, console).await,
        ClientCommand::Executors => {
            let answer = client.executors().await?;
            if console.is_json() {
                return console.show(&answer, |_| String::new());
            }
            let pools = answer.get("executors").and_then(Value::as_array).into_iter().flatten();
            let running = pools.filter_map(|pool| pool.get("running")?.as_array()).flatten();
            let zones = Zones::of_runs(client, running).await?;
            console.show(&answer, |answer| view::executors(answer, &zones, now))
        }
        ClientCommand::Status => {
            let status = client.status().await?;
            console.show(&status, |status| view::status(status, now))?;
            match status.pointer("/health/state").and_then(Value::as_str) {
                Some("well") => Ok(()),
                _ => Err(CliError::Quiet("the daemon is degraded".to_owned())),
            }
        }
        ClientCommand::Reload { force } => {
            let answer = if force { client.force_reload().await? } else { client.reload().await? };
            console.show(&answer, view::difference)
        }
        ClientCommand::LogLevel(arguments) => {
            log_level::run(client, &arguments, console, now).await
        }
        ClientCommand::Import(arguments) => import::run(client, &arguments, console, now).await,
        ClientCommand::Preview(arguments) => preview::run(Some(client), &arguments, console).await,
    }
}

/// Pauses jobs, or the scheduler as a whole.
async fn pause(
    client: &Client,
    arguments: &PauseArguments,
    console: &Console,
    now: Timestamp,
) -> Result<(), CliError> {
    let terms = arguments.terms();
    if arguments.chosen.bulk.is_given() {
        let action = bulk::Action::Pause(terms);
        return bulk::run(client, &action, &arguments.chosen.bulk, console).await;
    }
    // People see an end in the zone in which they may have given it.
    let zone = if arguments.has_end() && !console.is_json() {
        time_context::daemon_zone(client).await?
    } else {
        Zone::utc()
    };
    if arguments.chosen.all {
        let answer = client.pause_all_with(&terms).await?;
        return console.show(&answer, |answer| {
            format!("paused the scheduler{}", view::pause_end(answer, "paused_until", &zone, now))
        });
    }
    let call = async |id: &str| Ok(client.pause_with(id, &terms).await?);
    let paused = |id: &str, job: &Value| {
        let pause = job.get("pause").cloned().unwrap_or_default();
        format!("paused {}{}", escaped(id), view::pause_end(&pause, "until", &zone, now))
    };
    for_each_shown(&arguments.chosen.ids, console, call, paused).await
}

/// Shows a job; people also see its latest runs.
async fn show(
    client: &Client,
    id: &str,
    console: &Console,
    now: Timestamp,
) -> Result<(), CliError> {
    let job = client.job(id).await?;
    if console.is_json() {
        return console.show(&job, |_| String::new());
    }
    let id = percent_encode(id);
    let runs = client.runs(&format!("limit=5&hooks=false&job={id}")).await?;
    let zones = Zones::of_job(client, &job).await?;
    console.show(&job, |job| view::job(job, &runs, &zones, now))
}

/// Removes a job. If another file declares it, a note says that it may come back; in JSON, the job has its source.
async fn remove(client: &Client, id: &str, console: &Console) -> Result<Value, CliError> {
    let job = client.remove(id).await?;
    let source = job.get("source").and_then(Value::as_str).filter(|_| !console.is_json());
    if let Some(source) = source {
        note(&format!(
            "{id} was declared by {source}; a daemon that uses that file adds it again at its next start or reload"
        ));
    }
    Ok(job)
}

/// Does the same to several jobs or runs. One failure does not stop the others.
async fn for_each(
    ids: &[String],
    console: &Console,
    call: impl AsyncFn(&str) -> Result<Value, CliError>,
    done: &str,
) -> Result<(), CliError> {
    for_each_shown(ids, console, call, |id, _| format!("{done} {}", escaped(id))).await
}

/// As [`for_each`], where `view` says what was done.
async fn for_each_shown(
    ids: &[String],
    console: &Console,
    call: impl AsyncFn(&str) -> Result<Value, CliError>,
    view: impl Fn(&str, &Value) -> String,
) -> Result<(), CliError> {
    let mut failed = Vec::new();
    for id in ids {
        match call(id).await {
            Ok(answer) => console.show(&answer, |answer| view(id, answer))?,
            Err(error) if error.ends_all() || ids.len() == 1 => return Err(error),
            Err(error) => {
                console.complain(&error);
                failed.push(id.as_str());
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(CliError::Quiet(failed.join(", "))) }
}
