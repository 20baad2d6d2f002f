//! JSON that a job passes on as it is. It is kept as its text: a tree of values may take eighty times as much memory.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

/// A JSON value, as its text without white space.
#[derive(Debug, Clone)]
pub struct Json(Box<RawValue>);

impl Json {
    pub fn bytes(&self) -> usize {
        self.0.get().len()
    }

    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// The members of an object; none if it is something else.
    pub fn to_map(&self) -> Map<String, Value> {
        serde_json::from_str(self.text()).unwrap_or_default()
    }
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        Self(to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }
}

impl From<Map<String, Value>> for Json {
    fn from(map: Map<String, Value>) -> Self {
        Self::from(&Value::Object(map))
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Self::from(&value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_comes_out_as_it_went_in() {
        for value in [json!({"b": [1, 1.5, "é\n", null], "a": {}}), json!(null), json!("x")] {
            let json = Json::from(&value);
            assert_eq!(json.text(), value.to_string());
            assert_eq!(json.bytes(), json.text().len());
            assert_eq!(serde_json::to_value(&json).unwrap(), value);
            assert_eq!(serde_json::from_value::<Json>(value.clone()).unwrap(), json);
            assert_eq!(json!({"in": json}), json!({"in": value}));
        }
        assert_eq!(Json::from(&json!({"a": 1})).to_map()["a"], 1);
        assert!(Json::from(&json!([])).to_map().is_empty());
    }
}
