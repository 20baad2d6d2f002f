//! A trigger's JSON object while it is read: each key is taken once, and what nobody took is an
//! error by name.

use chrono::TimeDelta;
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::invalid::Invalid;
use crate::zone::{Zone, parse_instant};

/// Longest interval or jitter, in seconds: a thousand years, far from any overflow.
pub(super) const SECONDS_MAX: f64 = 3.2e10;

/// What was given, and what of it has been read.
#[derive(Debug)]
pub(super) struct Given {
    map: Map<String, Value>,
    zone: Zone,
    kind: String,
    taken: Vec<&'static str>,
}

impl Given {
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
        parse_instant(&text, &self.zone).map(Some).map_err(|why| Invalid::new(key, why))
    }

    /// `start_date` and `end_date`, in order.
    pub(super) fn range(&mut self) -> Result<(Option<Timestamp>, Option<Timestamp>), Invalid> {
        let (start, end) = (self.instant("start_date")?, self.instant("end_date")?);
        if start.zip(end).is_some_and(|(start, end)| end < start) {
            return Err(Invalid::new("end_date", "is before start_date"));
        }
        Ok((start, end))
    }

    /// A key that holds one of a few words, the first of which is the default.
    pub(super) fn word(
        &mut self,
        key: &'static str,
        words: [&'static str; 2],
    ) -> Result<&'static str, Invalid> {
        let [default, other] = words;
        match self.text(key)?.as_deref() {
            None => Ok(default),
            Some(word) if word == default => Ok(default),
            Some(word) if word == other => Ok(other),
            Some(word) => Err(Invalid::new(
                key,
                format!("unknown word \"{word}\" (expected \"{default}\" or \"{other}\")"),
            )),
        }
    }

    /// A key that holds a number of some unit of time, not negative; as exact microseconds.
    pub(super) fn micros(&mut self, key: &'static str, unit_seconds: u32) -> Result<i64, Invalid> {
        let refuse = || {
            Invalid::new(key, "must be a number, not negative, and no more than a thousand years")
        };
        let micros_per_unit = i64::from(unit_seconds) * 1_000_000;
        match self.take(key) {
            None => Ok(0),
            Some(Value::Number(number)) => {
                let fits = number.as_f64().is_some_and(|value| {
                    (0.0..=SECONDS_MAX).contains(&(value * f64::from(unit_seconds)))
                });
                if !fits {
                    return Err(refuse());
                }
                if let Some(whole) = number.as_i64() {
                    return whole.checked_mul(micros_per_unit).ok_or_else(refuse);
                }
                #[expect(
                    clippy::as_conversions,
                    clippy::cast_possible_truncation,
                    reason = "at most 3.2e16: it fits"
                )]
                let micros = number
                    .as_f64()
                    .map(|value| (value * f64::from(unit_seconds) * 1e6).round() as i64);
                micros.ok_or_else(refuse)
            }
            Some(_) => Err(refuse()),
        }
    }

    /// `jitter`, in seconds; a `date` has none.
    pub(super) fn jitter(&mut self) -> Result<TimeDelta, Invalid> {
        if self.kind == "date" {
            return Ok(TimeDelta::zero());
        }
        Ok(TimeDelta::microseconds(self.micros("jitter", 1)?))
    }

    /// Refuses a key that nobody took.
    pub(super) fn refuse_unknown(&self) -> Result<(), Invalid> {
        let unknown = self.map.keys().find(|key| !self.taken.contains(&key.as_str()));
        if let Some(key) = unknown {
            let known: Vec<&str> =
                self.taken.iter().copied().filter(|key| *key != "type").collect();
            let message =
                format!("unknown key of a {} trigger (known: {})", self.kind, known.join(", "));
            return Err(Invalid::new(key.as_str(), message));
        }
        Ok(())
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

/// The given fields of a spec as `name=value`, values with spaces in quotes.
pub(super) fn describe_fields(spec: &Value, names: &[&str]) -> String {
    let field = |name: &&str| {
        let value = spec.get(*name)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some(if text.contains(' ') {
            format!("{name}=\"{text}\"")
        } else {
            format!("{name}={text}")
        })
    };
    let fields: Vec<String> = names.iter().filter_map(field).collect();
    format!("cron {}", fields.join(" "))
}
