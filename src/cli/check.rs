//! What `punctual check` prints. `daemon` judges the file, since that takes the builtins of the application.

use serde_json::Value;

use crate::printable::escaped;

/// The answer of `punctual check` for people. `why_not` is the reason why the file was not compared with the jobs of a
/// daemon.
pub fn view_of_check(
    answer: &Value,
    why_not: &str,
    warnings: impl Iterator<Item = String>,
) -> String {
    let file = answer.get("file").and_then(Value::as_str).unwrap_or_default();
    let jobs = answer.get("jobs").and_then(Value::as_u64).unwrap_or_default();
    let noun = if jobs == 1 { "job" } else { "jobs" };
    let mut lines = vec![format!("{} is valid: {jobs} {noun}", escaped(file))];
    match answer.get("changes").and_then(Value::as_object) {
        None => {
            let why_not = escaped(why_not);
            lines
                .push(format!("{why_not}, so the file was not compared with the jobs of a daemon"));
        }
        Some(changes) => {
            for (word, ids) in changes {
                let ids = ids.as_array().into_iter().flatten().filter_map(Value::as_str);
                let ids = ids.collect::<Vec<_>>().join(", ");
                if !ids.is_empty() {
                    lines.push(format!("a reload would have {word}: {}", escaped(&ids)));
                }
            }
            if lines.len() == 1 {
                lines.push("a reload would change no job".to_owned());
            }
        }
    }
    lines.extend(warnings.map(|text| format!("warning: {}", escaped(&text))));
    lines.join("\n")
}
