//! `punctual preview`: what a trigger will do, before there is a job.

use std::io::{BufRead, Read};

use serde_json::json;

use super::arguments::PreviewArguments;
use super::output::{Output, Reader, print};
use super::table::Table;
use super::{Failure, add, duration};
use crate::clock::{Clock, SystemClock, rfc3339};
use crate::preview::{Preview, TIMES_MAX, batch_line};
use crate::zone::Zone;

/// Bytes of one line of a batch: far more than any trigger needs.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// Carries it out.
pub(super) fn run(given: &PreviewArguments, output: &Output) -> Result<(), Failure> {
    if given.batch {
        return batch();
    }
    if given.count == 0 || given.count > TIMES_MAX {
        return Err(Failure::Usage(format!("--count must be between 1 and {TIMES_MAX}")));
    }
    let now = SystemClock.now();
    let question = json!({
        "trigger": add::trigger(&given.when, now)?,
        "after": given.after.map(rfc3339),
        "count": given.count,
    });
    let preview = Preview::answer(question, &Zone::system(), now)
        .map_err(|invalid| Failure::Usage(invalid.to_string()))?;
    output.show(&preview.to_value(), |_| table(&preview, now))
}

fn table(preview: &Preview, now: crate::clock::Timestamp) -> String {
    let zone = preview.trigger.zone();
    let mut table = Table::new(&["", "LOCAL TIME", "ZONE", "FROM NOW"]);
    for at in &preview.times {
        let local = zone.to_fixed(*at);
        let micros = if at.timestamp_subsec_micros() == 0 { "" } else { "%.6f" };
        table.row(
            "",
            vec![
                local.format("%a").to_string(),
                local.format(&format!("%Y-%m-%d %H:%M:%S{micros}")).to_string(),
                format!("{} {}", zone.name(), local.format("%:z")),
                duration::relative(*at, now),
            ],
        );
    }
    let end = if preview.times.is_empty() { "it does not fire any more" } else { "" };
    format!("{}\n{table}{end}", preview.trigger.describe())
}

/// One answer a line, flushed after each, so that another program can converse. It ends with the questions, or when
/// nobody reads the answers.
fn batch() -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::Refused(format!("the standard input cannot be read: {error}"))
    };
    let mut stdin = std::io::stdin().lock();
    let zone = Zone::system();
    loop {
        let mut bytes = Vec::new();
        let mut line = (&mut stdin).take(LINE_BYTES_MAX);
        if line.read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
            return Ok(());
        }
        let is_long = line.limit() == 0 && !bytes.ends_with(b"\n");
        let answer = if is_long {
            stdin.skip_until(b'\n').map_err(failed)?;
            json!({ "error": format!("a line has fewer than {LINE_BYTES_MAX} bytes") })
        } else {
            let text = String::from_utf8_lossy(&bytes);
            if text.trim().is_empty() {
                continue;
            }
            batch_line(&text, &zone, SystemClock.now())
        };
        if print(&answer.to_string())? == Reader::Gone {
            return Ok(());
        }
    }
}
