//! A trigger's JSON object while it is read: each key is taken once, and what nobody took is an
//! error by name.

use chrono::{NaiveDate, TimeDelta};
use serde_json::{Map, Value};

use crate::clock::{MICROS_PER_SECOND, Timestamp};
use crate::instant::{parse_bare_date, parse_date, parse_instant};
use crate::invalid::{Invalid, quoted};
use crate::zone::Zone;

/// Longest interval or jitter, in microseconds: a thousand years, far from any overflow.
pub(super) const MICROS_MAX: i64 = 32_000_000_000 * MICROS_PER_SECOND;

/// What was given, and what of it has been read.
#[derive(Debug)]
pub(super) struct SpecReader {
    map: Map<String, Value>,
    zone: Zone,
    kind: String,
    taken: Vec<&'static str>,
}

impl SpecReader {
    /// Begins to read. `zone` holds where none is given.
    pub(super) fn new(spec: &Value, zone: &Zone) -> Result<Self, Invalid> {
        let Value::Object(map) = spec else {
            return Err(Invalid::new(
                "",
                "a trigger is an object such as {\"type\": \"cron\", \"hour\": 3}",
            ));
        };
        // Null is the same as not given, in every key.
        let map: Map<String, Value> = map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let mut given = Self { map, zone: zone.clone(), kind: String::new(), taken: Vec::new() };
        given.kind = given.text("type")?.ok_or_else(|| Invalid::new("type", "missing"))?;
        if let Some(name) = given.text("timezone")? {
            given.zone = Zone::parse(&name)?;
        }
        Ok(given)
    }

    /// The trigger's type.
    pub(super) fn kind(&self) -> &str {
        &self.kind
    }

    /// A key's value, whatever it is.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&Value> {
        self.taken.push(key);
        self.map.get(key)
    }

    /// A key that holds text.
    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>, Invalid> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(Invalid::new(key, format!("must be text, not {other}"))),
        }
    }

    /// A key that holds a time.
    pub(super) fn instant(&mut self, key: &'static str) -> Result<Option<Timestamp>, Invalid> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        self.instant_of(key, &text).map(Some)
    }

    fn instant_of(&self, key: &'static str, text: &str) -> Result<Timestamp, Invalid> {
        parse_instant(text, &self.zone).map_err(|why| Invalid::new(key, why))
    }

    /// The last instant that `end_date` includes: the one that is given, or the last of the day that is given.
    pub(super) fn end(&mut self) -> Result<Option<Timestamp>, Invalid> {
        let Some(text) = self.text("end_date")? else { return Ok(None) };
        match parse_bare_date(&text) {
            Some(day) => Ok(self.zone.end_of_day(day)),
            None => self.instant_of("end_date", &text).map(Some),
        }
    }

    /// `start_date` and `end_date`, in order.
    pub(super) fn range(&mut self) -> Result<(Option<Timestamp>, Option<Timestamp>), Invalid> {
        let (start, end) = (self.instant("start_date")?, self.end()?);
        if start.zip(end).is_some_and(|(start, end)| end < start) {
            return Err(Invalid::new("end_date", "is before start_date"));
        }
        Ok((start, end))
    }

    /// A key that holds one of two words.
    pub(super) fn word(
        &mut self,
        key: &'static str,
        words: &'static [&'static str; 2],
    ) -> Result<Option<&'static str>, Invalid> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let word = words.iter().find(|word| **word == text);
        word.map(|word| Some(*word)).ok_or_else(|| {
            let [one, other] = words;
            let text = quoted(&text);
            let message = format!("unknown word {text} (expected \"{one}\" or \"{other}\")");
            Invalid::new(key, message)
        })
    }

    /// A key that holds a number of some unit of time, not negative; as exact microseconds.
    pub(super) fn micros(&mut self, key: &'static str, unit_micros: i64) -> Result<i64, Invalid> {
        let refuse = || {
            let given = self.map.get(key).unwrap_or(&Value::Null);
            let message = format!(
                "must be a number, not negative, and no more than a thousand years, not {given}"
            );
            Invalid::new(key, message)
        };
        self.taken.push(key);
        let Some(given) = self.map.get(key) else { return Ok(0) };
        let number = given.as_number().ok_or_else(refuse)?;
        if let Some(whole) = number.as_i64() {
            let micros = whole.checked_mul(unit_micros).ok_or_else(refuse)?;
            return Some(micros)
                .filter(|micros| (0..=MICROS_MAX).contains(micros))
                .ok_or_else(refuse);
        }
        let value = number.as_f64().filter(|value| *value >= 0.0).ok_or_else(refuse)?;
        #[expect(
            clippy::as_conversions,
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "the unit is exact, and beyond the range the product saturates and is refused"
        )]
        let micros = (value * unit_micros as f64).round() as i64;
        Some(micros).filter(|micros| *micros <= MICROS_MAX).ok_or_else(refuse)
    }

    /// A key that holds a whole number from 0 to `max`; 0 where it is not given.
    pub(super) fn whole(&mut self, key: &'static str, max: u32) -> Result<u32, Invalid> {
        let Some(given) = self.take(key) else { return Ok(0) };
        let number = given.as_u64().and_then(|number| u32::try_from(number).ok());
        number.filter(|number| *number <= max).ok_or_else(|| {
            Invalid::new(key, format!("must be a whole number from 0 to {max}, not {given}"))
        })
    }

    /// `start_date` as a day, which is that of an instant in the zone, and the instant if a time of day is given.
    pub(super) fn start_day(&mut self) -> Result<Option<(NaiveDate, Option<Timestamp>)>, Invalid> {
        let Some(text) = self.text("start_date")? else { return Ok(None) };
        if let Some(day) = parse_bare_date(&text) {
            return Ok(Some((day, None)));
        }
        let at = Some(self.instant_of("start_date", &text)?);
        let day = parse_date(&text, &self.zone).map_err(|why| Invalid::new("start_date", why))?;
        Ok(Some((day, at)))
    }

    /// The zone that holds for this trigger.
    pub(super) fn zone(&self) -> &Zone {
        &self.zone
    }

    /// `jitter`, in seconds; a `date` has none.
    pub(super) fn jitter(&mut self) -> Result<TimeDelta, Invalid> {
        if self.kind == "date" {
            return Ok(TimeDelta::zero());
        }
        Ok(TimeDelta::microseconds(self.micros("jitter", MICROS_PER_SECOND)?))
    }

    /// Refuses a key that nobody took.
    pub(super) fn refuse_unknown(&self) -> Result<(), Invalid> {
        let unknown = self.map.keys().find(|key| !self.taken.contains(&key.as_str()));
        if let Some(key) = unknown {
            let known: Vec<&str> =
                self.taken.iter().copied().filter(|key| *key != "type").collect();
            let message =
                format!("unknown key of type {} (known: {})", self.kind, known.join(", "));
            return Err(Invalid::new(key.as_str(), message));
        }
        Ok(())
    }

    /// The key's value in the complete spec, where it is not what was given.
    pub(super) fn replace(&mut self, key: &'static str, value: Value) {
        self.map.insert(key.to_owned(), value);
    }

    /// Ends the reading: gives the zone and the complete spec.
    pub(super) fn finish(self) -> Result<(Zone, Value), Invalid> {
        self.refuse_unknown()?;
        let mut spec = Map::new();
        spec.insert("type".to_owned(), self.kind.into());
        spec.extend(self.map.into_iter().filter(|(key, _)| key != "type" && key != "timezone"));
        spec.insert("timezone".to_owned(), self.zone.name().into());
        Ok((self.zone, Value::Object(spec)))
    }
}

/// Keys that say when a calendar trigger fires, in the order in which they are read.
const WHEN_KEYS: [&str; 13] = [
    "expression",
    "years",
    "months",
    "weeks",
    "days",
    "year",
    "month",
    "day",
    "week",
    "day_of_week",
    "hour",
    "minute",
    "second",
];

/// What a spec says of when, in a few words: its type, and its keys as `name=value`, values with spaces in quotes.
pub(super) fn describe_fields(spec: &Value) -> String {
    let text = |key: &str| {
        let value = spec.get(key)?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let words = WHEN_KEYS.iter().filter_map(|key| {
        Some(match (*key, text(key)?) {
            ("expression", text) => format!("\"{text}\""),
            (key, text) if text.contains(' ') => format!("{key}=\"{text}\""),
            (key, text) => format!("{key}={text}"),
        })
    });
    text("type").into_iter().chain(words).collect::<Vec<_>>().join(" ")
}
