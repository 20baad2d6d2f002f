//! `punctual logs`: the output of a run, as far as it is written or line by line to its end.

use std::io::IsTerminal;

use serde_json::Value;

use super::arguments::LogsArguments;
use super::console::{Console, StdoutState, json, line, note, write};
use super::error::CliError;
use super::named::{Named, check_known, named};
use super::table;
use super::times::{Zones, instant, local_millis};

use crate::client::{Client, ClientError, OutputFollower, percent_encode};
use crate::printable::with_colors;
use crate::zone::Zone;

/// The rows of a page in the search for a job's latest run, which may be followed by skipped occurrences.
const LATEST_ROWS: usize = 200;

/// How lines are shown.
#[derive(Debug, Clone)]
pub(super) enum Form {
    /// As JSON.
    Json,
    /// For people.
    Text {
        /// The zone of the time stamps, if each line shows its time and stream.
        stamped: Option<Zone>,
        /// Whether lines are printed as they were written, and not without control characters.
        raw: bool,
    },
}

impl Form {
    /// The lines alone. If standard output is no terminal, they are always printed as they were written.
    pub(super) fn plain(raw: bool) -> Self {
        Self::Text { stamped: None, raw: raw || !std::io::stdout().is_terminal() }
    }

    /// Whether lines are printed as they were written.
    pub(super) fn is_raw(&self) -> bool {
        matches!(self, Self::Json | Self::Text { raw: true, .. })
    }
}

/// How following an output ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Followed {
    /// The run has ended in this state.
    Ended(String),
    /// Standard output is not read any more.
    Unread,
    /// The daemon closed the connection.
    Disconnected,
}

/// Carries out `logs`.
pub(super) async fn run(
    client: &Client,
    arguments: &LogsArguments,
    output: &Console,
) -> Result<(), CliError> {
    let run = latest_run(client, &arguments.run).await?;
    let form = match (output.is_json(), Form::plain(arguments.raw)) {
        (true, _) => Form::Json,
        (false, Form::Text { raw, .. }) if arguments.timestamps => {
            let zones = Zones::of_runs(client, [&run]).await?;
            Form::Text { stamped: Some(zones.of(&run).clone()), raw }
        }
        (false, plain) => plain,
    };
    let id = run.get("id").and_then(Value::as_str).unwrap_or_default();
    if !arguments.follow {
        let answer = client.output_of(id, &arguments.query()).await?;
        return show(&answer, form);
    }
    let lines = client.follow(id, &arguments.query()).await?;
    let mut printer = Printer::new(form);
    let followed = follow(lines, &mut printer).await?;
    printer.end()?;
    match followed {
        Followed::Unread => Ok(()),
        Followed::Ended(state) if state == "succeeded" => Ok(()),
        Followed::Ended(state) if output.is_json() => Err(CliError::Quiet(state)),
        Followed::Ended(state) => Err(CliError::Refused(format!("the run is {state}"))),
        Followed::Disconnected => {
            Err(CliError::Unreachable("the daemon stopped before the run had ended".to_owned()))
        }
    }
}

/// The run of this id, or the latest run of the job of this id. Hook runs report about the job, and do not count.
async fn latest_run(client: &Client, name: &str) -> Result<Value, CliError> {
    if let Named::Run(run) = named(client, name).await? {
        return Ok(run);
    }
    let query = format!("limit={LATEST_ROWS}&hooks=false&job={}", percent_encode(name));
    let mut cursor = String::new();
    loop {
        let page = client.runs(&format!("{query}{cursor}")).await?;
        let rows = page.get("runs").and_then(Value::as_array).into_iter().flatten();
        let is_executed =
            |run: &&Value| run.get("state").and_then(Value::as_str) != Some("skipped");
        if let Some(run) = rows.into_iter().find(is_executed) {
            return Ok(run.clone());
        }
        let Some(next) = page.get("next_cursor").and_then(Value::as_str) else {
            check_known(client, name).await?;
            return Err(CliError::NotFound(format!("job \"{name}\" has not run yet")));
        };
        cursor = format!("&cursor={}", percent_encode(next));
    }
}

/// Prints lines as they come.
async fn follow(mut lines: OutputFollower, printer: &mut Printer) -> Result<Followed, CliError> {
    while let Some(told) = lines.next().await? {
        let state = told.get("state").and_then(Value::as_str);
        let text = match (&printer.form, state) {
            (Form::Json, _) => json(&told) + "\n",
            (_, Some(state)) => return Ok(Followed::Ended(state.to_owned())),
            (_, None) => printer.text(&told),
        };
        if write(&text)? == StdoutState::Gone {
            return Ok(Followed::Unread);
        }
        if let Some(state) = state {
            return Ok(Followed::Ended(state.to_owned()));
        }
    }
    Ok(Followed::Disconnected)
}

/// Prints an output, as far as it is written.
fn show(answer: &Value, form: Form) -> Result<(), CliError> {
    if matches!(form, Form::Json) {
        return line(&json(answer));
    }
    let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| answer.get(key).and_then(Value::as_u64).unwrap_or(0);
    let lines = answer.get("lines").and_then(Value::as_array).map(Vec::as_slice);
    let lines = lines.unwrap_or_default();
    if lines.is_empty() {
        let (run, job, state) = (text("run_id"), text("job_id"), text("state"));
        note(&format!("run {run} of {job} has no output ({state})"));
        return Ok(());
    }
    let mut told = lines.to_vec();
    if number("cut") > 0 {
        let after = usize::try_from(number("cut_after")).unwrap_or(usize::MAX);
        told.insert(after.min(told.len()), serde_json::json!({"missed": number("cut")}));
    }
    let mut printer = Printer::new(form);
    let shown: String = told.iter().map(|told| printer.text(told)).collect();
    write(&shown)?;
    printer.end()
}

/// Joins the lines of an output.
struct Printer {
    form: Form,
    /// The stream of the last line, if that line has no line break yet.
    open: Option<String>,
}

impl Printer {
    fn new(form: Form) -> Self {
        Self { form, open: None }
    }

    /// The text of a line, or of a note between lines. A line without a line break gets one if anything but its rest
    /// follows, or if it shows more than its text.
    fn text(&mut self, told: &Value) -> String {
        let stream = told.get("stream").and_then(Value::as_str);
        let open = self.open.take();
        let before = if open.is_some() && open.as_deref() != stream { "\n" } else { "" };
        let is_alone = matches!(self.form, Form::Text { stamped: None, .. });
        let is_open = is_alone && told.get("open").and_then(Value::as_bool) == Some(true);
        let after = if is_open { "" } else { "\n" };
        self.open = stream.filter(|_| is_open).map(str::to_owned);
        format!("{before}{}{after}", words(told, &self.form))
    }

    /// Ends the last line, for a person or for what follows it.
    fn end_line(&mut self) -> Result<(), CliError> {
        if self.open.take().is_some() {
            write("\n")?;
        }
        Ok(())
    }

    /// Ends the output. A pipe gets exactly what the run has written.
    fn end(&mut self) -> Result<(), CliError> {
        if std::io::stdout().is_terminal() { self.end_line() } else { Ok(()) }
    }
}

/// The text of a line, or of a note between lines.
fn words(told: &Value, form: &Form) -> String {
    let text = |key: &str| told.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| told.get(key).and_then(Value::as_u64);
    if let Some(missed) = number("missed") {
        return cut(missed);
    }
    if let Some(attempt) = number("attempt") {
        return table::noted(&format!("… attempt {attempt} …"));
    }
    let stamp = match form {
        Form::Text { stamped: Some(zone), .. } => {
            let at = instant(told, "at").map(|at| local_millis(at, zone)).unwrap_or_default();
            format!("{at} {} ", text("stream"))
        }
        Form::Json | Form::Text { stamped: None, .. } => String::new(),
    };
    let written = text("text");
    let written = if form.is_raw() { written.to_owned() } else { with_colors(written) };
    let line = format!("{stamp}{written}");
    if text("stream") == "stderr" { table::warned(&line) } else { line }
}

fn cut(lines: u64) -> String {
    table::noted(&format!("… {lines} lines are not kept …"))
}

/// Prints the output of a run while it is written. False: the daemon has too many followers, and nothing was printed.
pub(super) async fn show_live(
    client: &Client,
    run_id: &str,
    form: &Form,
) -> Result<bool, CliError> {
    match client.follow(run_id, "").await {
        Ok(lines) => {
            let mut printer = Printer::new(form.clone());
            follow(lines, &mut printer).await?;
            printer.end_line()?;
            Ok(true)
        }
        Err(ClientError::Refused { status: 503, .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
