//! The next times of a trigger without a job. A request is JSON, and so is its result; the command line, its `--batch` and
//! the control socket share them.

use chrono::{SubsecRound, TimeDelta};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::instant::parse_exact_instant;
use crate::invalid::{self, Invalid};
use crate::json::{self, JsonError};
use crate::trigger::{DstGap, Trigger};
use crate::zone::Zone;

/// The largest number of times in one preview.
pub const TIMES_MAX: usize = 10_000;
/// The default number of times.
const TIMES_DEFAULT: usize = 10;
/// The largest number of gaps of the clock in one preview.
const GAPS_MAX: usize = 100;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct PreviewRequest {
    trigger: Value,
    #[serde(default)]
    after: Option<String>,
    #[serde(default)]
    inclusive: Option<bool>,
    #[serde(default)]
    count: Option<usize>,
}

/// The next times of a trigger.
#[derive(Debug)]
pub struct Preview {
    pub trigger: Trigger,
    /// The next times; fewer than requested if there are no more.
    pub times: Vec<Timestamp>,
    /// The beginning of the previewed time.
    from: Timestamp,
    /// Its end: the last time or, if there are no more times, the trigger's end.
    until: Timestamp,
}

impl Preview {
    /// Reads `{"trigger", "after", "inclusive", "count"}`. Without `after` the times begin at the trigger's start, or now if
    /// it has no start. A trigger that never fires has no times here, although a job with it is refused. Gives up with an
    /// error as soon as `may_go_on` returns false.
    pub fn new(
        request: Value,
        zone: &Zone,
        now: Timestamp,
        may_go_on: impl Fn() -> bool,
    ) -> Result<Self, Invalid> {
        let request: PreviewRequest = invalid::read(request)?;
        let count = request.count.unwrap_or(TIMES_DEFAULT);
        if count > TIMES_MAX {
            return Err(Invalid::new("count", format!("at most {TIMES_MAX}")));
        }
        let trigger = Trigger::compile(&request.trigger, zone, now)
            .map_err(|invalid| invalid.within("trigger"))?;
        let after =
            request.after.map(|text| parse_exact_instant(&text, trigger.zone())).transpose();
        let after = after.map_err(|why| Invalid::new("after", why))?;
        let mut next = match after {
            // A time that is finer than a microsecond is between two instants.
            Some(after) if request.inclusive.unwrap_or(false) => {
                let floor = after.trunc_subsecs(6);
                if floor < after { trigger.next_after(floor) } else { trigger.next_from(after) }
            }
            Some(after) => trigger.next_after(after.trunc_subsecs(6)),
            None => trigger.first(),
        };
        let from = after.or(trigger.start()).or(next).unwrap_or(now);
        let mut times = Vec::new();
        while let Some(at) = next.filter(|_| times.len() < count) {
            if !may_go_on() {
                let message = "finding these times takes too long: ask for fewer";
                return Err(Invalid::new("count", message));
            }
            times.push(at);
            next = trigger.next_after(at);
        }
        let last = times.last().copied().unwrap_or(from);
        let until = if times.len() < count {
            trigger.end().map_or(last, |end| end.max(last))
        } else {
            last
        };
        Ok(Self { trigger, times, from, until })
    }

    /// The same as [`Preview::new`] without a limit of its time. An error names the trigger's type, as in `cron.hour`, for
    /// people, who do not see the JSON form.
    pub fn new_by_type(request: Value, zone: &Zone, now: Timestamp) -> Result<Self, Invalid> {
        let kind = request.pointer("/trigger/type").and_then(Value::as_str).map(str::to_owned);
        Self::new(request, zone, now, || true).map_err(|invalid| by_type(invalid, kind.as_deref()))
    }

    /// The occurrences in the previewed time that the clock skips.
    pub fn dst_gaps(&self) -> Vec<DstGap> {
        self.trigger.dst_gaps(self.from, self.until, GAPS_MAX)
    }

    /// Whether jitter may delay the times.
    pub fn is_jittered(&self) -> bool {
        self.trigger.jitter() > TimeDelta::zero()
    }

    /// The times as JSON: RFC 3339 with the offset of the trigger's zone. With jitter, also the latest instant to which it
    /// may delay each of them.
    pub fn to_value(&self) -> Value {
        let zone = self.trigger.zone();
        let shown = |at: Timestamp| local_rfc3339(zone, at);
        let times: Vec<String> = self.times.iter().copied().map(shown).collect();
        if !self.is_jittered() {
            return json!({ "times": times });
        }
        let latest = self.times.iter().map(|at| shown(self.trigger.latest_start(*at)));
        json!({ "times": times, "latest": latest.collect::<Vec<_>>() })
    }
}

fn local_rfc3339(zone: &Zone, at: Timestamp) -> String {
    let local = zone.to_fixed(at);
    // RFC 3339 has no seconds in an offset; some zones had them until 1972.
    let whole = local.offset().local_minus_utc() % 60 == 0;
    let shown = if whole { local } else { at.fixed_offset() };
    shown.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, false)
}

fn by_type(invalid: Invalid, kind: Option<&str>) -> Invalid {
    let known = kind.filter(|kind| Trigger::is_known_type(kind));
    match (invalid.field.strip_prefix("trigger"), known) {
        (Some(rest), Some(kind)) => Invalid::new(format!("{kind}{rest}"), invalid.message),
        (_, _) => invalid,
    }
}

/// Handles one line of `preview --batch`: `{"op":"preview",…}` or `{"op":"validate","trigger":…}`.
pub fn batch_line(line: &str, zone: &Zone, now: Timestamp) -> Value {
    handle_line(line, zone, now).unwrap_or_else(|invalid| json!({ "error": invalid.to_string() }))
}

fn handle_line(line: &str, zone: &Zone, now: Timestamp) -> Result<Value, Invalid> {
    let mut value: Value = json::read(line.as_bytes()).map_err(|error| match error {
        JsonError::Refused(invalid) => invalid,
        JsonError::Syntax(error) => Invalid::new("", error),
    })?;
    let map = value.as_object_mut().ok_or_else(|| Invalid::new("", "expected an object"))?;
    match map.remove("op").as_ref().and_then(Value::as_str) {
        Some("preview") => Ok(Preview::new_by_type(value, zone, now)?.to_value()),
        Some("validate") => {
            if let Some(key) = map.keys().find(|key| *key != "trigger") {
                return Err(Invalid::new(key.as_str(), "unknown key of a validation"));
            }
            let trigger = map.get("trigger").ok_or_else(|| Invalid::new("trigger", "missing"))?;
            let kind = trigger.get("type").and_then(Value::as_str);
            let over =
                |trigger: &Trigger| trigger.ended_reason(now).map(|why| Invalid::new("", why));
            Trigger::compile(trigger, zone, now)
                .and_then(|trigger| over(&trigger).map_or(Ok(()), Err))
                .map_err(|invalid| by_type(invalid.within("trigger"), kind))?;
            Ok(json!({ "ok": true }))
        }
        _ => Err(Invalid::new("op", "expected \"preview\" or \"validate\"")),
    }
}
