//! What a job is made of on the command line: when, what and how.
#![expect(clippy::doc_markdown, reason = "these comments are the help text, which is not Markdown")]

use clap::{ArgGroup, Args};

use super::call::CallArguments;
use super::command::CommandArguments;
use super::policy::PolicyArguments;

/// When: exactly one kind of trigger.
#[derive(Debug, Clone, Default, Args)]
#[command(group = ArgGroup::new("when").args(["cron", "crontab", "every", "calendar", "at", "trigger"]))]
pub struct TriggerArguments {
    /// Calendar fields: year month day week day_of_week hour minute second
    #[arg(long, value_name = "FIELDS", help_heading = "When")]
    pub cron: Option<String>,
    /// A crontab expression, such as '*/5 8-18 * * mon-fri', or @daily; 0 and 7 are Sunday
    #[arg(long, value_name = "EXPRESSION", help_heading = "When")]
    pub crontab: Option<String>,
    /// A fixed interval, such as 10s, 90min, 1h 30m, 2d; a number without a unit is seconds
    #[arg(long, value_name = "DURATION", help_heading = "When")]
    pub every: Option<String>,
    /// Steps of the calendar from --start on, and a time of day: years months weeks days hour minute second
    #[arg(long, value_name = "STEPS", help_heading = "When")]
    pub calendar: Option<String>,
    /// Once: '2026-12-06 16:30', 2026-12-06T16:30Z, 16:30, 'tomorrow 10:00', +30m from now, or now
    #[arg(long, value_name = "TIME", help_heading = "When", allow_hyphen_values = true)]
    pub at: Option<String>,
    /// A trigger in its JSON form
    #[arg(long, value_name = "JSON", help_heading = "When")]
    pub trigger: Option<String>,
    /// Time zone: a name such as Europe/Berlin, an offset such as +05:30, or UTC
    #[arg(long, value_name = "ZONE", help_heading = "When", allow_hyphen_values = true)]
    pub timezone: Option<String>,
    /// Earliest time (inclusive); of an interval, the time from which it counts
    #[arg(long, value_name = "TIME", help_heading = "When", allow_hyphen_values = true)]
    pub start: Option<String>,
    /// Latest time (inclusive); a date without a time is that whole day
    #[arg(long, value_name = "TIME", help_heading = "When", allow_hyphen_values = true)]
    pub end: Option<String>,
    /// Delay each occurrence by up to this long
    #[arg(long, value_name = "DURATION", help_heading = "When")]
    pub jitter: Option<String>,
    /// A local time that the clock skips in spring: skip it, or shift it to the end of the gap [default: skip;
    /// of --crontab as cron(8): shift a fixed minute and hour]
    #[arg(long, value_name = "RULE", value_parser = ["skip", "shift"], help_heading = "When")]
    pub dst_gap: Option<String>,
    /// A local time that the clock shows twice in autumn: both, or the first only [default: both;
    /// of --calendar first; of --crontab as cron(8): the first of a fixed minute and hour]
    #[arg(long, value_name = "RULE", value_parser = ["both", "first"], help_heading = "When")]
    pub dst_fold: Option<String>,
}

/// Arguments of `add`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["builtin", "command", "url"]).required(true))]
pub struct AddArguments {
    /// The job's id
    pub id: String,
    /// When it is due.
    #[command(flatten)]
    pub when: TriggerArguments,
    /// Run a builtin
    #[arg(long, value_name = "NAME", help_heading = "What", conflicts_with = "CommandArguments")]
    pub builtin: Option<String>,
    /// Argument of the builtin; JSON if it can be read as such, else text
    #[arg(
        long = "arg",
        value_name = "NAME=VALUE",
        help_heading = "What",
        requires = "builtin",
        conflicts_with = "command"
    )]
    pub args: Vec<String>,
    /// Run a command (no shell, unless --shell is given): everything after --
    #[arg(last = true, value_name = "COMMAND", help_heading = "What")]
    pub command: Vec<String>,
    /// How the command is started and ended.
    #[command(flatten)]
    pub options: CommandArguments,
    /// The URL that it calls, and how.
    #[command(flatten)]
    pub call: CallArguments,
    /// Pool to run in [default: the one that fits the task]
    #[arg(long, value_name = "NAME", help_heading = "How")]
    pub executor: Option<String>,
    /// Run no later than this after the due time, else record it as missed [default: however late]
    #[arg(long, value_name = "DURATION", help_heading = "How")]
    pub misfire_grace_time: Option<String>,
    /// Of several missed occurrences run the latest, the earliest, or all
    #[arg(long, value_name = "RULE", value_parser = ["latest", "earliest", "all"], help_heading = "How")]
    pub coalesce: Option<String>,
    /// Runs at the same time [default: 1]
    #[arg(long, value_name = "N", help_heading = "How")]
    pub max_instances: Option<u32>,
    /// An occurrence while that many run: skip it, queue it until one ends, or replace the oldest [default: skip]
    #[arg(long, value_name = "RULE", value_parser = ["skip", "queue", "replace"], help_heading = "How")]
    pub overlap: Option<String>,
    /// After N occurrences the job is finished
    #[arg(long, value_name = "N", help_heading = "How")]
    pub max_runs: Option<u64>,
    /// What becomes of a run that a crash interrupts [default: rerun]
    #[arg(long, value_name = "WHAT", value_parser = ["rerun", "lose"], help_heading = "How")]
    pub on_crash: Option<String>,
    /// Limits, retries, and who is told.
    #[command(flatten)]
    pub policy: PolicyArguments,
    /// Run first at this time, whatever the trigger says (as in --at)
    #[arg(long, value_name = "TIME", help_heading = "How", conflicts_with = "paused")]
    pub next_run_time: Option<String>,
    /// Start paused
    #[arg(long, help_heading = "How")]
    pub paused: bool,
    /// Redefine a job of the same id; its schedule goes on if the trigger is the same
    #[arg(long, help_heading = "How")]
    pub replace: bool,
    /// Name for people
    #[arg(long, help_heading = "Labels")]
    pub name: Option<String>,
    /// Label to select jobs by
    #[arg(long = "tag", value_name = "TAG", help_heading = "Labels")]
    pub tags: Vec<String>,
    /// Free text
    #[arg(long, value_name = "TEXT", help_heading = "Labels")]
    pub description: Option<String>,
}
