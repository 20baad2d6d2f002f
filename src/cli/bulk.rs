//! `remove`, `pause` and `resume` of all jobs that meet conditions: with a count before, a question on a terminal, and a
//! summary of what was done.

use std::io::{BufRead, IsTerminal, Write};

use serde_json::{Value, json};

use super::console::Console;
use super::error::CliError;
use super::selection::BulkOptions;
use crate::client::{Client, ClientError, percent_encode};
use crate::printable::escaped;

/// The most ids of a dry run that people see.
const IDS_SHOWN: usize = 20;

/// What is done to the jobs.
#[derive(Debug)]
pub(super) enum Action {
    Remove,
    /// With the terms of the pause.
    Pause(Value),
    Resume,
}

impl Action {
    /// The command, and what has been done after it.
    fn words(&self) -> (&'static str, &'static str) {
        match self {
            Self::Remove => ("remove", "removed"),
            Self::Pause(_) => ("pause", "paused"),
            Self::Resume => ("resume", "resumed"),
        }
    }

    async fn call(&self, client: &Client, query: &str) -> Result<Value, ClientError> {
        match self {
            Self::Remove => client.remove_jobs(query).await,
            Self::Pause(terms) => client.pause_jobs_with(query, terms).await,
            Self::Resume => client.resume_jobs(query).await,
        }
    }
}

/// Carries out the command.
pub(super) async fn run(
    client: &Client,
    action: &Action,
    options: &BulkOptions,
    console: &Console,
) -> Result<(), CliError> {
    let (command, done) = action.words();
    let query = options.query();
    if options.dry_run {
        let answer = all_pages(client, action, &format!("{query}&dry_run=true")).await?;
        return console.show(&answer, |answer| would(command, answer));
    }
    if !options.yes && !confirm(client, action, &query).await? {
        return Err(CliError::Refused(format!("nothing was {done}")));
    }
    let answer = all_pages(client, action, &query).await?;
    console.show(&answer, |answer| summary(done, answer))?;
    let errors = answer.get("errors").and_then(Value::as_array).into_iter().flatten();
    for error in errors.filter(|_| !console.is_json()) {
        let message = error.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
        console.complain(&CliError::Refused(message.to_owned()));
    }
    match count(&answer, "refused") {
        0 => Ok(()),
        refused => Err(CliError::Quiet(format!("{refused} jobs were left alone"))),
    }
}

/// Asks on the terminal. Without one, `--yes` is needed.
async fn confirm(client: &Client, action: &Action, query: &str) -> Result<bool, CliError> {
    let (command, _) = action.words();
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        let message = format!(
            "--yes is needed to {command} jobs by a condition where no terminal can ask (--dry-run shows which jobs)"
        );
        return Err(CliError::Usage(message));
    }
    let answer = all_pages(client, action, &format!("{query}&dry_run=true")).await?;
    let question = format!("{command} {}? [y/N] ", jobs(count(&answer, "matched")));
    let mut stderr = std::io::stderr().lock();
    let asked = write!(stderr, "{question}").and_then(|()| stderr.flush());
    asked.map_err(|error| CliError::Refused(error.to_string()))?;
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|error| CliError::Refused(error.to_string()))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// Sends requests until the last one has no cursor, and adds up their answers.
async fn all_pages(client: &Client, action: &Action, query: &str) -> Result<Value, CliError> {
    let mut sum = action.call(client, query).await?;
    while let Some(cursor) = sum.get("next_cursor").and_then(Value::as_str) {
        let next = format!("{query}&cursor={}", percent_encode(cursor));
        let page = action.call(client, &next).await?;
        add_up(&mut sum, page);
    }
    Ok(sum)
}

fn add_up(sum: &mut Value, page: Value) {
    let (Value::Object(sum), Value::Object(page)) = (sum, page) else { return };
    for (key, value) in page {
        let merged = match (sum.remove(&key), value) {
            (Some(Value::Number(one)), Value::Number(other)) => {
                json!(one.as_u64().unwrap_or(0).saturating_add(other.as_u64().unwrap_or(0)))
            }
            (Some(Value::Array(mut items)), Value::Array(more)) => {
                items.extend(more);
                Value::Array(items)
            }
            (_, value) => value,
        };
        sum.insert(key, merged);
    }
}

fn count(answer: &Value, key: &str) -> u64 {
    answer.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn jobs(count: u64) -> String {
    if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") }
}

fn would(command: &str, answer: &Value) -> String {
    let ids = answer.get("ids").and_then(Value::as_array).into_iter().flatten();
    let ids =
        ids.filter_map(Value::as_str).take(IDS_SHOWN).map(|id| format!("\n  {}", escaped(id)));
    let matched = count(answer, "matched");
    let more = usize::try_from(matched).unwrap_or(usize::MAX).saturating_sub(IDS_SHOWN);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    format!("would {command} {}{}{more}", jobs(matched), ids.collect::<String>())
}

fn summary(done: &str, answer: &Value) -> String {
    let also = |key, words: &str| match count(answer, key) {
        0 => String::new(),
        number => format!("; {number} {words}"),
    };
    let changed = jobs(count(answer, "changed"));
    let (unchanged, refused) =
        (also("unchanged", "did not need it"), also("refused", "left alone"));
    format!("{done} {changed}{unchanged}{refused}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_all_requests_are_added_up() {
        let mut sum = json!({"dry_run": false, "changed": 3, "errors": [1], "next_cursor": "a"});
        add_up(
            &mut sum,
            json!({"dry_run": false, "changed": 4, "errors": [2, 3], "next_cursor": null}),
        );
        assert_eq!(
            sum,
            json!({"dry_run": false, "changed": 7, "errors": [1, 2, 3], "next_cursor": null})
        );
    }

    #[test]
    fn people_see_counts_and_the_first_ids() {
        let ids: Vec<String> = (0..22).map(|number| format!("job-{number}")).collect();
        let text = would("pause", &json!({"matched": 30, "ids": ids}));
        assert!(
            text.starts_with("would pause 30 jobs\n  job-0\n") && text.ends_with("\n  and 10 more")
        );
        assert_eq!(would("pause", &json!({"matched": 0, "ids": []})), "would pause 0 jobs");
        let answer = json!({"changed": 1, "unchanged": 2, "refused": 3});
        assert_eq!(summary("paused", &answer), "paused 1 job; 2 did not need it; 3 left alone");
        assert_eq!(summary("removed", &json!({"changed": 0})), "removed 0 jobs");
    }
}
