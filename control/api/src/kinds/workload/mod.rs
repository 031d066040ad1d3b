//! What Deployment, ReplicaSet and DaemonSet share: a pod template with its defaults, columns about its containers.
//!
//! Rules for selector and template are in `validation`.

mod validation;

use serde_json::Value;

use super::{cell, field, metadata, pod};
use crate::status::FieldError;
use crate::strategy::Column;
pub use validation::{
    is_zero_amount, not_above_all, positive_amount, selector_and_template, validate_selector,
};

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

/// Defaults of the pod template, which is there even when nobody wrote one.
pub fn default_template(object: &mut Value) {
    let Some(spec) = field::map_mut(object, "spec") else { return };
    let template = spec.entry("template").or_insert(Value::Null);
    field::map_mut(template, "metadata");
    field::map_mut(template, "spec");
    if let Some(spec) = template.get_mut("spec") {
        pod::defaults::pod_spec(spec);
    }
}

/// A number of the status, 0 while the controller has not spoken.
#[must_use]
pub fn count(object: &Value, pointer: &str) -> i64 {
    field::integer(object, pointer).unwrap_or(0)
}

/// The selector may not change: pods that it found would be lost.
#[must_use]
pub fn selector_unchanged(new: &Value, old: &Value) -> Vec<FieldError> {
    metadata::immutable(new, old, "/spec/selector", "spec.selector").into_iter().collect()
}

/// Warnings about the template, when it is new.
#[must_use]
pub fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let template = |object| field::at(object, "/spec/template");
    if old.is_some_and(|old| field::same(template(new), template(old))) {
        Vec::new()
    } else {
        pod::warnings::of_template(new)
    }
}
