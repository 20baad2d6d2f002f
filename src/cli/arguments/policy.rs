//! How a job's runs are limited, tried again and told of, on the command line.

use clap::Args;

/// Limits, retries, and who is told.
#[derive(Debug, Clone, Default, Args)]
pub struct PolicyArguments {
    /// End an attempt that takes longer than this [default: however long]
    #[arg(long, value_name = "DURATION", help_heading = "How")]
    pub timeout: Option<String>,
    /// Try a run that fails again, up to N attempts in all
    #[arg(long, value_name = "N", help_heading = "How")]
    pub max_attempts: Option<u32>,
    /// Wait this long before the second attempt [default: 1s]
    #[arg(long, value_name = "DURATION", help_heading = "How", requires = "max_attempts")]
    pub retry_delay: Option<String>,
    /// Each further wait is longer by this factor [default: 2]
    #[arg(long, value_name = "FACTOR", help_heading = "How", requires = "max_attempts")]
    pub retry_backoff: Option<f64>,
    /// Up to this [default: 1h]
    #[arg(long, value_name = "DURATION", help_heading = "How", requires = "max_attempts")]
    pub retry_max_delay: Option<String>,
    /// Of the runs that wait for a worker, those of the highest come first [default: 0]
    #[arg(long, value_name = "N", help_heading = "How", allow_hyphen_values = true)]
    pub priority: Option<i32>,
    /// Run this when a run has failed for good: a line for the shell, or a task in its JSON form
    #[arg(long, value_name = "TASK", help_heading = "Hooks and heartbeat")]
    pub on_failure: Option<String>,
    /// Run the hook of --on-failure only for the first failure since a run has succeeded
    #[arg(long, help_heading = "Hooks and heartbeat")]
    pub on_failure_once: bool,
    /// Run this when a run has succeeded after one that failed
    #[arg(long, value_name = "TASK", help_heading = "Hooks and heartbeat")]
    pub on_recovery: Option<String>,
    /// Run this when a run has succeeded
    #[arg(long, value_name = "TASK", help_heading = "Hooks and heartbeat")]
    pub on_success: Option<String>,
    /// Run this when an occurrence was too late to run
    #[arg(long, value_name = "TASK", help_heading = "Hooks and heartbeat")]
    pub on_missed: Option<String>,
    /// Ping this URL when a run starts, succeeds or fails, as healthchecks.io understands it
    #[arg(long, value_name = "URL", help_heading = "Hooks and heartbeat")]
    pub heartbeat: Option<String>,
    /// Once the job is finished, remove it at once or keep it [default: removed after `[retention]` finished_jobs_seconds]
    #[arg(long, value_name = "WHAT", help_heading = "How", value_parser = ["remove", "keep"])]
    pub on_finish: Option<String>,
}
