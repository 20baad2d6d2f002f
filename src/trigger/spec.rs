//! Reads a trigger's JSON object key by key. A key that no reader has asked for is an error that names it.

use chrono::{NaiveDate, TimeDelta};
use serde_json::{Map, Value};

use super::compiled::Trigger;
use super::dst::{DstPolicy, FoldPolicy, GapPolicy};
use crate::clock::{MICROS_PER_SECOND, Timestamp};
use crate::instant::{parse_bare_date, parse_date, parse_instant};
use crate::invalid::{Invalid, quoted};
use crate::zone::Zone;

/// The longest interval or jitter, in microseconds: a thousand years, which is far from any overflow.
pub(super) const MICROS_MAX: i64 = 32_000_000_000 * MICROS_PER_SECOND;

/// Compiles a trigger that is inside another one.
pub(super) type CompileMember = fn(&Value, &Zone, Timestamp, Nesting) -> Result<Trigger, Invalid>;

/// The position of a trigger inside other triggers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nesting {
    /// The number of triggers around this one.
    pub(super) depth: u8,
    /// Whether one of them is an `and`.
    pub(super) in_and: bool,
    /// Whether the outermost trigger was accepted before and is now read from the store.
    pub(super) is_stored: bool,
    /// Compiles the members. A function pointer, because `and` and `or` are themselves in the list of types.
    pub(super) compile: CompileMember,
}

/// The object, and which of its keys have been read.
#[derive(Debug)]
pub(super) struct SpecReader {
    map: Map<String, Value>,
    zone: Zone,
    type_name: String,
    anchor: Timestamp,
    nesting: Nesting,
    taken: Vec<&'static str>,
}

impl SpecReader {
    /// Reads the type and the time zone. `zone` applies if the object has no `timezone`; `anchor` is when the trigger
    /// was defined.
    pub(super) fn new(
        spec: &Value,
        zone: &Zone,
        anchor: Timestamp,
        nesting: Nesting,
    ) -> Result<Self, Invalid> {
        let Value::Object(map) = spec else {
            return Err(Invalid::new(
                "",
                "a trigger is an object such as {\"type\": \"cron\", \"hour\": 3}",
            ));
        };
        // Null means the same as an absent key, for every key.
        let map: Map<String, Value> = map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let (zone, type_name) = (zone.clone(), String::new());
        let mut reader = Self { map, zone, type_name, anchor, nesting, taken: Vec::new() };
        reader.type_name = reader.text("type")?.ok_or_else(|| Invalid::new("type", "missing"))?;
        if let Some(name) = reader.text("timezone")? {
            reader.zone = Zone::parse(&name)?;
        }
        Ok(reader)
    }

    pub(super) fn type_name(&self) -> &str {
        &self.type_name
    }

    pub(super) fn zone(&self) -> &Zone {
        &self.zone
    }

    pub(super) fn anchor(&self) -> Timestamp {
        self.anchor
    }

    pub(super) fn nesting(&self) -> Nesting {
        self.nesting
    }

    /// Reads a value of any kind.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&Value> {
        self.taken.push(key);
        self.map.get(key)
    }

    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>, Invalid> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(Invalid::new(key, format!("must be text, not {other}"))),
        }
    }

    pub(super) fn instant(&mut self, key: &'static str) -> Result<Option<Timestamp>, Invalid> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        self.parse_instant(key, &text).map(Some)
    }

    fn parse_instant(&self, key: &'static str, text: &str) -> Result<Timestamp, Invalid> {
        parse_instant(text, &self.zone).map_err(|why| Invalid::new(key, why))
    }

    /// Reads `end_date`: the last instant that is included. A date without a time of day includes its whole day.
    pub(super) fn end(&mut self) -> Result<Option<Timestamp>, Invalid> {
        let Some(text) = self.text("end_date")? else { return Ok(None) };
        match parse_bare_date(&text) {
            Some(day) => Ok(self.zone.end_of_day(day)),
            None => self.parse_instant("end_date", &text).map(Some),
        }
    }

    /// Reads `start_date` and `end_date`, and refuses an end before the start.
    pub(super) fn range(&mut self) -> Result<(Option<Timestamp>, Option<Timestamp>), Invalid> {
        let (start, end) = (self.instant("start_date")?, self.end()?);
        if start.zip(end).is_some_and(|(start, end)| end < start) {
            return Err(Invalid::new("end_date", "is before start_date"));
        }
        Ok((start, end))
    }

    /// Reads one of two words.
    fn word(
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

    /// Reads a duration as a number of units of `unit_micros` microseconds each. Returns exact microseconds, 0 if the
    /// key is absent.
    pub(super) fn micros(&mut self, key: &'static str, unit_micros: i64) -> Result<i64, Invalid> {
        let Some(value) = self.take(key) else { return Ok(0) };
        let refuse = || {
            let message = format!(
                "must be a number, not negative, and no more than a thousand years, not {value}"
            );
            Invalid::new(key, message)
        };
        let number = value.as_number().ok_or_else(refuse)?;
        let micros = if let Some(whole) = number.as_i64() {
            whole.checked_mul(unit_micros).ok_or_else(refuse)?
        } else {
            let value = number.as_f64().filter(|value| *value >= 0.0).ok_or_else(refuse)?;
            #[expect(
                clippy::as_conversions,
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                reason = "the unit is exact, and beyond the range the product saturates and is refused"
            )]
            let micros = (value * unit_micros as f64).round() as i64;
            micros
        };
        Some(micros).filter(|micros| (0..=MICROS_MAX).contains(micros)).ok_or_else(refuse)
    }

    /// Reads a whole number from 0 to `max`; 0 if the key is absent.
    pub(super) fn whole(&mut self, key: &'static str, max: u32) -> Result<u32, Invalid> {
        let Some(value) = self.take(key) else { return Ok(0) };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.filter(|number| *number <= max).ok_or_else(|| {
            Invalid::new(key, format!("must be a whole number from 0 to {max}, not {value}"))
        })
    }

    /// Reads `start_date` as a day in the zone, and also as an instant if it has a time of day.
    pub(super) fn start_day(&mut self) -> Result<Option<(NaiveDate, Option<Timestamp>)>, Invalid> {
        let Some(text) = self.text("start_date")? else { return Ok(None) };
        if let Some(day) = parse_bare_date(&text) {
            return Ok(Some((day, None)));
        }
        let at = Some(self.parse_instant("start_date", &text)?);
        let day = parse_date(&text, &self.zone).map_err(|why| Invalid::new("start_date", why))?;
        Ok(Some((day, at)))
    }

    /// Reads `dst_gap` and `dst_fold`. `default` applies where they are absent.
    pub(super) fn dst_policy(&mut self, default: DstPolicy) -> Result<DstPolicy, Invalid> {
        let gap = match self.word("dst_gap", &["skip", "shift"])? {
            Some("shift") => GapPolicy::Shift,
            Some(_) => GapPolicy::Skip,
            None => default.gap,
        };
        let fold = match self.word("dst_fold", &["both", "first"])? {
            Some("first") => FoldPolicy::First,
            Some(_) => FoldPolicy::Both,
            None => default.fold,
        };
        Ok(DstPolicy { gap, fold })
    }

    /// Reads `jitter`, in seconds. A `date` has none.
    pub(super) fn jitter(&mut self) -> Result<TimeDelta, Invalid> {
        if self.type_name == "date" {
            return Ok(TimeDelta::zero());
        }
        Ok(TimeDelta::microseconds(self.micros("jitter", MICROS_PER_SECOND)?))
    }

    /// Refuses a key that has not been read. A parser also calls this before it reports that something is missing,
    /// because a misspelled key is the likelier mistake.
    pub(super) fn refuse_unknown(&self) -> Result<(), Invalid> {
        let unknown = self.map.keys().find(|key| !self.taken.contains(&key.as_str()));
        if let Some(key) = unknown {
            let known: Vec<&str> =
                self.taken.iter().copied().filter(|key| *key != "type").collect();
            let message =
                format!("unknown key of type {} (known: {})", self.type_name, known.join(", "));
            return Err(Invalid::new(key.as_str(), message));
        }
        Ok(())
    }

    /// Replaces a value in the complete spec.
    pub(super) fn replace(&mut self, key: &'static str, value: Value) {
        self.map.insert(key.to_owned(), value);
    }

    /// Returns the zone and the complete spec, which always names the zone.
    pub(super) fn finish(self) -> Result<(Zone, Value), Invalid> {
        self.refuse_unknown()?;
        let mut spec = Map::new();
        spec.insert("type".to_owned(), self.type_name.into());
        spec.extend(self.map.into_iter().filter(|(key, _)| key != "type" && key != "timezone"));
        spec.insert("timezone".to_owned(), self.zone.name().into());
        Ok((self.zone, Value::Object(spec)))
    }
}

/// Describes a spec by its type and those of `keys` that it has, as `name=value`. A value with spaces is quoted;
/// `expression` appears without its name.
pub(super) fn describe_keys(spec: &Value, keys: &[&str]) -> String {
    let text = |key: &str| {
        let value = spec.get(key)?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let words = keys.iter().filter_map(|key| {
        Some(match (*key, text(key)?) {
            ("expression", text) => format!("\"{text}\""),
            (key, text) if text.contains(' ') => format!("{key}=\"{text}\""),
            (key, text) => format!("{key}={text}"),
        })
    });
    text("type").into_iter().chain(words).collect::<Vec<_>>().join(" ")
}
