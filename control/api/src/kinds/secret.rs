//! core/v1 Secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::config_map::{DATA_MAX, decoded_len, validate_immutable};
use super::{cell, field, metadata, names};
use crate::status::FieldError;
use crate::strategy::{Column, Strategy};

/// core/v1 Secret.
#[derive(Debug, Clone, Copy)]
pub struct Secret;

/// Keys that a type demands.
const REQUIRED_KEYS: &[(&str, &[&str])] = &[
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

impl Strategy for Secret {
    fn default(&self, object: &mut Value) {
        encode_string_data(object);
        if let Some(map) = object.as_object_mut() {
            field::set_if_zero(map, "type", "Opaque");
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        metadata::count_generation(new, old, false);
        // Clients that know nothing of types leave it out; it cannot change anyway.
        if field::text(new, "/type").is_empty() {
            metadata::keep(new, old, "type");
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut size = 0;
        for (key, value) in field::texts(object, "/data") {
            metadata::invalid(&mut errors, &format!("data[{key}]"), key, names::config_key(key));
            size += decoded_len(value);
        }
        if size > DATA_MAX {
            errors.push(FieldError::too_long("data", DATA_MAX));
        }
        let kind = field::text(object, "/type");
        let has = |key: &str| field::map(object, "/data").is_some_and(|data| data.contains_key(key));
        for key in REQUIRED_KEYS.iter().filter(|(name, _)| *name == kind).flat_map(|(_, keys)| *keys) {
            if !has(key) {
                errors.push(FieldError::required(format!("data[{key}]"), ""));
            }
        }
        match kind {
            "kubernetes.io/service-account-token" => {
                const ACCOUNT: &str = "kubernetes.io/service-account.name";
                if field::map(object, "/metadata/annotations")
                    .is_none_or(|annotations| field::is_empty(annotations.get(ACCOUNT)))
                {
                    errors.push(FieldError::required(format!("metadata.annotations[{ACCOUNT}]"), ""));
                }
            }
            "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
                errors.push(FieldError::required("data[username]", ""));
                errors.push(FieldError::required("data[password]", ""));
            }
            _ => {}
        }
        for key in [".dockercfg", ".dockerconfigjson"] {
            if kind == format!("kubernetes.io/{}", &key[1..]) && has(key) && !holds_json(object, key) {
                errors.push(FieldError::invalid(
                    format!("data[{key}]"),
                    "<secret contents redacted>",
                    "not valid JSON",
                ));
            }
        }
        errors
    }

    fn validate_transition(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors: Vec<FieldError> =
            metadata::immutable(new, old, "/type", "type").into_iter().collect();
        errors.extend(validate_immutable(new, old, &["data"]));
        errors
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("type", field::text(object, "/type").to_owned())]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::NAME,
            Column::text("Type", "What the secret is for."),
            Column::text("Data", "Number of keys."),
            Column::AGE,
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let keys = field::map(object, "/data").map_or(0, serde_json::Map::len);
        vec![cell::name(object), field::text(object, "/type").into(), keys.into(), cell::age(object, now)]
    }
}

/// `stringData` is for writing only: its texts become `data`, over what is there.
fn encode_string_data(object: &mut Value) {
    let Some(texts) = object.as_object_mut().and_then(|map| map.shift_remove("stringData")) else { return };
    let Some(texts) = texts.as_object().filter(|texts| !texts.is_empty()) else { return };
    if let Some(data) = field::map_mut(object, "data") {
        data.extend(
            texts
                .iter()
                .map(|(key, text)| (key.clone(), STANDARD.encode(text.as_str().unwrap_or_default()).into())),
        );
    }
}

fn holds_json(object: &Value, key: &str) -> bool {
    let text = field::map(object, "/data")
        .and_then(|data| data.get(key))
        .and_then(Value::as_str)
        .unwrap_or_default();
    STANDARD.decode(text).is_ok_and(|bytes| serde_json::from_slice::<Value>(&bytes).is_ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(object: Value, expected: &[&str]) {
        assert_eq!(Secret.validate(&object).iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn string_data_is_encoded_over_data() {
        let mut object = json!({"data": {"a": "eA==", "b": "eA=="}, "stringData": {"a": "hello"}});
        Secret.default(&mut object);
        assert_eq!(object, json!({"data": {"a": "aGVsbG8=", "b": "eA=="}, "type": "Opaque"}));
    }

    #[test]
    fn types_demand_their_keys() {
        check(json!({"type": "Opaque", "data": {}}), &[]);
        check(
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            &["data[tls.key]: Required value"],
        );
        check(
            json!({"type": "kubernetes.io/basic-auth"}),
            &["data[username]: Required value", "data[password]: Required value"],
        );
        check(
            json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "eA=="}}),
            &[r#"data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": not valid JSON"#],
        );
        check(
            json!({"type": "kubernetes.io/service-account-token", "metadata": {}}),
            &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        );
    }

    #[test]
    fn the_type_never_changes() {
        let old = json!({"type": "Opaque"});
        let errors = Secret.validate_transition(&json!({"type": "kubernetes.io/tls"}), &old);
        assert_eq!(errors[0].to_string(), r#"type: Invalid value: "kubernetes.io/tls": field is immutable"#);
    }
}
