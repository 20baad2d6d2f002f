//! How a command is started and ended, on the command line.
#![expect(clippy::doc_markdown, reason = "these comments are the help text, which is not Markdown")]

use clap::Args;

/// What a command may be given beside its words.
#[derive(Debug, Default, Args)]
pub struct CommandArguments {
    /// The one word after -- is a script for /bin/sh
    #[arg(long, help_heading = "Command")]
    pub shell: bool,
    /// Variable added to its environment
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Command")]
    pub env: Vec<String>,
    /// The same, read for each run from a place: env:VARIABLE, file:PATH or credential:NAME; hidden in the output
    #[arg(long, value_name = "NAME=PLACE", help_heading = "Command")]
    pub secret_env: Vec<String>,
    /// Working directory
    #[arg(long, value_name = "DIR", help_heading = "Command")]
    pub cwd: Option<String>,
    /// What it reads
    #[arg(long, value_name = "TEXT", help_heading = "Command", allow_hyphen_values = true)]
    pub stdin: Option<String>,
    /// User that it runs as; only a daemon with the rights of root accepts others than its own [default: the daemon's]
    #[arg(long, value_name = "USER", help_heading = "Command")]
    pub user: Option<String>,
    /// In which group [default: the user's own]
    #[arg(long, value_name = "GROUP", help_heading = "Command")]
    pub group: Option<String>,
    /// Permissions that files it makes do not get, such as 027
    #[arg(long, value_name = "OCTAL", help_heading = "Command")]
    pub umask: Option<String>,
    /// How far it stands back behind other processes: -20 to 19
    #[arg(long, value_name = "N", help_heading = "Command", allow_negative_numbers = true)]
    pub nice: Option<i32>,
    /// Address space of each of its processes: bytes, or 512M, 2G
    #[arg(long, value_name = "SIZE", help_heading = "Command")]
    pub memory: Option<String>,
    /// Time on processors of each of its processes
    #[arg(long, value_name = "DURATION", help_heading = "Command")]
    pub cpu_time: Option<String>,
    /// Open files of each of its processes
    #[arg(long, value_name = "N", help_heading = "Command")]
    pub open_files: Option<u64>,
    /// Memory of all its processes together: bytes, or 512M, 2G; the daemon needs a cgroup for this
    #[arg(long, value_name = "SIZE", help_heading = "Command")]
    pub total_memory: Option<String>,
    /// Processes and threads at a time; the daemon needs a cgroup for this
    #[arg(long, value_name = "N", help_heading = "Command")]
    pub processes: Option<u64>,
    /// Processor cores that all its processes together may keep busy, such as 0.5; the daemon needs a cgroup for this
    #[arg(long, value_name = "N", help_heading = "Command")]
    pub cores: Option<f64>,
    /// Exit code that means success; can be given again [default: 0]
    #[arg(long = "success-code", value_name = "N", help_heading = "Command")]
    pub success_codes: Vec<i32>,
    /// Exit code after which trying again cannot help; can be given again
    #[arg(long = "no-retry-code", value_name = "N", help_heading = "Command")]
    pub no_retry_codes: Vec<i32>,
    /// Time to end when it is cancelled or takes too long, before it is killed [default: 5s]
    #[arg(long, value_name = "DURATION", help_heading = "Command")]
    pub kill_grace: Option<String>,
}
