//! JSON merge patch (RFC 7396): what kubectl label, annotate and scale send.

use serde_json::Value;

use crate::status::ApiError;

/// `original` with `patch` merged in: objects merge, null deletes, anything else replaces.
///
/// # Errors
/// 400 for a patch that is no object.
pub fn merge_patch(original: &Value, patch: &Value) -> Result<Value, ApiError> {
    if !patch.is_object() {
        return Err(ApiError::bad_request("Invalid JSON Patch"));
    }
    let mut merged = original.clone();
    json_patch::merge(&mut merged, patch);
    Ok(merged)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn nulls_delete_and_lists_are_replaced() {
        let original = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1});
        let merged =
            merge_patch(&original, &json!({"a": {"b": null, "c": [3], "e": {"f": null, "g": 1}}})).unwrap();
        assert_eq!(merged, json!({"a": {"c": [3], "e": {"g": 1}}, "d": 1}));
        assert_eq!(merge_patch(&original, &json!([])).unwrap_err().code(), 400);
    }
}
