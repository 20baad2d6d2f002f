//! The options that select jobs and runs, which are the same for lists and for what is done to many jobs.
#![expect(clippy::doc_markdown, reason = "these comments are the help text, which is not Markdown")]

use clap::Args;

use super::options::seconds;
use crate::client::percent_encode;
use crate::filter::{JobOrder, PAGE_LIMIT, RetentionClass, RunOrder};
use crate::job::JobState;
use crate::run::RunState;
use crate::trigger::Trigger;

/// A pair of a query.
type Pair = (&'static str, Option<String>);

/// The options by which jobs are selected, as clap names them.
const CONDITIONS: [&str; 6] = ["state", "tag", "prefix", "executor", "trigger_type", "all_jobs"];
/// The options that mean nothing without these.
const OF_BULK: [&str; 2] = ["yes", "dry_run"];

/// Conditions on jobs.
#[derive(Debug, Args)]
pub(super) struct JobConditionOptions {
    /// Only jobs with this tag
    #[arg(long, value_parser = not_empty)]
    tag: Option<String>,
    /// Only jobs whose id begins with this
    #[arg(long, value_name = "TEXT", value_parser = not_empty)]
    prefix: Option<String>,
    /// Only jobs of this executor
    #[arg(long, value_name = "NAME", value_parser = not_empty)]
    executor: Option<String>,
    /// Only jobs with a trigger of this type
    #[arg(long, value_name = "TYPE", value_parser = Trigger::type_names())]
    trigger_type: Option<String>,
}

impl JobConditionOptions {
    fn pairs(&self) -> [Pair; 4] {
        [
            ("tag", self.tag.clone()),
            ("prefix", self.prefix.clone()),
            ("executor", self.executor.clone()),
            ("trigger_type", self.trigger_type.clone()),
        ]
    }

    fn is_empty(&self) -> bool {
        self.pairs().iter().all(|(_, value)| value.is_none())
    }
}

/// A page of a list.
#[derive(Debug, Args)]
pub struct PageOptions {
    /// Continue where the previous page of the same list ended (its next_cursor)
    #[arg(long)]
    cursor: Option<String>,
    /// Show the list again whenever it may have changed, until Ctrl-C
    #[arg(long, short = 'f')]
    pub watch: bool,
}

impl PageOptions {
    fn pairs(&self, limit: usize) -> [Pair; 2] {
        [("limit", Some(limit.to_string())), ("cursor", self.cursor.clone())]
    }
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArguments {
    /// Only jobs that are active, paused, finished or broken; several with commas
    #[arg(long, value_parser = JobState::WORDS, value_delimiter = ',')]
    state: Vec<String>,
    #[command(flatten)]
    conditions: JobConditionOptions,
    /// Only jobs that are due at or after this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Only jobs that are due before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Everything that will run from now on for this long, in the order of time; late jobs come first
    #[arg(long, value_name = "DURATION", value_parser = span, conflicts_with_all = ["since", "until", "order"])]
    pub next: Option<String>,
    /// The order of the list [default: next_run_time with --since or --until, else id]
    #[arg(long, value_parser = JobOrder::WORDS.to_vec())]
    pub order: Option<String>,
    /// Maximum number of rows, up to 1000
    #[arg(long, short = 'n', default_value_t = 100, value_parser = limit)]
    limit: usize,
    #[command(flatten)]
    pub page: PageOptions,
}

/// The most instants that `list --next` shows for one job.
const UPCOMING: usize = 20;

impl ListArguments {
    pub(super) fn query(&self) -> String {
        let (mut until, mut order, mut upcoming) = (self.until.clone(), self.order.clone(), None);
        if let Some(next) = &self.next {
            until = Some(format!("in {next}"));
            order = Some(JobOrder::NextRunTime.word().to_owned());
            upcoming = Some(UPCOMING.to_string());
        }
        let mut pairs = vec![("state", joined(&self.state))];
        pairs.extend(self.conditions.pairs());
        pairs.extend([
            ("since", self.since.clone()),
            ("until", until),
            ("order", order),
            ("upcoming", upcoming),
        ]);
        pairs.extend(self.page.pairs(self.limit));
        query(&pairs)
    }
}

/// Arguments of `runs`.
#[derive(Debug, Args)]
pub struct RunsArguments {
    /// Only runs of this job; or one run by its id or a part of it, with its attempts
    #[arg(value_name = "JOB|RUN")]
    pub(super) name: Option<String>,
    /// Leave out the runs of hooks (on_failure, on_recovery, on_success, on_missed)
    #[arg(long)]
    no_hooks: bool,
    /// Only runs in this state; several with commas
    #[arg(long, value_parser = RunState::WORDS, value_delimiter = ',')]
    state: Vec<String>,
    /// Only runs that failed, timed out or were lost
    #[arg(long, conflicts_with = "state")]
    failed: bool,
    #[command(flatten)]
    conditions: JobConditionOptions,
    /// Only runs since this time, such as 12h (ago), yesterday, 16:30, 2026-11-28, '2026-11-28 20:00'
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(super) since: Option<String>,
    /// Only runs before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(super) until: Option<String>,
    /// The order of the list
    #[arg(long, value_parser = RunOrder::WORDS.to_vec(), default_value = RunOrder::Newest.word())]
    order: String,
    /// Maximum number of rows, up to 1000
    #[arg(long, short = 'n', default_value_t = 30, value_parser = limit)]
    limit: usize,
    #[command(flatten)]
    pub page: PageOptions,
}

impl RunsArguments {
    /// The query, with its times as they are sent.
    pub(super) fn query(&self, since: Option<String>, until: Option<String>) -> String {
        let state = if self.failed {
            Some(RetentionClass::Errors.states().join(","))
        } else {
            joined(&self.state)
        };
        let order = Some(self.order.clone()).filter(|order| order != RunOrder::Newest.word());
        let mut pairs = vec![
            ("job", self.name.clone()),
            ("hooks", self.no_hooks.then(|| "false".to_owned())),
            ("state", state),
        ];
        pairs.extend(self.conditions.pairs());
        pairs.extend([("since", since), ("until", until), ("order", order)]);
        pairs.extend(self.page.pairs(self.limit));
        query(&pairs)
    }

    /// Whether it selects runs by more than a name.
    pub(super) fn has_conditions(&self) -> bool {
        !self.conditions.is_empty()
            || self.failed
            || !self.state.is_empty()
            || self.since.is_some()
            || self.until.is_some()
    }
}

/// What is done to jobs that are chosen by conditions.
#[derive(Debug, Args)]
pub struct BulkOptions {
    /// Only jobs that are active, paused, finished or broken; several with commas
    #[arg(long, value_parser = JobState::WORDS, value_delimiter = ',')]
    state: Vec<String>,
    #[command(flatten)]
    conditions: JobConditionOptions,
    /// All jobs
    #[arg(long, conflicts_with_all = ["state", "tag", "prefix", "executor", "trigger_type"])]
    all_jobs: bool,
    /// Do not ask before jobs are changed that were chosen by a condition; needed where no terminal can ask
    #[arg(long, short = 'y', conflicts_with = "dry_run")]
    pub yes: bool,
    /// Only show which jobs would be changed
    #[arg(long)]
    pub dry_run: bool,
}

impl BulkOptions {
    /// Whether jobs are chosen by conditions.
    pub(super) fn is_given(&self) -> bool {
        self.all_jobs || !self.state.is_empty() || !self.conditions.is_empty()
    }

    pub(super) fn query(&self) -> String {
        let mut pairs = vec![("state", joined(&self.state))];
        pairs.extend(self.conditions.pairs());
        pairs.push(("all", self.all_jobs.then(|| "true".to_owned())));
        query(&pairs)
    }
}

/// Which jobs to pause or resume, or the scheduler as a whole.
#[derive(Debug, Args)]
pub struct PausedJobs {
    /// The jobs' ids
    #[arg(
        required_unless_present_any = CONDITIONS.into_iter().chain(["all"]),
        conflicts_with_all = CONDITIONS.into_iter().chain(OF_BULK)
    )]
    pub ids: Vec<String>,
    /// The scheduler as a whole instead of single jobs
    #[arg(long, conflicts_with_all = CONDITIONS.into_iter().chain(OF_BULK).chain(["ids"]))]
    pub all: bool,
    #[command(flatten)]
    pub bulk: BulkOptions,
}

/// Which jobs to remove.
#[derive(Debug, Args)]
pub struct RemovedJobs {
    /// The jobs' ids
    #[arg(
        required_unless_present_any = CONDITIONS,
        conflicts_with_all = CONDITIONS.into_iter().chain(OF_BULK)
    )]
    pub ids: Vec<String>,
    #[command(flatten)]
    pub bulk: BulkOptions,
}

/// The pairs with a value as the query of a URL.
pub(super) fn query(pairs: &[Pair]) -> String {
    let given = pairs
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", percent_encode(value.as_ref()?))));
    given.collect::<Vec<_>>().join("&")
}

/// Words with commas between them; none if there is no word.
fn joined(words: &[String]) -> Option<String> {
    Some(words.join(",")).filter(|words| !words.is_empty())
}

/// Refuses an empty text: in a script, it may be a variable that is not set.
fn not_empty(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("must not be empty") } else { Ok(text.to_owned()) }
}

/// Checks a duration, and keeps it as it was typed.
fn span(text: &str) -> Result<String, String> {
    seconds(text).map(|_| text.trim().to_owned())
}

/// Reads how many rows a page has.
fn limit(text: &str) -> Result<usize, String> {
    let rows = text.parse::<usize>().ok().filter(|rows| (1..=PAGE_LIMIT).contains(rows));
    rows.ok_or_else(|| format!("must be a number between 1 and {PAGE_LIMIT}; --cursor goes on"))
}
