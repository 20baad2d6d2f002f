//! JSON merge patches, as RFC 7396 describes them.

use serde_json::{Map, Value};

/// Changes `target` as `patch` says. An object is merged with an object, null removes a member, and any other value replaces
/// the former one.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        patch.clone_into(target);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(members) = target {
        changes.iter().for_each(|(key, change)| merge_member(members, key, change));
    }
}

/// Changes one member of an object as a patch says.
pub fn merge_member(members: &mut Map<String, Value>, key: &str, change: &Value) {
    if change.is_null() {
        // The order of the others stays.
        members.shift_remove(key);
        return;
    }
    merge(members.entry(key).or_insert(Value::Null), change);
}

/// The patch that makes `to` of `from`. It is an object without members if both are the same object.
///
/// A patch cannot set a member to null, so a null in `to` counts as a member that is not there.
pub fn difference(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return to.clone() };
    let removed = from.iter().filter(|(key, _)| to.get(*key).is_none_or(Value::is_null));
    let removed = removed.map(|(key, _)| (key.clone(), Value::Null));
    let kept = to.iter().filter(|(_, value)| !value.is_null());
    let changed = kept.filter_map(|(key, value)| match from.get(key) {
        Some(former) if former == value => None,
        Some(former) => Some((key.clone(), difference(former, value))),
        None => Some((key.clone(), value.clone())),
    });
    Value::Object(removed.chain(changed).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_examples_of_rfc_7396_hold() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (target, patch, merged) in cases {
            let mut changed = target.clone();
            merge(&mut changed, &patch);
            assert_eq!(changed, merged, "{target} {patch}");
        }
    }

    #[test]
    fn a_difference_makes_one_value_of_the_other_and_names_nothing_else() {
        let from = json!({"a": 1, "b": {"c": [1], "d": "x", "e": {}}, "f": 2, "g": {"h": 1}});
        let to = json!({"a": 1, "b": {"c": [2], "e": {}}, "g": 3, "i": {"j": {}}});
        let patch = difference(&from, &to);
        let expected = json!({"f": null, "b": {"d": null, "c": [2]}, "g": 3, "i": {"j": {}}});
        assert_eq!(patch, expected);
        let mut changed = from.clone();
        merge(&mut changed, &patch);
        assert_eq!(changed, to);
        assert_eq!(difference(&from, &from), json!({}));
    }
}
