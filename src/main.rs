//! The `punctual` program: parses the command line and calls the command.

use std::process::ExitCode;

use punctual::cli::{CliArguments, Verb};
use punctual::{cli, daemon};

/// For every request and every run, memory is allocated by one thread and freed by another. This allocator does that in
/// about two thirds of the time of the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let CliArguments { client, verb } = match cli::parse() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match verb {
        Verb::Serve(serve) => daemon::serve(serve.config, serve.demo, client),
        Verb::Check(check) => daemon::check(check.config, &client),
        Verb::Migrate(migrate) => daemon::migrate(migrate, &client),
        Verb::Completions { shell } => cli::completions(&client, shell),
        Verb::Man { folder } => cli::man(&client, &folder),
        Verb::Worker => daemon::worker(),
        Verb::Exec => daemon::exec(),
        Verb::Launch => daemon::launch(),
        Verb::Client(command) => cli::run(&client, command),
    }
}
