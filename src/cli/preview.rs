//! `punctual preview`: what a trigger will do, before there is a job.

use std::io::{BufRead, Read};

use chrono::{FixedOffset, NaiveDateTime, Timelike};
use serde_json::json;

use super::arguments::PreviewArguments;
use super::console::{Console, StdoutState, json as json_text, print};
use super::error::CliError;
use super::table::Fit::{Drop, Whole};
use super::table::Table;
use super::time_context::{TimeContext, daemon_zone_if_reachable};
use super::times::relative;
use crate::client::Client;
use crate::clock::{Clock, SystemClock, Timestamp, rfc3339};
use crate::instant::{Toward, parse_moment};
use crate::preview::{Preview, TIMES_MAX, batch_line};
use crate::printable::escaped;
use crate::trigger::{DstGap, Trigger};
use crate::zone::{DefaultZone, Local, Zone};

/// The most bytes of one line of a batch: far more than any trigger needs.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// Carries out `preview`. A trigger that names no zone gets the daemon's, if a daemon is reachable.
pub(super) async fn run(
    client: Option<&Client>,
    given: &PreviewArguments,
    output: &Console,
) -> Result<(), CliError> {
    let now = SystemClock.now();
    if !given.batch && (given.count == 0 || given.count > TIMES_MAX) {
        return Err(CliError::Usage(format!("--count must be between 1 and {TIMES_MAX}")));
    }
    let named = if given.batch { None } else { given.trigger.zone()? };
    let (zone, whose) = if let Some(zone) = named {
        (zone, None)
    } else if let Some(zone) = daemon_zone_if_reachable(client).await {
        (zone, Some("the daemon's zone"))
    } else {
        let machine = DefaultZone::of_machine();
        let machine = machine.map_err(|invalid| CliError::Usage(invalid.to_string()))?;
        (machine.zone, Some("this machine's zone, since no daemon can be asked"))
    };
    if given.batch { batch(&zone) } else { show(given, &TimeContext { now, zone }, whose, output) }
}

/// Shows the times. `whose` says whose zone is used, if the trigger names none.
fn show(
    given: &PreviewArguments,
    present: &TimeContext,
    whose: Option<&str>,
    output: &Console,
) -> Result<(), CliError> {
    let mut trigger = given.trigger.clone();
    present.resolve(trigger.times_mut())?;
    let trigger = trigger.to_json()?;
    let TimeContext { now, zone } = present;
    let after = given.after.as_deref();
    let after = after.map(|text| parse_moment(text, zone, *now, Toward::Future)).transpose();
    let after = after.map_err(|why| CliError::Usage(format!("--after: {why}")))?;
    // Past times are left out, except that of a one-shot, which would run late: as for a job that is added.
    let compiled = Trigger::compile(&trigger, zone, *now);
    let is_one_shot = compiled.is_ok_and(|trigger| trigger.is_one_shot());
    let from = after.or_else(|| Some(*now).filter(|_| !is_one_shot));
    let question = json!({
        "trigger": trigger,
        "after": from.map(rfc3339),
        "inclusive": after.is_none(),
        "count": given.count,
    });
    let preview = Preview::new_by_type(question, zone, *now)
        .map_err(|invalid| CliError::Usage(invalid.to_string()))?;
    let why = match after {
        Some(_) => preview.trigger.never_fires_reason(),
        None => preview.trigger.ended_reason(*now),
    };
    if let Some(why) = why {
        return Err(CliError::Usage(why));
    }
    let whose = whose.map(|whose| format!("times are in {}, {whose}", zone.name()));
    output.show(&preview.to_value(), |_| {
        let lines = [table(&preview, *now).trim_end().to_owned()].into_iter().chain(whose);
        lines.collect::<Vec<_>>().join("\n")
    })
}

fn table(preview: &Preview, now: Timestamp) -> String {
    let zone = preview.trigger.zone();
    let missing = preview.dst_gaps();
    let skipped = missing.iter().filter(|missing| !missing.shifted);
    let mut rows: Vec<TimeRow> = preview
        .times
        .iter()
        .map(|at| time_row(zone, *at, &missing))
        .chain(skipped.map(skipped_row))
        .collect();
    // A time that the clock skips comes before the one at which it goes on.
    rows.sort_by_key(|row| (row.at, row.offset.is_some()));
    let is_marked = rows.iter().any(|row| !row.mark.is_empty());
    let mut headings =
        vec![("", Whole), ("LOCAL TIME", Whole), ("ZONE", Whole), ("FROM NOW", Drop(1))];
    headings.extend(Some(("LATEST, BY JITTER", Whole)).filter(|_| preview.is_jittered()));
    headings.extend(Some(("DST", Whole)).filter(|_| is_marked));
    let mut table = Table::new(&headings);
    for row in rows {
        let offset = row.offset.map(|offset| format!(" {offset}")).unwrap_or_default();
        let mut cells = vec![
            row.local.format("%a").to_string(),
            clock(row.local),
            format!("{}{offset}", row.zone),
            row.offset.map(|_| relative(row.at, now)).unwrap_or_default(),
        ];
        if preview.is_jittered() {
            let latest = row.offset.map(|_| zone.to_fixed(preview.trigger.latest_start(row.at)));
            cells.push(latest.map(|at| clock(at.naive_local())).unwrap_or_default());
        }
        cells.extend(Some(row.mark).filter(|_| is_marked));
        table.row("", cells);
    }
    let end = if preview.times.is_empty() { "it does not fire any more" } else { "" };
    format!("{}\n{table}{end}", escaped(&preview.trigger.describe()))
}

/// A reading of the clock.
fn clock(local: NaiveDateTime) -> String {
    let micros = if local.nanosecond() == 0 { "" } else { "%.6f" };
    local.format(&format!("%Y-%m-%d %H:%M:%S{micros}")).to_string()
}

/// A row of the table: a time at which the trigger fires, or one that the clock skips, which has no offset.
struct TimeRow {
    zone: String,
    at: Timestamp,
    local: NaiveDateTime,
    offset: Option<FixedOffset>,
    mark: String,
}

fn time_row(zone: &Zone, at: Timestamp, missing: &[DstGap]) -> TimeRow {
    let local = zone.to_fixed(at);
    let replaced = missing.iter().find(|missing| missing.shifted && missing.resumes == at);
    let mark = match (replaced, zone.resolve(local.naive_local())) {
        (Some(missing), _) => {
            let zone = if missing.zone == *zone { "" } else { missing.zone.name() };
            let first = missing.first.format("%H:%M:%S");
            format!("in place of {first} {zone}{}", and_more(missing)).trim_end().to_owned()
                + ", which the clock skips"
        }
        (None, Local::Fold { first, .. }) if first == at => "first of two".to_owned(),
        (None, Local::Fold { .. }) => "second of two".to_owned(),
        (None, Local::Single(_) | Local::Gap { .. }) => String::new(),
    };
    let (zone, offset) = (zone.name().to_owned(), Some(*local.offset()));
    TimeRow { zone, at, local: local.naive_local(), offset, mark }
}

fn skipped_row(missing: &DstGap) -> TimeRow {
    let same_day = missing.from.date() == missing.until.date();
    let clock = if same_day { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    let (from, until) = (missing.from.format(clock), missing.until.format(clock));
    let mark = format!("skipped{}: the clock goes from {from} to {until}", and_more(missing));
    let zone = missing.zone.name().to_owned();
    TimeRow { zone, at: missing.resumes, local: missing.first, offset: None, mark }
}

/// The number of readings after the first, in words.
fn and_more(missing: &DstGap) -> String {
    match missing.count.saturating_sub(1) {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    }
}

/// Answers each line of standard input with a line, flushed at once, so that another program can converse. It ends with
/// the input, or when standard output is not read any more.
fn batch(zone: &Zone) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::Refused(format!("the standard input cannot be read: {error}"))
    };
    let mut stdin = std::io::stdin().lock();
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
            batch_line(&text, zone, SystemClock.now())
        };
        if print(&json_text(&answer))? == StdoutState::Gone {
            return Ok(());
        }
    }
}
