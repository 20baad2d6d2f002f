//! The next times of a trigger, without any job: one question and answer, as JSON, for the
//! command line, for scripts and for the control socket alike.

use chrono::{SubsecRound, TimeDelta};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::instant::parse_exact_instant;
use crate::invalid::{self, Invalid};
use crate::json::{self, JsonError};
use crate::trigger::{DstGap, Trigger};
use crate::zone::Zone;

/// Times in one answer, at most.
pub const TIMES_MAX: usize = 10_000;
/// Times in an answer for which no count was given.
const TIMES_DEFAULT: usize = 10;
/// Changes of the clock that an answer tells of, at most.
const GAPS_MAX: usize = 100;

/// What is asked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
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
    /// The trigger, compiled.
    pub trigger: Trigger,
    /// Its next times; fewer than asked for if there are no more.
    pub times: Vec<Timestamp>,
    /// From when on it was looked for them.
    from: Timestamp,
    /// Up to when: the last of them, or the trigger's end if that came first.
    until: Timestamp,
}

impl Preview {
    /// Answers `{"trigger", "after", "inclusive", "count"}`. Without `after` the times begin at the trigger's own
    /// start, or now where it has none. A trigger that never fires has no times; a job with it is refused.
    pub fn answer(question: Value, zone: &Zone, now: Timestamp) -> Result<Self, Invalid> {
        Self::answer_while(question, zone, now, || true)
    }

    /// The same, for as long as it may go on.
    pub fn answer_while(
        question: Value,
        zone: &Zone,
        now: Timestamp,
        may_go_on: impl Fn() -> bool,
    ) -> Result<Self, Invalid> {
        let question: Question = invalid::read(question)?;
        let count = question.count.unwrap_or(TIMES_DEFAULT);
        if count > TIMES_MAX {
            return Err(Invalid::new("count", format!("at most {TIMES_MAX}")));
        }
        let trigger = Trigger::compile(&question.trigger, zone, now)
            .map_err(|invalid| invalid.within("trigger"))?;
        let after =
            question.after.map(|text| parse_exact_instant(&text, trigger.zone())).transpose();
        let after = after.map_err(|why| Invalid::new("after", why))?;
        let mut next = match after {
            // Finer than a microsecond is between two instants.
            Some(after) if question.inclusive.unwrap_or(false) => {
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

    /// The same for a person or a program that sees the question beside the answer: a fault is named by the trigger's
    /// type, as in `cron.hour`.
    pub fn answer_by_type(question: Value, zone: &Zone, now: Timestamp) -> Result<Self, Invalid> {
        let kind = question.pointer("/trigger/type").and_then(Value::as_str).map(str::to_owned);
        Self::answer(question, zone, now).map_err(|invalid| by_type(invalid, kind.as_deref()))
    }

    /// The readings meanwhile that the clock skips.
    pub fn dst_gaps(&self) -> Vec<DstGap> {
        self.trigger.dst_gaps(self.from, self.until, GAPS_MAX)
    }

    /// Whether jitter may delay the times.
    pub fn is_jittered(&self) -> bool {
        self.trigger.jitter() > TimeDelta::zero()
    }

    /// The times as JSON: RFC 3339 with the offset of the trigger's zone. With jitter, also the latest instant to which
    /// it may delay each of them.
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
    // RFC 3339 has no seconds in an offset, as some zones had until 1972.
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

/// Answers one line of `preview --batch`: `{"op":"preview",…}` or `{"op":"validate","trigger":…}`.
pub fn batch_line(line: &str, zone: &Zone, now: Timestamp) -> Value {
    answer_line(line, zone, now).unwrap_or_else(|invalid| json!({ "error": invalid.to_string() }))
}

fn answer_line(line: &str, zone: &Zone, now: Timestamp) -> Result<Value, Invalid> {
    let mut value: Value = json::read(line.as_bytes()).map_err(|error| match error {
        JsonError::Refused(invalid) => invalid,
        JsonError::Syntax(error) => Invalid::new("", error),
    })?;
    let map = value.as_object_mut().ok_or_else(|| Invalid::new("", "expected an object"))?;
    match map.remove("op").as_ref().and_then(Value::as_str) {
        Some("preview") => Ok(Preview::answer_by_type(value, zone, now)?.to_value()),
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
