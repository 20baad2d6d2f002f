//! The options that define a job, as `add` and `modify` take them. Each file holds the flags of one part of a job, and its struct
//! serializes to the JSON of that part: what clap has read is what is sent, without the options that were not given.

mod command;
mod http;
mod modify;
mod policy;
mod task;
mod trigger;
mod values;

pub(super) use modify::{ModifyOptions, RescheduleOptions};
pub(super) use trigger::TriggerOptions;
pub(super) use values::seconds;

use clap::{ArgGroup, Args};
use serde::Serialize;
use serde_json::Value;

use super::error::CliError;
use policy::PolicyOptions;
use task::TaskOptions;

/// A job: the arguments of `add`.
#[derive(Debug, Args, Serialize)]
#[command(group = ArgGroup::new("what").args(["builtin", "command", "url"]).required(true))]
pub struct JobOptions {
    /// The job's id
    id: String,
    #[command(flatten, next_help_heading = "When")]
    pub(super) trigger: TriggerOptions,
    #[command(flatten)]
    task: TaskOptions,
    /// Pool to run in [default: the one that fits the task]
    #[arg(long, value_name = "NAME", help_heading = "How")]
    executor: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    policy: PolicyOptions,
    /// Run first at this time, whatever the trigger says (as in --at)
    #[arg(long, value_name = "TIME", help_heading = "How", conflicts_with = "paused")]
    next_run_time: Option<String>,
    /// Start paused
    #[arg(long, help_heading = "How")]
    paused: bool,
    /// Redefine a job of the same id; its schedule goes on if the trigger is the same
    #[arg(long = "replace", help_heading = "How")]
    pub(super) replace_existing: bool,
    /// Name for people
    #[arg(long, help_heading = "Labels")]
    name: Option<String>,
    /// Label to select jobs by; can be given again
    #[arg(long = "tag", value_name = "TAG", help_heading = "Labels")]
    tags: Vec<String>,
    /// Free text
    #[arg(long, value_name = "TEXT", help_heading = "Labels")]
    description: Option<String>,
}

impl JobOptions {
    /// The definition of the job, as it is sent.
    pub(super) fn to_json(&self) -> Result<Value, CliError> {
        self.trigger.check()?;
        self.task.check()?;
        values::given(self)
    }

    /// The times that were given, each with its option.
    pub(super) fn times_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut String)> {
        let first = self.next_run_time.as_mut().map(|time| ("--next-run-time", time));
        self.trigger.times_mut().chain(first)
    }
}
