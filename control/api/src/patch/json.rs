//! JSON patch (RFC 6902): a list of operations, all or none.

use json_patch::{PatchErrorKind, PatchOperation};
use serde_json::Value;

use super::does_not_apply;
use crate::status::{ApiError, Reason};

/// More would let a small request cost much work.
const MAX_OPERATIONS: usize = 10_000;
/// Copies of copies grow fast: together they may add this many bytes, the largest body of a request.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// `original` after all operations of `patch`.
///
/// # Errors
/// 400 for a malformed patch, 413 for too many operations, 422 when an operation does not apply.
pub fn json_patch(original: &Value, patch: &Value) -> Result<Value, ApiError> {
    let Value::Array(operations) = patch else {
        let kind = if patch.is_object() { "object" } else { "value" };
        return Err(ApiError::bad_request(format!(
            "json: cannot unmarshal {kind} into Go value of type jsonpatch.Patch"
        )));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(ApiError::new(
            Reason::RequestEntityTooLarge,
            format!(
                "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                operations.len()
            ),
        ));
    }
    let mut parsed = Vec::with_capacity(operations.len());
    for (i, operation) in operations.iter().enumerate() {
        let operation: PatchOperation = serde_json::from_value(operation.clone())
            .map_err(|e| ApiError::bad_request(format!("error decoding patch: operation {i}: {e}")))?;
        parsed.push(operation);
    }
    let mut patched = original.clone();
    let mut copied = 0;
    for operation in &parsed {
        if let PatchOperation::Copy(copy) = operation {
            copied += patched.pointer(copy.from.as_str()).map_or(0, |value| value.to_string().len());
            if copied > MAX_COPIED_BYTES {
                return Err(does_not_apply(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED_BYTES}"
                )));
            }
        }
        json_patch::patch(&mut patched, std::slice::from_ref(operation))
            .map_err(|e| does_not_apply(message(operation, &e.kind)))?;
    }
    Ok(patched)
}

/// The text of evanphx/json-patch, which upstream uses.
fn message(operation: &PatchOperation, kind: &PatchErrorKind) -> String {
    let name = match operation {
        PatchOperation::Add(_) => "add",
        PatchOperation::Remove(_) => "remove",
        PatchOperation::Replace(_) => "replace",
        PatchOperation::Move(_) => "move",
        PatchOperation::Copy(_) => "copy",
        PatchOperation::Test(_) => "test",
    };
    match kind {
        PatchErrorKind::TestFailed => format!("testing value {} failed: test failed", operation.path()),
        PatchErrorKind::InvalidFromPointer => {
            format!(
                "{name} operation does not apply: doc is missing from path: {}: missing value",
                from(operation)
            )
        }
        PatchErrorKind::InvalidPointer => {
            format!(
                "{name} operation does not apply: doc is missing path: {}: missing value",
                operation.path()
            )
        }
        other => format!("{name} operation does not apply: {other}"),
    }
}

fn from(operation: &PatchOperation) -> String {
    match operation {
        PatchOperation::Move(of) => of.from.to_string(),
        PatchOperation::Copy(of) => of.from.to_string(),
        other => other.path().to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(patch: Value, expected: Result<Value, &str>) {
        let original = json!({"a": {"b": "c"}, "list": [1, 2]});
        let got = json_patch(&original, &patch)
            .map_err(|e| e.details.map_or(e.message, |d| d.causes[0].message.clone()));
        assert_eq!(got, expected.map_err(str::to_owned));
    }

    #[test]
    fn operations_apply_in_order() {
        check(
            json!([
                {"op": "test", "path": "/a/b", "value": "c"},
                {"op": "add", "path": "/list/0", "value": 0},
                {"op": "add", "path": "/list/-", "value": 3},
                {"op": "replace", "path": "/a/b", "value": "d"},
                {"op": "copy", "from": "/a/b", "path": "/a/x~1y"},
                {"op": "move", "from": "/a/b", "path": "/z"},
            ]),
            Ok(json!({"a": {"x/y": "d"}, "list": [0, 1, 2, 3], "z": "d"})),
        );
    }

    #[test]
    fn what_does_not_apply_says_which_operation_and_path() {
        check(
            json!([{"op": "remove", "path": "/x"}]),
            Err("remove operation does not apply: doc is missing path: /x: missing value"),
        );
        check(
            json!([{"op": "replace", "path": "/x", "value": 1}]),
            Err("replace operation does not apply: doc is missing path: /x: missing value"),
        );
        check(
            json!([{"op": "add", "path": "/x/y", "value": 1}]),
            Err("add operation does not apply: doc is missing path: /x/y: missing value"),
        );
        check(
            json!([{"op": "test", "path": "/a/b", "value": 1}]),
            Err("testing value /a/b failed: test failed"),
        );
        check(
            json!([{"op": "copy", "from": "/q", "path": "/z"}]),
            Err("copy operation does not apply: doc is missing from path: /q: missing value"),
        );
        check(json!({}), Err("json: cannot unmarshal object into Go value of type jsonpatch.Patch"));
    }

    #[test]
    fn copies_of_copies_are_bounded() {
        let copy = |n: usize| json!({"op": "copy", "from": "/a", "path": format!("/a/{n}")});
        let error = json_patch(&json!({"a": {"b": "0123456789"}}), &(0..40).map(copy).collect()).unwrap_err();
        assert!(error.details.unwrap().causes[0].message.starts_with("Unable to complete the copy"));
    }

    #[test]
    fn too_many_operations_are_refused_before_any_is_done() {
        let many: Vec<Value> =
            (0..=MAX_OPERATIONS).map(|_| json!({"op": "test", "path": "", "value": 1})).collect();
        let error = json_patch(&json!({}), &many.into()).unwrap_err();
        assert_eq!(error.code(), 413);
        assert!(
            error.message.ends_with("The allowed maximum operations in a JSON patch is 10000, got 10001")
        );
    }
}
