//! The flags of the policy options: `job/policy.rs` describes them. The struct is the JSON that is sent.
#![expect(clippy::doc_markdown, reason = "these comments are the help text, which is not Markdown")]

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;
use serde_json::{Number, Value, json};

use super::values::{self, seconds};
use crate::job::{Coalesce, OnCrash, OnFinish, Overlap};

/// When a run is late, busy, interrupted, fails or is the last one.
#[derive(Debug, Clone, Default, Args, Serialize)]
#[command(next_help_heading = "How")]
pub(super) struct PolicyOptions {
    /// Latest start after the due time; later occurrences are recorded as missed [default: no limit]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    misfire_grace_time: Option<Number>,
    /// Which of several missed occurrences to run
    #[arg(long, value_name = "RULE", value_parser = PossibleValuesParser::new(Coalesce::WORDS))]
    coalesce: Option<String>,
    /// Maximum number of runs of this job at the same time [default: 1]
    #[arg(long, value_name = "N")]
    max_instances: Option<u32>,
    /// What to do with an occurrence beyond --max-instances: skip it, queue it until a run ends, or replace the oldest
    /// run [default: skip]
    #[arg(long, value_name = "RULE", value_parser = PossibleValuesParser::new(Overlap::WORDS))]
    overlap: Option<String>,
    /// Finish the job after N occurrences
    #[arg(long, value_name = "N")]
    max_runs: Option<u64>,
    /// What to do with a run that a crash of the daemon interrupted: run it again, or record it as lost [default: rerun]
    #[arg(long, value_name = "RULE", value_parser = PossibleValuesParser::new(OnCrash::WORDS))]
    on_crash: Option<String>,
    /// End an attempt that takes longer than this [default: no limit]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    timeout: Option<Number>,
    #[command(flatten)]
    retry: RetryOptions,
    /// Among the runs that wait for a worker, those of the highest priority start first [default: 0]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    priority: Option<i32>,
    /// Whether a finished job is removed at once or kept [default: removed after finished_jobs_seconds]
    #[arg(long, value_name = "RULE", value_parser = PossibleValuesParser::new(OnFinish::WORDS))]
    on_finish: Option<String>,
    #[command(flatten, next_help_heading = "Notifications")]
    #[serde(flatten)]
    notifications: NotificationOptions,
}

/// When a failed run is tried again.
#[derive(Debug, Clone, Default, Args, Serialize)]
struct RetryOptions {
    /// Retry a run that fails, up to N attempts in all
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// Delay before the second attempt [default: 1s]
    #[arg(long = "retry-delay", value_name = "DURATION", value_parser = seconds, requires = "max_attempts")]
    delay: Option<Number>,
    /// Factor by which each further delay is longer [default: 2]
    #[arg(long = "retry-backoff", value_name = "FACTOR", requires = "max_attempts")]
    backoff: Option<f64>,
    /// Maximum delay between attempts [default: 1h]
    #[arg(long = "retry-max-delay", value_name = "DURATION", value_parser = seconds, requires = "max_attempts")]
    max_delay: Option<Number>,
}

/// What reports how runs end.
#[derive(Debug, Clone, Default, Args, Serialize)]
struct NotificationOptions {
    /// Run this when a run has failed for good: a line for the shell, or a task in its JSON form
    #[arg(long, value_name = "TASK", value_parser = hook)]
    on_failure: Option<Value>,
    /// Run the task of --on-failure only for the first failure since the last success
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    on_failure_once: bool,
    /// Run this when a run has succeeded after one that failed
    #[arg(long, value_name = "TASK", value_parser = hook)]
    on_recovery: Option<Value>,
    /// Run this when a run has succeeded
    #[arg(long, value_name = "TASK", value_parser = hook)]
    on_success: Option<Value>,
    /// Run this when an occurrence was too late to run
    #[arg(long, value_name = "TASK", value_parser = hook)]
    on_missed: Option<Value>,
    /// Ping this URL when a run starts, succeeds or fails, as healthchecks.io expects it
    #[arg(long, value_name = "URL")]
    heartbeat: Option<String>,
}

/// Reads a task in its JSON form, or a line for the shell.
fn hook(text: &str) -> Result<Value, String> {
    if !text.trim_start().starts_with('{') {
        return Ok(json!({"type": "command", "shell": text}));
    }
    values::json(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        policy: PolicyOptions,
    }

    #[test]
    fn what_is_typed_becomes_the_keys_of_a_job() {
        let parse = |words: &[&str]| Flags::try_parse_from([&["add"], words].concat());
        let given = [
            "--timeout",
            "1h",
            "--max-attempts",
            "3",
            "--retry-delay",
            "500ms",
            "--priority",
            "-2",
            "--on-failure",
            "mail -s failed ops",
            "--on-success",
            r#"{"type": "builtin", "name": "noop"}"#,
        ];
        assert_eq!(
            values::given(&parse(&given).unwrap().policy).unwrap(),
            json!({
                "timeout": 3600,
                "retry": {"max_attempts": 3, "delay": 0.5},
                "priority": -2,
                "on_failure": {"type": "command", "shell": "mail -s failed ops"},
                "on_success": {"type": "builtin", "name": "noop"},
            })
        );
        assert!(parse(&["--on-missed", "{x"]).is_err());
    }
}
