//! Completions for shells and manual pages, generated from the description of the command line.

use std::path::Path;
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use serde_json::json;

use super::console::{Console, line};
use super::{CliArguments, CliError, ClientArguments};
use crate::printable::escaped;
use crate::program;

/// Prints the completions for a shell.
pub fn completions(arguments: &ClientArguments, shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(
        shell,
        &mut without_hidden(&CliArguments::command()),
        program::NAME,
        &mut script,
    );
    arguments.console().report(line(String::from_utf8_lossy(&script).trim_end()))
}

/// The command line without the commands that only the daemon uses: completions would offer them.
fn without_hidden(all: &Command) -> Command {
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    Command::new(program::NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .args(all.get_arguments().cloned())
        .subcommands(shown)
}

/// Writes a manual page of the program, and one of each command, into a folder.
pub fn man(arguments: &ClientArguments, folder: &Path) -> ExitCode {
    let console = arguments.console();
    console.report(write_pages(folder, &console))
}

fn write_pages(folder: &Path, console: &Console) -> Result<(), CliError> {
    let name = folder.display().to_string();
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| write_page_of_each(CliArguments::command(), folder));
    written.map_err(|error| CliError::Refused(format!("{name}: {error}")))?;
    console
        .show(&json!({"folder": name}), |_| format!("wrote the manual pages to {}", escaped(&name)))
}

/// Writes a page of a command and of each of its commands.
fn write_page_of_each(command: Command, folder: &Path) -> std::io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    for own in command.get_subcommands().filter(|own| !own.is_hide_set()) {
        write_page(own.clone(), folder)?;
    }
    write_page(command, folder)
}

/// Writes the page of one command. Its synopsis is the usage of the help: the options are listed below it, with their
/// values.
fn write_page(mut command: Command, folder: &Path) -> std::io::Result<()> {
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_owned();
    let version = format!("{} {}", program::NAME, env!("CARGO_PKG_VERSION"));
    let page = Man::new(command.override_usage(usage)).source(version);
    page.generate_to(folder).map(drop)
}
