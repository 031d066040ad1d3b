//! A value inside an object together with its path as errors name it: what validators walk with.

use serde_json::Value;

use super::{field, names};
use crate::status::FieldError;

/// A value and where it is, such as `spec.containers[0]`.
#[derive(Debug, Clone)]
pub struct At<'a> {
    /// The value; `null` when the object has none there.
    pub value: &'a Value,
    /// Its path, in upstream's notation.
    pub path: String,
}

static ABSENT: Value = Value::Null;

impl<'a> At<'a> {
    /// `value`, known as `path`.
    pub fn new(value: &'a Value, path: impl Into<String>) -> Self {
        Self { value, path: path.into() }
    }

    /// The field `key`, present or not.
    #[must_use]
    pub fn child(&self, key: &str) -> At<'a> {
        At { value: self.value.get(key).unwrap_or(&ABSENT), path: self.path_of(key) }
    }

    /// The field `key`, if it is there.
    #[must_use]
    pub fn present(&self, key: &str) -> Option<At<'a>> {
        Some(self.child(key)).filter(|child| !child.value.is_null())
    }

    /// The items of the list `key`.
    pub fn items(&self, key: &str) -> impl Iterator<Item = At<'a>> + use<'a> {
        let path = self.path_of(key);
        let items = self.value.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        items.iter().enumerate().map(move |(index, value)| At { value, path: format!("{path}[{index}]") })
    }

    /// Keys and values of the map `key`, each with a path such as `data[a]`.
    pub fn entries(&self, key: &str) -> impl Iterator<Item = (&'a str, At<'a>)> + use<'a> {
        let path = self.path_of(key);
        let map = self.value.get(key).and_then(Value::as_object);
        map.into_iter()
            .flatten()
            .map(move |(name, value)| (name.as_str(), At { value, path: format!("{path}[{name}]") }))
    }

    /// How many items or entries `key` has.
    #[must_use]
    pub fn len(&self, key: &str) -> usize {
        match self.value.get(key) {
            Some(Value::Array(items)) => items.len(),
            Some(Value::Object(map)) => map.len(),
            _ => 0,
        }
    }

    /// The path of the field `key`.
    #[must_use]
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The text of the field `key`, empty when absent.
    #[must_use]
    pub fn text(&self, key: &str) -> &'a str {
        self.value.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// The value itself as text.
    #[must_use]
    pub fn as_text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The number of the field `key`.
    #[must_use]
    pub fn integer(&self, key: &str) -> Option<i64> {
        self.value.get(key).and_then(Value::as_i64)
    }

    /// The truth of the field `key`, `false` when absent.
    #[must_use]
    pub fn flag(&self, key: &str) -> bool {
        self.value.get(key).and_then(Value::as_bool).unwrap_or_default()
    }

    /// The field `key` is there and not `null`.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.value.get(key).is_some_and(|value| !value.is_null())
    }

    /// `Invalid value` at the field `key`.
    #[must_use]
    pub fn invalid(&self, key: &str, message: impl Into<String>) -> FieldError {
        FieldError::invalid(self.path_of(key), self.child(key).value.clone(), message)
    }

    /// `Forbidden` at the field `key`.
    #[must_use]
    pub fn forbidden(&self, key: &str, message: impl Into<String>) -> FieldError {
        FieldError::forbidden(self.path_of(key), message)
    }

    /// `Required value` at the field `key`.
    #[must_use]
    pub fn required(&self, key: &str, message: impl Into<String>) -> FieldError {
        FieldError::required(self.path_of(key), message)
    }

    /// Demands that the field `key` be a non-empty text, and says whether it is.
    pub fn demand(&self, key: &str, errors: &mut Vec<FieldError>) -> bool {
        let missing = self.text(key).is_empty();
        if missing {
            errors.push(self.required(key, ""));
        }
        !missing
    }

    /// Checks the text of the field `key` by `rule` of [`names`], when there is one.
    pub fn check_text(&self, key: &str, rule: fn(&str) -> Vec<String>, errors: &mut Vec<FieldError>) {
        let text = self.text(key);
        if !text.is_empty() {
            errors.extend(
                rule(text).into_iter().map(|message| FieldError::invalid(self.path_of(key), text, message)),
            );
        }
    }

    /// Checks that the field `key`, when set, is one of `supported`.
    pub fn check_choice(&self, key: &str, supported: &[&str], errors: &mut Vec<FieldError>) {
        let text = self.text(key);
        if !text.is_empty() && !supported.contains(&text) {
            errors.push(FieldError::not_supported(self.path_of(key), text, supported));
        }
    }

    /// As [`Self::check_choice`], and the field must be set.
    pub fn demand_choice(&self, key: &str, supported: &[&str], errors: &mut Vec<FieldError>) {
        if self.demand(key, errors) {
            self.check_choice(key, supported, errors);
        }
    }

    /// Checks that the number of the field `key`, when set, is at least 0.
    pub fn check_not_negative(&self, key: &str, errors: &mut Vec<FieldError>) {
        if self.integer(key).is_some_and(|number| number < 0) {
            errors.push(self.invalid(key, "must be greater than or equal to 0"));
        }
    }

    /// Checks that the number of the field `key`, when set, lies in `low..=high`.
    pub fn check_range(&self, key: &str, low: i64, high: i64, errors: &mut Vec<FieldError>) {
        if self.integer(key).is_some_and(|number| !(low..=high).contains(&number)) {
            errors.push(self.invalid(key, names::out_of_range(low, high)));
        }
    }

    /// Checks a port that is a number or the name of one.
    pub fn check_port(&self, key: &str, errors: &mut Vec<FieldError>) {
        let port = self.child(key);
        let messages = match port.value {
            Value::String(name) => names::port_name(name),
            Value::Number(number) => names::port_number(number.as_i64().unwrap_or(0)),
            _ => names::port_number(0),
        };
        let shown = if port.value.is_null() { Value::from(0) } else { port.value.clone() };
        errors.extend(
            messages
                .into_iter()
                .map(|message| FieldError::invalid(port.path.clone(), shown.clone(), message)),
        );
    }

    /// Checks the transport protocol of a port, which must be set.
    pub fn check_protocol(&self, errors: &mut Vec<FieldError>) {
        self.demand_choice("protocol", &["SCTP", "TCP", "UDP"], errors);
    }

    /// The same value stands in both, as [`field::same`] sees it.
    #[must_use]
    pub fn same(&self, other: &At<'_>) -> bool {
        field::same(Some(self.value), Some(other.value))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_read_as_upstreams() {
        let object = json!({"spec": {"ports": [{"port": 70000}], "labels": {"a/b": "c"}}});
        let spec = At::new(&object, "").child("spec");
        let port = spec.items("ports").next().map(|port| {
            let mut errors = Vec::new();
            port.check_port("port", &mut errors);
            port.check_port("targetPort", &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        });
        assert_eq!(
            port,
            Some(vec![
                "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive".to_owned(),
                "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive"
                    .to_owned(),
            ])
        );
        assert_eq!(
            spec.entries("labels").map(|(_, entry)| entry.path).collect::<Vec<_>>(),
            ["spec.labels[a/b]"]
        );
    }
}
