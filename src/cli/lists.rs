//! `list` and `runs`: a page of jobs or of runs, once or again whenever it may have changed.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::console::{Console, StdoutState, json, print};
use super::error::CliError;
use super::named::{Named, check_known, named};
use super::selection::{ListArguments, RunsArguments};
use super::table;
use super::time_context::daemon_zone;
use super::times::Zones;
use super::view;
use crate::client::{Client, ClientError};
use crate::clock::{Clock, SystemClock, Timestamp, rfc3339};
use crate::instant::{Toward, parse_moment};
use crate::zone::Zone;

/// How long the daemon waits for a change before it answers anyway, in seconds. Times such as `in 5m` are right again then.
const WAIT_SECONDS: u64 = 10;
/// The shortest time between two pages: a busy daemon changes thousands of times in a second.
const PAUSE: Duration = Duration::from_millis(500);

/// Carries out `list`.
pub(super) async fn jobs(
    client: &Client,
    arguments: &ListArguments,
    console: &Console,
) -> Result<(), CliError> {
    let query = arguments.query();
    let fetch = async |more: &str| Ok(client.jobs(&format!("{query}{more}")).await?);
    let view = async |page: &Value| {
        let is_paused = page.get("scheduler_paused").is_some_and(Value::is_object);
        let zone = if is_paused || arguments.next.is_some() {
            daemon_zone(client).await?
        } else {
            Zone::utc()
        };
        let now = SystemClock.now();
        Ok(match arguments.next {
            Some(_) => view::agenda(page, &zone, now),
            None => view::jobs(page, arguments.order.is_some(), &zone, now),
        })
    };
    show(arguments.page.watch, console, fetch, view).await
}

/// Carries out `runs`: shows a page of runs, or one run if its id was given.
pub(super) async fn runs(
    client: &Client,
    arguments: &RunsArguments,
    console: &Console,
) -> Result<(), CliError> {
    if let Some(name) = &arguments.name
        && let Named::Run(run) = named(client, name).await?
    {
        return one_run(client, arguments, &run, console).await;
    }
    let name = arguments.name.as_deref();
    let since = moment(client, "--since", arguments.since.as_deref(), name).await?;
    let until = moment(client, "--until", arguments.until.as_deref(), name).await?;
    let query = arguments.query(since, until);
    let fetch = async |more: &str| {
        let page = client.runs(&format!("{query}{more}")).await?;
        if let Some(name) = name.filter(|_| rows(&page).is_empty()) {
            check_known(client, name).await?;
        }
        Ok(page)
    };
    let view = async |page: &Value| {
        let zones = Zones::of_runs(client, rows(page)).await?;
        Ok(view::runs(page, &zones, SystemClock.now()))
    };
    show(arguments.page.watch, console, fetch, view).await
}

fn rows(page: &Value) -> &[Value] {
    page.get("runs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

async fn one_run(
    client: &Client,
    arguments: &RunsArguments,
    run: &Value,
    console: &Console,
) -> Result<(), CliError> {
    if arguments.page.watch || arguments.has_conditions() {
        let message = "this is the id of one run, which allows neither conditions nor --watch";
        return Err(CliError::Usage(message.to_owned()));
    }
    if console.is_json() {
        return console.show(run, |_| String::new());
    }
    let zones = Zones::of_runs(client, [run]).await?;
    console.show(run, |run| view::run(run, &zones, SystemClock.now()))
}

/// Shows a page; with `watch`, again and again. `fetch` takes what is added to the query.
async fn show(
    watch: bool,
    console: &Console,
    fetch: impl AsyncFn(&str) -> Result<Value, CliError>,
    view: impl AsyncFn(&Value) -> Result<String, CliError>,
) -> Result<(), CliError> {
    let (mut more, mut former) = (String::new(), None);
    loop {
        let begun = Instant::now();
        let mut page = fetch(&more).await?;
        let text = if console.is_json() { String::new() } else { view(&page).await? };
        if !watch {
            return console.show(&page, |_| text);
        }
        let step = page.get("step").and_then(Value::as_u64).unwrap_or(0);
        more = format!("&wait={WAIT_SECONDS}&seen={step}");
        let text = if console.is_json() {
            // The number of the step changes also where nothing that is shown does.
            page.as_object_mut().and_then(|page| page.remove("step"));
            json(&page)
        } else {
            text.trim_end_matches('\n').to_owned()
        };
        if former.as_ref() != Some(&text) {
            let is_screen = !console.is_json() && std::io::stdout().is_terminal();
            let shown = if is_screen { table::screen(&text) } else { text.clone() };
            if print(&shown)? == StdoutState::Gone {
                return Ok(());
            }
            former = Some(text);
        }
        sleep_until(begun + PAUSE).await;
    }
}

/// A time as it is sent: as it was typed if it means the same in every zone, so that a cursor stays valid; else as an instant
/// in the zone of the job, if one is named, or in the daemon's.
async fn moment(
    client: &Client,
    option: &str,
    text: Option<&str>,
    job: Option<&str>,
) -> Result<Option<String>, CliError> {
    let Some(text) = text else { return Ok(None) };
    let now = SystemClock.now();
    let read = |zone: &Zone| {
        let at = parse_moment(text, zone, now, Toward::Past);
        at.map_err(|why| CliError::Usage(format!("{option}: {why}")))
    };
    // A text that is no time in any zone is refused without a daemon.
    let in_utc = read(&Zone::utc())?;
    if Zone::parse("+13:07").is_ok_and(|zone| read(&zone).is_ok_and(|at| at == in_utc)) {
        return Ok(Some(text.to_owned()));
    }
    let at: Timestamp = match job {
        None => read(&daemon_zone(client).await?)?,
        Some(id) => read(&zone_of_job(client, id).await?)?,
    };
    Ok(Some(rfc3339(at)))
}

async fn zone_of_job(client: &Client, id: &str) -> Result<Zone, ClientError> {
    match client.job(id).await {
        Ok(job) => Ok(Zones::of_job(client, &job).await?.of(&job).clone()),
        // The job may have been removed; its runs are still there.
        Err(error) if error.is_not_found() => daemon_zone(client).await,
        Err(error) => Err(error),
    }
}
