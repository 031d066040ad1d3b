//! Reading and writing fields of untyped objects.
//!
//! `null` counts as absent everywhere, as it does for upstream's decoders. Paths are JSON pointers without escapes (`/spec/nodeName`); the
//! fields of built-in kinds need none. Text that a person reads in an error uses dots and brackets instead: see the validators.

use serde_json::{Map, Value};

/// The value at `pointer`, unless it is absent or `null`.
#[must_use]
pub fn at<'a>(object: &'a Value, pointer: &str) -> Option<&'a Value> {
    object.pointer(pointer).filter(|value| !value.is_null())
}

/// The text at `pointer`, empty when absent.
#[must_use]
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The whole number at `pointer`.
#[must_use]
pub fn integer(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// The truth at `pointer`, `false` when absent.
#[must_use]
pub fn flag(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}

/// The list at `pointer`, empty when absent.
#[must_use]
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The map at `pointer`, when present.
#[must_use]
pub fn map<'a>(object: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    object.pointer(pointer).and_then(Value::as_object)
}

/// Name and text of each entry of the map at `pointer` (labels, selectors, string data).
pub fn texts<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    map(object, pointer)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
}

/// The text items of the list at `pointer`.
pub fn items<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a str> {
    list(object, pointer).iter().filter_map(Value::as_str)
}

/// The map under `key` of `object`, made when absent. `None` only when something else than a map is there.
pub fn map_mut<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    if object.is_null() {
        *object = Value::Object(Map::new());
    }
    let slot = object.as_object_mut()?.entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    slot.as_object_mut()
}

/// The map at `pointer`, if there is one, to change it.
pub fn existing_mut<'a>(object: &'a mut Value, pointer: &str) -> Option<&'a mut Map<String, Value>> {
    object.pointer_mut(pointer).and_then(Value::as_object_mut)
}

/// The items of the list at `pointer`, to change them; empty when absent.
pub fn list_mut<'a>(object: &'a mut Value, pointer: &str) -> &'a mut [Value] {
    object.pointer_mut(pointer).and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
}

/// Sets `key` of `map` when it is absent or `null`. For pointer fields, where an explicit zero counts.
pub fn set_if_absent(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.to_owned(), value.into());
    }
}

/// Sets `key` of `map` when it is absent, `null`, `""` or 0. For value fields, where Go cannot tell zero from absent.
pub fn set_if_zero(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if map.get(key).is_none_or(is_zero) {
        map.insert(key.to_owned(), value.into());
    }
}

/// `null`, `""`, 0 or `false`: what a Go value field holds when nobody set it.
#[must_use]
pub fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// Absent, `null`, zero, or an empty list or map: what `omitempty` leaves out.
#[must_use]
pub fn is_empty(value: Option<&Value>) -> bool {
    value.is_none_or(|value| match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        other => is_zero(other),
    })
}

/// Nothing is there: absent, `null`, or a list or map without entries. A zero is something: maps of texts hold empty ones, and pointer fields
/// know an explicit zero.
fn is_nothing(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(_) => false,
    }
}

/// Both sides mean the same: absent, `null` and empty lists and maps are one; maps ignore order.
#[must_use]
pub fn same(left: Option<&Value>, right: Option<&Value>) -> bool {
    match (left, right) {
        _ if is_nothing(left) || is_nothing(right) => is_nothing(left) && is_nothing(right),
        (Some(Value::Object(left)), Some(Value::Object(right))) => same_fields(left, right, |_| true),
        (Some(Value::Array(left)), Some(Value::Array(right))) => {
            left.len() == right.len()
                && left.iter().zip(right).all(|(left, right)| same(Some(left), Some(right)))
        }
        (left, right) => left == right,
    }
}

/// The fields of both maps that `counts` picks mean the same.
#[must_use]
pub fn same_fields(
    left: &Map<String, Value>,
    right: &Map<String, Value>,
    counts: impl Fn(&str) -> bool,
) -> bool {
    left.iter().filter(|(key, _)| counts(key)).all(|(key, value)| same(Some(value), right.get(key)))
        && right
            .iter()
            .filter(|(key, _)| counts(key))
            .all(|(key, value)| left.contains_key(key) || is_nothing(Some(value)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_null_and_empty_mean_the_same_and_zero_does_not() {
        let check = |left: Value, right: Value, expected: bool| {
            assert_eq!(same(Some(&left), Some(&right)), expected, "{left} {right}");
            assert_eq!(same(Some(&right), Some(&left)), expected, "{right} {left}");
        };
        check(json!({"a": 1}), json!({"a": 1, "b": null}), true);
        check(json!({"a": 1, "b": []}), json!({"a": 1}), true);
        check(json!({"a": {"c": {}}}), json!({}), false);
        check(json!({"a": 1, "b": 2}), json!({"b": 2, "a": 1}), true);
        check(json!([1, 2]), json!([2, 1]), false);
        check(json!({"a": "x"}), json!({"a": "y"}), false);
        check(json!({"label": ""}), json!({}), false);
        check(json!({"seconds": 0}), json!({}), false);
        assert!(same(None, Some(&json!({}))));
    }

    #[test]
    fn pointer_fields_keep_an_explicit_zero_and_value_fields_do_not() {
        let mut object = json!({"p": 0, "v": 0});
        let map = object.as_object_mut().unwrap();
        set_if_absent(map, "p", 5);
        set_if_zero(map, "v", 5);
        assert_eq!(object, json!({"p": 0, "v": 5}));
    }
}
