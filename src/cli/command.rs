//! From what was typed to the JSON of a command.

use serde_json::{Map, Value, json};

use super::add::pairs;
use super::arguments::CommandArguments;
use super::{CliError, duration};

/// The task that these words and options are.
pub(super) fn task(words: &[String], given: &CommandArguments) -> Result<Value, CliError> {
    let program = match words {
        _ if !given.shell => ("argv", json!(words)),
        [script] => ("shell", json!(script)),
        _ => {
            let why = "--shell takes one word after --: quote the script as a whole";
            return Err(CliError::Usage(why.to_owned()));
        }
    };
    let env = environment(given)?;
    let limits = limits(given)?;
    let codes = |codes: &[i32]| (!codes.is_empty()).then(|| json!(codes));
    let optional = [
        ("env", (!env.is_empty()).then_some(Value::Object(env))),
        ("cwd", given.cwd.clone().map(Value::from)),
        ("stdin", given.stdin.clone().map(Value::from)),
        ("user", given.user.clone().map(Value::from)),
        ("group", given.group.clone().map(Value::from)),
        ("umask", given.umask.clone().map(Value::from)),
        ("nice", given.nice.map(Value::from)),
        ("limits", (!limits.is_empty()).then_some(Value::Object(limits))),
        ("success_codes", codes(&given.success_codes)),
        ("no_retry_codes", codes(&given.no_retry_codes)),
        ("kill_grace", duration::given("--kill-grace", given.kill_grace.as_deref())?),
    ];
    let given = optional.into_iter().filter_map(|(key, value)| Some((key, value?)));
    let all = [("type", json!("command")), program].into_iter().chain(given);
    Ok(Value::Object(all.map(|(key, value)| (key.to_owned(), value)).collect()))
}

/// Plain variables, and those that are read from a place.
fn environment(given: &CommandArguments) -> Result<Map<String, Value>, CliError> {
    let mut env = pairs("--env", &given.env, |text| Ok(json!(text)))?;
    for (name, place) in pairs("--secret-env", &given.secret_env, |text| Ok(json!(text)))? {
        let text = place.as_str().unwrap_or_default();
        let kinds = ["env", "file", "credential"];
        let place = text.split_once(':').filter(|(kind, _)| kinds.contains(kind));
        let (kind, place) = place.ok_or_else(|| {
            CliError::Usage(format!(
                "--secret-env takes NAME=env:VARIABLE, NAME=file:PATH or NAME=credential:NAME, not \"{name}={text}\""
            ))
        })?;
        if env.insert(name.clone(), json!({ kind: place })).is_some() {
            return Err(CliError::Usage(format!("{name} is given by --env and by --secret-env")));
        }
    }
    Ok(env)
}

fn limits(given: &CommandArguments) -> Result<Map<String, Value>, CliError> {
    let number = |text: &String| text.parse::<u64>().map_or_else(|_| json!(text), Value::from);
    let limits = [
        ("memory", given.memory.as_ref().map(number)),
        ("cpu", duration::given("--cpu-time", given.cpu_time.as_deref())?),
        ("files", given.open_files.map(Value::from)),
        ("total_memory", given.total_memory.as_ref().map(number)),
        ("processes", given.processes.map(Value::from)),
        ("cores", given.cores.map(Value::from)),
    ];
    let given = limits.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Ok(given.collect())
}
