//! `namespaces/x/finalize`: the write that lets a terminating namespace go.

use serde_json::Value;

/// Of the new version only `spec.finalizers` counts.
pub(crate) fn prepare(new: &mut Value, old: &Value) {
    api::kinds::namespace::finalize(new, old);
}
