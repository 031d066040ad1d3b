//! What Deployment, ReplicaSet and DaemonSet share: a pod template with its defaults, columns about its containers.
//!
//! Rules for selector and template are in `workload_validation`.

use serde_json::{Value, json};

use super::{cell, field, metadata, names, pod};
use crate::status::FieldError;
use crate::strategy::Column;

/// The wide columns about the template's containers and the selector.
pub const CONTAINERS: Column = Column::wide("Containers", "Names of the containers of the pod template.");
/// See [`CONTAINERS`].
pub const IMAGES: Column = Column::wide("Images", "Images of the containers of the pod template.");
/// See [`CONTAINERS`].
pub const SELECTOR: Column = Column::wide("Selector", "Labels by which the pods are found.");

/// Cells of [`CONTAINERS`] and [`IMAGES`].
#[must_use]
pub fn container_cells(object: &Value) -> [Value; 2] {
    const LIST: &str = "/spec/template/spec/containers";
    [cell::joined(object, LIST, "/name").into(), cell::joined(object, LIST, "/image").into()]
}

/// Defaults of the pod template.
pub fn default_template(object: &mut Value) {
    if let Some(template) = object.pointer_mut("/spec/template").filter(|template| template.is_object()) {
        if let Some(map) = template.as_object_mut() {
            let metadata = map.entry("metadata").or_insert_with(|| json!({}));
            if metadata.is_null() {
                *metadata = json!({});
            }
        }
        if let Some(spec) = template.get_mut("spec") {
            pod::defaults::pod_spec(spec);
        }
    }
}

/// A number of the status, 0 while the controller has not spoken.
#[must_use]
pub fn count(object: &Value, pointer: &str) -> i64 {
    field::integer(object, pointer).unwrap_or(0)
}

/// What is wrong with the `LabelSelector` that `selector` holds.
pub fn validate_selector(selector: &Value, path: &str, errors: &mut Vec<FieldError>) {
    metadata::validate_labels(selector, "/matchLabels", &format!("{path}.matchLabels"), errors);
    for (index, requirement) in field::list(selector, "/matchExpressions").iter().enumerate() {
        let path = format!("{path}.matchExpressions[{index}]");
        let values = field::list(requirement, "/values").len();
        match field::text(requirement, "/operator") {
            "In" | "NotIn" if values == 0 => {
                errors.push(FieldError::required(format!("{path}.values"), "must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                errors.push(FieldError::forbidden(format!("{path}.values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(format!("{path}.operator"), other, "not a valid selector operator")),
        }
        let key = field::text(requirement, "/key");
        metadata::invalid(errors, &format!("{path}.key"), key, names::qualified_name(key));
        for (index, value) in field::items(requirement, "/values").enumerate() {
            metadata::invalid(errors, &format!("{path}.values[{index}]"), value, names::label_value(value));
        }
    }
}
