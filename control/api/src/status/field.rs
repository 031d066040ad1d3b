//! What is wrong with one field, in upstream's words (apimachinery `util/validation/field`).

use serde_json::Value;

use super::{Cause, quote};

/// The kind of a field error; `cause` is its word in `Status.details.causes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// `Required value`
    Required,
    /// `Invalid value`
    Invalid,
    /// `Invalid value`, because it has another type than the schema says
    TypeInvalid,
    /// `Unsupported value`
    NotSupported,
    /// `Duplicate value`
    Duplicate,
    /// `Not found`
    NotFound,
    /// `Forbidden`
    Forbidden,
    /// `Too long`
    TooLong,
    /// `Too many`
    TooMany,
    /// `Internal error`
    Internal,
}

impl FieldErrorKind {
    /// The word in `Status.details.causes[].reason`.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotFound => "FieldValueNotFound",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::NotFound => "Not found",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(self, Self::Required | Self::Forbidden | Self::TooLong | Self::Internal)
    }
}

/// One field that validation refuses. `Display` is `path: message`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What kind of wrong.
    pub kind: FieldErrorKind,
    /// Where: `spec.containers[0].name`, `metadata.labels[a/b]`.
    pub path: String,
    /// The refused value.
    pub value: Value,
    /// Why, may be empty.
    pub detail: String,
}

impl FieldError {
    fn new(
        kind: FieldErrorKind,
        path: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self { kind, path: path.into(), value: value.into(), detail: detail.into() }
    }

    /// The field is absent or empty.
    #[must_use]
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, path, Value::Null, detail)
    }

    /// The value is malformed or out of bounds.
    #[must_use]
    pub fn invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Invalid, path, value, detail)
    }

    /// The value has another type than the schema says.
    #[must_use]
    pub fn type_invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::TypeInvalid, path, value, detail)
    }

    /// The value is none of `supported`, which are listed in the given order.
    #[must_use]
    pub fn not_supported(path: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let detail = if supported.is_empty() {
            String::new()
        } else {
            let list: Vec<String> = supported.iter().map(|s| quote(s)).collect();
            format!("supported values: {}", list.join(", "))
        };
        Self::new(FieldErrorKind::NotSupported, path, value, detail)
    }

    /// The value must be unique and is not.
    #[must_use]
    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::Duplicate, path, value, "")
    }

    /// What the value names does not exist.
    #[must_use]
    pub fn not_found(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::NotFound, path, value, "")
    }

    /// Well formed, but not permitted here.
    #[must_use]
    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, path, Value::Null, detail)
    }

    /// The value is longer than `max_bytes`; it is not repeated in the message.
    #[must_use]
    pub fn too_long(path: impl Into<String>, max_bytes: usize) -> Self {
        let unit = if max_bytes == 1 { "byte" } else { "bytes" };
        Self::new(
            FieldErrorKind::TooLong,
            path,
            Value::Null,
            format!("may not be more than {max_bytes} {unit}"),
        )
    }

    /// The list has `actual` items and may have `max`.
    #[must_use]
    pub fn too_many(path: impl Into<String>, actual: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::new(FieldErrorKind::TooMany, path, actual, format!("must have at most {max} {unit}"))
    }

    /// A failure that is not the client's.
    #[must_use]
    pub fn internal(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Internal, path, Value::Null, detail)
    }

    /// The message without the path: `Invalid value: "x": why`.
    #[must_use]
    pub fn message(&self) -> String {
        let mut out = self.kind.title().to_owned();
        if self.kind.shows_value() {
            out.push_str(": ");
            match &self.value {
                Value::Null => out.push_str("null"),
                Value::String(text) => out.push_str(&quote(text)),
                other => out.push_str(&other.to_string()),
            }
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }

    pub(super) fn into_cause(self) -> Cause {
        Cause { kind: self.kind.cause().into(), message: self.message(), field: self.path }
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.message())
    }
}

/// The text for a list of errors: each once, in brackets when there are several. `None` for an empty list.
pub(super) fn aggregate(errors: &[FieldError]) -> Option<String> {
    let mut texts: Vec<String> = Vec::with_capacity(errors.len());
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.len() {
        0 => None,
        1 => texts.pop(),
        _ => Some(format!("[{}]", texts.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_are_in_upstreams_words() {
        for (error, text) in [
            (FieldError::required("a", ""), "a: Required value"),
            (FieldError::required("a", "why"), "a: Required value: why"),
            (FieldError::invalid("a", "x\"y", "why"), r#"a: Invalid value: "x\"y": why"#),
            (FieldError::invalid("a", json!({"k": 1}), "why"), r#"a: Invalid value: {"k":1}: why"#),
            (FieldError::invalid("a", Value::Null, "why"), "a: Invalid value: null: why"),
            (
                FieldError::not_supported("a", "z", &["x", "y"]),
                r#"a: Unsupported value: "z": supported values: "x", "y""#,
            ),
            (FieldError::duplicate("a", "z"), r#"a: Duplicate value: "z""#),
            (FieldError::not_found("a", "z"), r#"a: Not found: "z""#),
            (FieldError::forbidden("a", "why"), "a: Forbidden: why"),
            (FieldError::too_long("a", 63), "a: Too long: may not be more than 63 bytes"),
            (FieldError::too_many("a", 5, 1), "a: Too many: 5: must have at most 1 item"),
            (FieldError::type_invalid("a", true, "why"), "a: Invalid value: true: why"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
