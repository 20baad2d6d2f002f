//! The commands and their arguments, with the help. clap reads them.
#![expect(clippy::doc_markdown, reason = "these comments are the help text, which is not Markdown")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser, Subcommand};
use serde_json::{Number, Value, json};

use super::console::Console;
use super::error::CliError;
use super::import::ImportArguments;
use super::options::{JobOptions, ModifyOptions, RescheduleOptions, TriggerOptions, seconds};
use super::selection::{ListArguments, PausedJobs, RemovedJobs, RunsArguments, query};
use crate::printable::escaped;
use crate::program;

/// Punctual: a standalone job scheduler. Jobs live in a SQL store and run on time.
#[derive(Debug, Parser)]
#[command(name = program::NAME, version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 refused or failed, 2 usage or a faulty file, 3 daemon not reachable or permission denied \
    on its socket, 130 ended by Ctrl-C.\n\
    Start with `punctual serve --demo`, then `punctual list`, `punctual runs`, `punctual status`."
)]
pub struct CliArguments {
    #[command(flatten)]
    pub client: ClientArguments,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Reads the command line. If it is faulty or asks for help, this prints the error or the help and returns the exit code.
pub fn parse() -> Result<CliArguments, ExitCode> {
    // The daemon starts many runs like this, and building the parser of all commands takes time.
    for (word, verb) in [(program::SHIM, Verb::Exec), (program::LAUNCHER, Verb::Launch)] {
        if std::env::args_os().skip(1).eq([word]) {
            let client = ClientArguments { socket: None, json: false };
            return Ok(CliArguments { client, verb });
        }
    }
    CliArguments::try_parse().map_err(|error| {
        // The error quotes what was typed, so it is read again without control characters.
        let escape = |word: OsString| match word.to_str() {
            Some(text) => escaped(text).into_owned().into(),
            None => word,
        };
        let escaped = CliArguments::try_parse_from(std::env::args_os().map(escape));
        refuse(&hide_value(escaped.err().unwrap_or(error)))
    })
}

/// Takes a faulty value out of the error if it is JSON: it can be long, and contain a secret.
fn hide_value(mut error: clap::Error) -> clap::Error {
    let option = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
    if ["<JSON>", "<TASK>"].iter().any(|name| option.ends_with(name)) {
        error.insert(ContextKind::InvalidValue, ContextValue::String("…".to_owned()));
    }
    error
}

/// Prints an error of the command line (in JSON with --json) or the help, and returns the exit code.
fn refuse(error: &clap::Error) -> ExitCode {
    let options = std::env::args_os().take_while(|word| word != "--");
    if error.use_stderr() && options.into_iter().any(|word| word == "--json") {
        let text = error.render().to_string();
        let why = text.strip_prefix("error: ").unwrap_or(&text);
        // The usage after it is for people.
        let why = why.split("\n\nUsage:").next().unwrap_or(why);
        let why = why.split("\n\nFor more information").next().unwrap_or(why);
        return Console::new(true).report(Err(CliError::Usage(why.trim_end().to_owned())));
    }
    // If the output is not read, there is still the exit code.
    drop(error.print());
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// How to reach the daemon, and how to answer.
#[derive(Debug, Args)]
pub struct ClientArguments {
    /// Control socket of the daemon [default: control.socket in jobs.toml, else punctual.sock in $RUNTIME_DIRECTORY,
    /// $XDG_RUNTIME_DIR or here. A client takes the first of these that is there, in the last two only if it belongs to
    /// the user or to root; then control.socket in /etc/punctual/jobs.toml, else /run/punctual/punctual.sock]
    #[arg(
        long,
        global = true,
        env = "PUNCTUAL_SOCKET",
        value_name = "PATH",
        hide_env_values = true
    )]
    pub socket: Option<PathBuf>,
    /// Print answers as JSON, and errors as JSON on standard error
    #[arg(long, global = true)]
    pub json: bool,
}

impl ClientArguments {
    /// The console that shows answers in the form that was asked for.
    pub fn console(&self) -> Console {
        Console::new(self.json)
    }
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the daemon
    #[command(
        after_help = "Examples:\n  punctual serve --demo\n  punctual serve --config /etc/punctual/jobs.toml\n\n\
        SIGTERM or SIGINT ends it cleanly, SIGHUP reads the file again. PUNCTUAL_LOG sets the log level \
        (error, warn, info, debug; for a module: info,ledger=debug), and `punctual log-level` changes it later."
    )]
    Serve(ServeArguments),
    /// Check a jobs.toml and show what a reload would change
    #[command(
        after_help = "Examples:\n  punctual check\n  punctual check /etc/punctual/jobs.toml\n\n\
        Without a daemon the file is checked all the same, and compared with nothing."
    )]
    Check(CheckArguments),
    /// Create the tables of the store, or bring them to this version
    #[command(
        after_help = "Examples:\n  punctual migrate --check\n  punctual migrate --config /etc/punctual/jobs.toml\n  \
        PUNCTUAL_MIGRATE_URL=postgres://owner:secret@db/jobs punctual migrate\n\n\
        The daemon does this at its start if its database user has the right to. If not, run this command as a user \
        that has it: docs/OPERATIONS.md lists the rights that the daemon needs."
    )]
    Migrate(MigrateArguments),
    /// Run builtins in a worker process (started by a daemon)
    #[command(name = program::WORKER, hide = true)]
    Worker,
    /// Set up a command and become it (started by a daemon)
    #[command(name = program::SHIM, hide = true)]
    Exec,
    /// Start commands in a cgroup (started by a daemon)
    #[command(name = program::LAUNCHER, hide = true)]
    Launch,
    /// Commands that talk to a daemon
    #[command(flatten)]
    Client(ClientCommand),
    /// Print completions for a shell
    #[command(
        after_help = "Examples:\n  punctual completions bash > /etc/bash_completion.d/punctual\n  \
        punctual completions zsh > ~/.zfunc/_punctual\n  \
        punctual completions fish > ~/.config/fish/completions/punctual.fish\n\n\
        The Debian package installs them."
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder
    #[command(
        after_help = "Example:\n  punctual man /usr/local/share/man/man1 && man punctual-add\n\n\
        The Debian package installs them."
    )]
    Man {
        /// The folder; it is created if it does not exist
        folder: PathBuf,
    },
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// The file with settings and jobs [default: jobs.toml here, or /etc/punctual/jobs.toml if there is none here]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Demonstrate the Toutiao application with sample data; without --config with settings and jobs of its own
    #[arg(long)]
    pub demo: bool,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// The file [default: jobs.toml here, or /etc/punctual/jobs.toml if there is none here]
    #[arg(value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Commands that talk to a daemon.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Add a job
    #[command(after_help = "Examples:\n  \
        punctual add backup --cron 'hour=3' -- /usr/bin/backup --all\n  \
        punctual add sizes --every 1h --nice 10 --shell -- 'du -s /srv | sort -n'\n  \
        punctual add fix --cron 'hour=3 minute=*/20' --builtin toutiao.fix_statistics\n  \
        punctual add ping --crontab '*/5 8-18 * * mon-fri' -- /usr/bin/ping -c 1 localhost\n  \
        punctual add hook --every 1h --http https://example.org/hook --body hello\n  \
        punctual add bills --calendar 'months=1 hour=6' --start 2027-01-31 --builtin noop\n  \
        punctual add expire-42 --at '+30m' --builtin orders.expire --arg order_id=42\n  \
        punctual add tick --every 10s --timezone Asia/Shanghai --builtin noop\n\n\
        A cron field that is not given is * if it is coarser than the finest one given, else its minimum;\n\
        0 is Monday in day_of_week; all fields have to match. In a crontab expression 0 is Sunday, and of a day and a\n\
        weekday that are both given one is enough.\n\n\
        A DURATION is 10s, 90min, 1h 30m, 2 days or 500ms; a number without a unit is seconds, as in jobs.toml.\n\
        A TIME is 2026-12-06, '2026-12-06 16:30', 2026-12-06T16:30Z or with an offset such as +0800; 16:30 (the next\n\
        one), 'tomorrow 10:00', now, or +30m from now. Without an offset it is in --timezone, or else in the daemon's\n\
        zone.")]
    Add(Box<JobOptions>),
    /// Change a job: what is not given stays as it is
    #[command(after_help = "Examples:\n  \
        punctual modify backup --timeout 2h --max-attempts 3\n  \
        punctual modify backup --unset timeout --dry-run\n  \
        punctual modify backup --every 6h\n  \
        punctual modify backup --jitter 5m --env LANG=C\n  \
        punctual modify expire-42 --arg order_id=43\n\n\
        A kind of trigger (--cron, --every, …) or of task (--builtin, --http, a command) replaces the former trigger or \
        task as a whole; an option alone, such as --jitter, --arg, --cwd or --env, changes that part of it. A trigger that \
        means the same as before leaves the schedule alone. A paused job stays paused.")]
    Modify(Box<ModifyOptions>),
    /// Give a job another trigger; a paused job is resumed
    #[command(after_help = "Examples:\n  punctual reschedule backup --cron 'hour=4'\n  \
        punctual reschedule backup --every 10m --dry-run")]
    Reschedule(Box<RescheduleOptions>),
    /// Edit a job in an editor ($VISUAL, else $EDITOR, else vi)
    #[command(after_help = "Example:\n  EDITOR=nano punctual edit backup\n\n\
        Only what was changed is sent. If the daemon refuses it, or another client has changed the same option, the editor \
        opens again and a comment says why. Leave the file as it is to change nothing.")]
    Edit {
        /// The job's id
        id: String,
    },
    /// List jobs
    #[command(
        after_help = "Examples:\n  punctual list\n  punctual list --state broken,paused --tag nightly\n  \
        punctual list --prefix order: --json\n  punctual list --order next_run_time -n 20\n  \
        punctual list --next 1h\n\n\
        --next lists each time at which a job will run. With --since or --until only jobs are listed that are due in that range, the soonest first. Such a TIME is 16:30 \
        (the next one), 'tomorrow 10:00', +30m or 2026-12-06T16:30Z; without an offset it is in the daemon's zone."
    )]
    List(ListArguments),
    /// Show a job and its latest runs
    #[command(after_help = "Example:\n  punctual show backup")]
    Show {
        /// The job's id
        id: String,
    },
    /// Pause jobs: they do not fire until they are resumed, or until the pause ends
    #[command(after_help = "Examples:\n  punctual pause backup fix\n  \
        punctual pause backup --for 2h --reason 'the disk is replaced'\n  punctual pause --all --until 'tomorrow 06:00'\n  \
        punctual pause --tag nightly --dry-run\n  punctual pause --prefix order: --yes\n\n\
        A job that is paused already gets the new end; its reason stays if no other one is given.\n\
        With --all the scheduler itself pauses, also over a restart: no job fires, what waits or runs goes on, and \
        jobs can be run by hand.")]
    Pause(PauseArguments),
    /// Resume jobs, from now on
    #[command(
        after_help = "Examples:\n  punctual resume backup\n  punctual resume --tag nightly --yes\n  \
        punctual resume --all\n\n\
        With --all the scheduler itself resumes: what fell due meanwhile is late, and each job's misfire_grace_time \
        and coalesce decide what is run."
    )]
    Resume(PausedJobs),
    /// Run a job now, in addition to its schedule
    #[command(
        after_help = "Examples:\n  punctual run backup\n  punctual run backup --wait   (prints its output; \
        exit code 1 if it fails)\n\nCtrl-C ends the wait, with exit code 130; the run goes on."
    )]
    Run {
        /// The job's id
        id: String,
        /// Wait for the end, and print the output
        #[arg(long)]
        wait: bool,
        /// Print the output as it is, also to a terminal
        #[arg(long, requires = "wait")]
        raw: bool,
    },
    /// Cancel runs
    #[command(after_help = "Examples:\n  punctual cancel 019ab7c2-1b2c-7def-8abc-9f3a6e210d47\n  \
        punctual cancel 6e210d47 --reason 'wrong day'\n  punctual cancel 6e210d47 --no-wait\n\n\
        A command and all its children get SIGTERM, and SIGKILL after their grace time; a builtin is asked to end.")]
    Cancel {
        /// The runs' ids, as in `punctual runs`, or the beginning or the end of each, of at least four characters
        #[arg(required = true)]
        runs: Vec<String>,
        /// Reason to record with the run
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Do not wait for the end
        #[arg(long)]
        no_wait: bool,
    },
    /// Remove jobs; the records of their runs are kept
    #[command(
        visible_alias = "rm",
        after_help = "Examples:\n  punctual remove order:42:expire\n  punctual remove --tag demo --dry-run\n  \
        punctual remove --prefix order: --state finished --yes\n\n\
        Jobs that a file declares are left alone if the jobs are chosen by a condition: remove them from the file."
    )]
    Remove(RemovedJobs),
    /// Explain why a job ran or did not run at a time, and when it runs next
    #[command(
        after_help = "Examples:\n  punctual explain backup\n  punctual explain backup --at '2026-11-06 03:00:00'"
    )]
    Explain {
        /// The job's id
        id: String,
        /// The time, in the job's zone unless it has an offset; 03:00 alone is the last one, 2h is 2 hours ago
        /// [default: now, and so its latest occurrence]
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        at: Option<String>,
    },
    /// List runs, the newest first: what ran, how late, how it ended, what was skipped and why
    #[command(
        after_help = "Examples:\n  punctual runs\n  punctual runs backup --failed\n  punctual runs --since 1h --tag nightly\n  \
        punctual runs --state running,pending\n  punctual runs --since yesterday --until today --order oldest\n\n\
        A run can be named by a part of its id: by at least four characters of its beginning or of its end. The ids of \
        runs of the same minute begin alike, so the end is usually shorter."
    )]
    Runs(RunsArguments),
    /// Print the output of a run, or of a job's own latest run
    #[command(
        after_help = "Examples:\n  punctual logs backup\n  punctual logs backup --follow --timestamps\n  \
        punctual logs 6e210d47 --attempt 1\n\n\
        With --follow the lines come as they are written, over all attempts that follow, and with --json as JSON lines. \
        It ends when the run has: exit code 0 if it succeeded, else 1. What a run on another daemon of the same store \
        writes is there when its attempt has ended."
    )]
    Logs(LogsArguments),
    /// Show the daemon: health, version, store, jobs, executors, next wake-up
    #[command(
        after_help = "Examples:\n  punctual status\n  punctual status --json | jq .health\n\n\
        The exit code is for monitors: 0 if the daemon is well, 1 if it is degraded (health names the reasons), 3 if none \
        answers."
    )]
    Status,
    /// Show the executors: their workers, what waits for them, and what they run
    #[command(after_help = "Examples:\n  punctual executors\n  punctual executors --json\n\n\
        On a store that several daemons share, it also shows how much the others run.")]
    Executors,
    /// Show or change what the daemon logs, until it ends
    #[command(
        after_help = "Examples:\n  punctual log-level\n  punctual log-level debug --for 10m\n  \
        punctual log-level info,ledger=debug\n  punctual log-level --reset\n\n\
        A FILTER is a level (error, warn, info, debug, trace or off), MODULE=LEVEL, or several of them with commas, as \
        in PUNCTUAL_LOG. Among the modules are punctual itself, ledger (the ends of runs) and audit (control requests). \
        What it does not name keeps its default. It cannot hide control requests, warnings or errors that the daemon \
        logs since its start: PUNCTUAL_LOG in the environment of the daemon can."
    )]
    LogLevel(LogLevelArguments),
    /// Show the next times of a trigger; no daemon is needed
    #[command(after_help = "Examples:\n  \
        punctual preview --cron 'day=\"3rd fri\" hour=0-3' --timezone Asia/Shanghai\n  \
        punctual preview --crontab '30 2 * * *' --timezone Europe/Berlin --after 2027-03-26T00:00:00Z\n  \
        punctual preview --every 90m --start '2026-11-06 09:00:00'\n  \
        echo '{\"op\":\"preview\",\"trigger\":{\"type\":\"cron\",\"hour\":3},\"count\":2}' | punctual preview --batch")]
    Preview(Box<PreviewArguments>),
    /// Import the lines of a crontab as jobs
    #[command(after_help = "Examples:\n  \
        crontab -l | punctual import --crontab - --dry-run\n  \
        punctual import --crontab /etc/crontab --system\n\n\
        A dry run shows for each line when cron would run it next, and when Punctual would. What cannot be translated is \
        named with its line, and nothing is imported, except with --partial. A second import of the same crontab changes \
        nothing; jobs whose lines are gone stay (punctual list --tag crontab).")]
    Import(ImportArguments),
    /// Make the daemon read its jobs.toml again
    #[command(after_help = "Example:\n  punctual check && punctual reload")]
    Reload {
        /// Reload even if the file declares no jobs any more, which removes those that it declared before
        #[arg(long)]
        force: bool,
    },
}

/// Arguments of `pause`.
#[derive(Debug, Args)]
pub struct PauseArguments {
    #[command(flatten)]
    pub(super) chosen: PausedJobs,
    /// Why: it is shown with what is paused
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Resume by itself after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = seconds, conflicts_with = "until")]
    time: Option<Number>,
    /// Resume by itself at this time, such as 16:30 (the next one), 'tomorrow 06:00', '2026-12-06 16:30'; without an
    /// offset it is in the daemon's zone
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl PauseArguments {
    /// Whether the pause ends by itself.
    pub(super) fn has_end(&self) -> bool {
        self.time.is_some() || self.until.is_some()
    }

    /// The terms of the pause, as they are sent.
    pub(super) fn terms(&self) -> Value {
        json!({"reason": self.reason, "for": self.time, "until": self.until})
    }
}

/// Arguments of `log-level`.
#[derive(Debug, Args)]
pub struct LogLevelArguments {
    /// The new filter, such as debug or info,ledger=debug [default: show the current one]
    pub filter: Option<String>,
    /// Return to the filter of the daemon's start after this time, at most a week [default: when the daemon ends]
    #[arg(long = "for", value_name = "DURATION", requires = "filter", value_parser = seconds)]
    pub time: Option<Number>,
    /// Return to the filter of the daemon's start
    #[arg(long, conflicts_with = "filter")]
    pub reset: bool,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct LogsArguments {
    /// A run's id, or at least four characters of its beginning or its end; or a job's id
    pub run: String,
    /// Follow the output until the run has ended
    #[arg(long, short)]
    pub follow: bool,
    /// Output of this attempt, or with --follow from it on [default: the latest]
    #[arg(long, value_name = "NUMBER")]
    pub attempt: Option<u32>,
    /// Show when each line was written, and to which stream
    #[arg(long, short)]
    pub timestamps: bool,
    /// Print the output as it is, also to a terminal [default: escape control characters there, except colours]
    #[arg(long)]
    pub raw: bool,
}

impl LogsArguments {
    pub(super) fn query(&self) -> String {
        query(&[("attempt", self.attempt.map(|attempt| attempt.to_string()))])
    }
}

/// Arguments of `preview`.
#[derive(Debug, Args)]
pub struct PreviewArguments {
    /// How many times to show
    #[arg(long, default_value_t = 10)]
    pub count: usize,
    /// Show times after this one [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub after: Option<String>,
    /// Answer JSON lines from the standard input, one each
    #[arg(long, conflicts_with_all = ["when", "count", "after"])]
    pub batch: bool,
    #[command(flatten, next_help_heading = "When")]
    pub trigger: TriggerOptions,
}

/// Arguments of `migrate`.
#[derive(Debug, Args)]
pub struct MigrateArguments {
    /// The file whose table `store` names the database [default: jobs.toml here, or /etc/punctual/jobs.toml if there is
    /// none here]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["url", "url_file"])]
    pub config: Option<PathBuf>,
    /// The database, instead of the one in the file, for example with another user. Pass a password by the variable or
    /// by --url-file: everyone on the machine can read arguments
    #[arg(long, value_name = "URL", env = "PUNCTUAL_MIGRATE_URL", hide_env_values = true)]
    pub url: Option<String>,
    /// A file with the URL of the database
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    pub url_file: Option<PathBuf>,
    /// Change nothing; show what would be done, with exit code 1 if a migration is needed
    #[arg(long)]
    pub check: bool,
}
