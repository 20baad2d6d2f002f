//! Decides whether two definitions mean the same job although they are written differently: `1` and `1.0`, tags in
//! another order, one trigger in two spellings. So a reload ignores differences in spelling.

use serde_json::{Map, Number, Value};

use super::Job;
use crate::trigger::Trigger;

impl Job {
    /// Whether a definition, as the contract shows it, means the same as this job's.
    pub fn is_defined_as(&self, shown: &Map<String, Value>) -> bool {
        self.definition().iter().all(|(key, own)| {
            let other = shown.get(key).unwrap_or(&Value::Null);
            match key.as_str() {
                "trigger" => self.is_triggered_as(other),
                "tags" => have_same_items(own, other),
                _ => are_equal(own, other),
            }
        })
    }

    fn is_triggered_as(&self, spec: &Value) -> bool {
        let other = Trigger::compile_stored(spec, self.trigger.zone(), self.anchor);
        // The anchors differ, and are not compared.
        other.is_ok_and(|other| self.trigger.is_equivalent(&other))
    }
}

/// From 2^53 on a float stands for several integers.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Whether two values are equal, with numbers by their value.
fn are_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => are_equal_numbers(one, other),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| are_equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let equal = |(key, one)| other.get(key).is_some_and(|other| are_equal(one, other));
            one.len() == other.len() && one.iter().all(equal)
        }
        (_, _) => one == other,
    }
}

fn are_equal_numbers(one: &Number, other: &Number) -> bool {
    if one == other {
        return true;
    }
    let exact = |number: &Number| number.as_f64().filter(|value| value.abs() < EXACT_MAX);
    let is_float = one.is_f64() || other.is_f64();
    #[expect(clippy::float_cmp, reason = "both are exact")]
    let equal = exact(one).zip(exact(other)).is_some_and(|(one, other)| one == other);
    is_float && equal
}

fn have_same_items(one: &Value, other: &Value) -> bool {
    let sorted = |list: &Value| {
        let mut items: Vec<String> =
            list.as_array().into_iter().flatten().map(ToString::to_string).collect();
        items.sort_unstable();
        items
    };
    sorted(one) == sorted(other)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_equal_by_value() {
        let equal = [
            (json!(1), json!(1.0)),
            (json!({"a": [1, {"b": -2.0}]}), json!({"a": [1.0, {"b": -2}]})),
            (json!({"a": 1, "b": 2}), json!({"b": 2, "a": 1})),
        ];
        for (one, other) in equal {
            assert!(are_equal(&one, &other), "{one} {other}");
        }
        let different = [
            (json!(1), json!("1")),
            (json!(1), json!(1.5)),
            (json!([1, 2]), json!([2, 1])),
            (json!({"a": null}), json!({})),
            (json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992.0)),
            (json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992_u64)),
        ];
        for (one, other) in different {
            assert!(!are_equal(&one, &other), "{one} {other}");
        }
    }
}
