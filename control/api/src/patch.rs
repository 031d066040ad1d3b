//! The three kinds of PATCH: JSON patch (RFC 6902), merge patch (RFC 7396) and strategic merge patch.
//!
//! [`apply`] does what a PATCH request needs: parse, patch, check against the schema. Server-side apply is not here.

mod json;
mod merge;
mod strategic;

use serde_json::Value;

use crate::decode::{self, Decoded, FieldValidation, Target};
use crate::status::{ApiError, FieldError};
pub use json::json_patch;
pub use merge::merge_patch;
pub use strategic::strategic_merge_patch;

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
}

impl Kind {
    /// The media types that can be read, as error messages list them.
    pub const ACCEPTED: [&'static str; 3] = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ];

    /// From a `Content-Type` header.
    ///
    /// # Errors
    /// 415 for anything else.
    pub fn of(content_type: Option<&str>) -> Result<Self, ApiError> {
        let essence = decode::essence(content_type);
        match Self::ACCEPTED.iter().position(|accepted| *accepted == essence) {
            Some(0) => Ok(Self::Json),
            Some(1) => Ok(Self::Merge),
            Some(_) => Ok(Self::Strategic),
            None => Err(ApiError::unsupported_media_type(&Self::ACCEPTED)),
        }
    }
}

/// Applies the body of a PATCH request to `current`, which must be of the target's kind.
///
/// # Errors
/// 400 for a malformed patch, 413 for one with too many operations, 422 when it does not apply or its result does not fit the schema.
pub fn apply(
    current: &Value,
    body: &[u8],
    kind: Kind,
    target: &Target,
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    let (patch, duplicates) =
        decode::json_value(body).map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
    let mut object = match kind {
        Kind::Json => json_patch(current, &patch)?,
        Kind::Merge => merge_patch(current, &patch)?,
        Kind::Strategic => strategic_merge_patch(current, &patch, target.type_name)?,
    };
    let shown = |object: &Value| match kind {
        Kind::Strategic => go_print(&patch),
        Kind::Json | Kind::Merge => object.to_string(),
    };
    let refused = |object: &Value, why: String| {
        ApiError::invalid(("", ""), "", vec![FieldError::invalid("patch", shown(object), why)])
    };
    for (key, expected) in [
        ("apiVersion", crate::registry::api_version(target.group, target.version)),
        ("kind", target.kind.into()),
    ] {
        if object.get(key).is_some_and(|given| given != expected.as_str()) && !target.any_version {
            let why = format!("{key} may not be changed to {}", object[key]);
            return Err(refused(&object, why));
        }
    }
    let before = object.clone();
    match decode::conform(&mut object, target.type_name, validation, duplicates) {
        Ok(warnings) => Ok(Decoded { object, warnings }),
        Err(error) => Err(refused(&before, error.to_string())),
    }
}

/// A value as Go's `%v` prints it: `map[a:1 b:[x y]]`, keys sorted.
fn go_print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_print).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut entries: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", go_print(value))).collect();
            entries.sort();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

/// 422 for a patch that cannot be applied; the cause tells why.
fn does_not_apply(why: impl Into<String>) -> ApiError {
    use crate::status::{Cause, Details, Reason};
    let cause = Cause { kind: "UnexpectedServerResponse".into(), message: why.into(), field: "patch".into() };
    ApiError::new(Reason::Invalid, "the server rejected our request due to an error in our request")
        .with_details(Details { causes: vec![cause], ..Details::default() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn deployment() -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"a": "b"}},
            "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "main", "image": "echo:1"}]}}},
        })
    }

    fn run(kind: Kind, patch: &str, validation: FieldValidation) -> Result<Decoded, ApiError> {
        let target = Target::of(crate::registry::lookup("apps", "v1", "deployments").unwrap());
        apply(&deployment(), patch.as_bytes(), kind, &target, validation)
    }

    #[track_caller]
    fn refused(kind: Kind, patch: &str, code: u16, message: &str) {
        let error = run(kind, patch, FieldValidation::Strict).unwrap_err();
        assert_eq!((error.code(), error.message.as_str()), (code, message));
    }

    #[test]
    fn patches_that_break_the_schema_are_refused_with_the_field() {
        refused(
            Kind::Strategic,
            r#"{"spec":{"replcas":3}}"#,
            422,
            r#" "" is invalid: patch: Invalid value: "map[spec:map[replcas:3]]": strict decoding error: unknown field "spec.replcas""#,
        );
        refused(
            Kind::Strategic,
            r#"{"spec":{"replicas":"x"}}"#,
            422,
            r#" "" is invalid: patch: Invalid value: "map[spec:map[replicas:x]]": json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"#,
        );
        let error = run(Kind::Merge, r#"{"spec":{"replcas":3}}"#, FieldValidation::Strict).unwrap_err();
        assert!(
            error
                .message
                .starts_with(r#" "" is invalid: patch: Invalid value: "{\"apiVersion\":\"apps/v1\""#),
            "{error}"
        );
        assert!(error.message.ends_with(r#"strict decoding error: unknown field "spec.replcas""#), "{error}");
        refused(
            Kind::Merge,
            "{",
            400,
            "error decoding patch: unexpected end of JSON input (line 1, column 1)",
        );
        let error = run(Kind::Merge, r#"{"kind":"Pod"}"#, FieldValidation::Warn).unwrap_err();
        assert!(error.message.ends_with("kind may not be changed to \"Pod\""), "{error}");
    }

    #[test]
    fn lenient_patches_drop_what_is_unknown_and_warn() {
        let patched = run(
            Kind::Strategic,
            r#"{"spec":{"replcas":3,"replicas":2,"replicas":4}}"#,
            FieldValidation::Warn,
        )
        .unwrap();
        assert_eq!(patched.object["spec"]["replicas"], 4);
        assert_eq!(
            patched.warnings,
            [r#"duplicate field "spec.replicas""#, r#"unknown field "spec.replcas""#]
        );
        assert!(patched.object["spec"].get("replcas").is_none());
    }

    #[test]
    fn each_kind_patches() {
        for (kind, patch) in [
            (
                Kind::Json,
                r#"[{"op":"replace","path":"/spec/replicas","value":3},{"op":"remove","path":"/metadata/labels/a"}]"#,
            ),
            (Kind::Merge, r#"{"spec":{"replicas":3},"metadata":{"labels":{"a":null}}}"#),
            (Kind::Strategic, r#"{"spec":{"replicas":3},"metadata":{"labels":{"a":null}}}"#),
        ] {
            let patched = run(kind, patch, FieldValidation::Strict).unwrap().object;
            assert_eq!(
                (&patched["spec"]["replicas"], patched["metadata"].get("labels")),
                (&json!(3), None),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn media_types() {
        assert_eq!(Kind::of(Some("application/strategic-merge-patch+json")), Ok(Kind::Strategic));
        assert_eq!(Kind::of(Some("application/merge-patch+json; charset=utf-8")), Ok(Kind::Merge));
        assert_eq!(Kind::of(Some("application/json")).unwrap_err().code(), 415);
        assert_eq!(Kind::of(None).unwrap_err().code(), 415);
    }
}
