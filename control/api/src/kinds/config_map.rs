//! core/v1 ConfigMap.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{cell, field, metadata, names};
use crate::status::FieldError;
use crate::strategy::{Column, Strategy};

/// Largest sum of the values of a ConfigMap or Secret, in bytes.
pub const DATA_MAX: usize = 1024 * 1024;

/// core/v1 ConfigMap.
#[derive(Debug, Clone, Copy)]
pub struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let keys: BTreeSet<&str> = field::texts(object, "/data").map(|(key, _)| key).collect();
        let mut size = 0;
        for (key, value) in field::texts(object, "/data") {
            let path = format!("data[{key}]");
            metadata::invalid(&mut errors, &path, key, names::config_key(key));
            if field::map(object, "/binaryData").is_some_and(|binary| binary.contains_key(key)) {
                errors.push(FieldError::invalid(
                    path,
                    key,
                    format!("duplicate of key present in {}", "binaryData"),
                ));
            }
            size += value.len();
        }
        for (key, value) in field::texts(object, "/binaryData") {
            let path = format!("binaryData[{key}]");
            metadata::invalid(&mut errors, &path, key, names::config_key(key));
            if keys.contains(key) {
                errors.push(FieldError::invalid(
                    path,
                    key,
                    format!("duplicate of key present in {}", "data"),
                ));
            }
            size += decoded_len(value);
        }
        if size > DATA_MAX {
            errors.push(FieldError::too_long("", DATA_MAX));
        }
        errors
    }

    fn validate_transition(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        validate_immutable(new, old, &["data", "binaryData"])
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[Column::NAME, Column::text("Data", "Number of keys."), Column::AGE];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = |pointer: &str| field::map(object, pointer).map_or(0, serde_json::Map::len);
        vec![cell::name(object), (count("/data") + count("/binaryData")).into(), cell::age(object, now)]
    }
}

/// Bytes behind a base64 text.
#[must_use]
pub fn decoded_len(base64: &str) -> usize {
    base64.len() / 4 * 3
        - base64.bytes().rev().take(2).filter(|&byte| byte == b'=').count().min(base64.len() / 4 * 3)
}

/// What an object with `immutable: true` may not change: that flag and `keys`.
#[must_use]
pub fn validate_immutable(new: &Value, old: &Value, keys: &[&str]) -> Vec<FieldError> {
    const MESSAGE: &str = "field is immutable when `immutable` is set";
    if !field::flag(old, "/immutable") {
        return Vec::new();
    }
    let mut errors = Vec::new();
    if !field::flag(new, "/immutable") {
        errors.push(FieldError::forbidden("immutable", MESSAGE));
    }
    for key in keys {
        if !field::same(new.get(key), old.get(key)) {
            errors.push(FieldError::forbidden(*key, MESSAGE));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(errors: Vec<FieldError>, expected: &[&str]) {
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn keys_are_file_names_and_unique() {
        check(ConfigMap.validate(&json!({"data": {"a.txt": "x"}, "binaryData": {"b": "eA=="}})), &[]);
        check(
            ConfigMap.validate(&json!({"data": {"a": "x"}, "binaryData": {"a": "eA=="}})),
            &[
                r#"data[a]: Invalid value: "a": duplicate of key present in binaryData"#,
                r#"binaryData[a]: Invalid value: "a": duplicate of key present in data"#,
            ],
        );
        check(
            ConfigMap.validate(&json!({"data": {"a": "x".repeat(DATA_MAX + 1)}})),
            &[": Too long: may not be more than 1048576 bytes"],
        );
        assert_eq!(
            (decoded_len(""), decoded_len("eA=="), decoded_len("eHg="), decoded_len("eHh4")),
            (0, 1, 2, 3)
        );
    }

    #[test]
    fn an_immutable_map_stays_as_it_is() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        check(ConfigMap.validate_transition(&old, &old), &[]);
        check(
            ConfigMap.validate_transition(&json!({"data": {"a": "2"}}), &old),
            &[
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ],
        );
    }

    #[test]
    fn a_row_counts_keys() {
        let row = ConfigMap.cells(
            &json!({"metadata": {"name": "c"}, "data": {"a": "", "b": ""}, "binaryData": {"c": ""}}),
            "2026-01-01T00:00:00Z".parse().unwrap(),
        );
        assert_eq!(row[1], 3);
    }
}
