//! Arguments of `migrate`.

use std::path::PathBuf;

use clap::Args;

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
