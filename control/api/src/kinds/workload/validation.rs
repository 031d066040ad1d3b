//! Rules for selectors, pod templates and amounts of pods (kubernetes `pkg/apis/apps/validation`, apimachinery `meta/v1/validation`).

use serde_json::Value;

use crate::kinds::at::At;
use crate::kinds::{field, metadata, names, pod};
use crate::selector::LabelSelector;
use crate::status::FieldError;

/// Checks `spec.selector` and `spec.template` of a workload whose pods run for ever. `kind` is the word that upstream's message about empty
/// selectors uses.
pub fn selector_and_template(object: &Value, kind: &str, errors: &mut Vec<FieldError>) {
    let spec = At::new(object, "").child("spec");
    let selector = spec.child("selector");
    if selector.value.is_null() {
        errors.push(spec.required("selector", ""));
    } else {
        validate_selector(selector.value, &selector.path, errors);
        if selector.len("matchLabels") + selector.len("matchExpressions") == 0 {
            errors.push(spec.invalid("selector", format!("empty selector is invalid for {kind}")));
        }
    }
    let template = spec.child("template");
    if let Ok(parsed) =
        LabelSelector::from_object(Some(selector.value).filter(|selector| !selector.is_null()))
        && !parsed.is_everything()
    {
        let labels = field::at(template.value, "/metadata/labels");
        if !parsed.matches_map(labels) {
            let shown = labels.cloned().unwrap_or(Value::Null);
            errors.push(FieldError::invalid(
                template.path_of("metadata.labels"),
                shown,
                "`selector` does not match template `labels`",
            ));
        }
    }
    validate_template(&template, errors);
}

fn validate_template(template: &At<'_>, errors: &mut Vec<FieldError>) {
    metadata::validate_labels(template.value, "/metadata/labels", &template.path_of("labels"), errors);
    metadata::validate_annotations(
        template.value,
        "/metadata/annotations",
        &template.path_of("annotations"),
        errors,
    );
    let spec = template.child("spec");
    pod::validation::pod_spec(&spec, errors);
    if spec.len("ephemeralContainers") > 0 {
        errors
            .push(spec.forbidden("ephemeralContainers", "ephemeral containers not allowed in pod template"));
    }
    let policy = spec.text("restartPolicy");
    if !matches!(policy, "" | "Always") {
        errors.push(FieldError::not_supported(spec.path_of("restartPolicy"), policy, &["Always"]));
    }
    if spec.has("activeDeadlineSeconds") {
        errors.push(
            spec.forbidden("activeDeadlineSeconds", "activeDeadlineSeconds in ReplicaSet is not Supported"),
        );
    }
}

/// Checks that the field `key` is a count of at least 0 or a percentage.
pub fn positive_amount(at: &At<'_>, key: &str, errors: &mut Vec<FieldError>) {
    match at.child(key).value {
        Value::String(text) => {
            errors.extend(names::percent(text).into_iter().map(|message| at.invalid(key, message)));
        }
        _ => at.check_not_negative(key, errors),
    }
}

/// Checks that the field `key`, if a percentage, is at most 100%.
pub fn not_above_all(at: &At<'_>, key: &str, errors: &mut Vec<FieldError>) {
    if percentage(at.child(key).value).is_some_and(|percent| percent > 100) {
        errors.push(at.invalid(key, "must not be greater than 100%"));
    }
}

/// The amount is 0 or 0%.
#[must_use]
pub fn is_zero_amount(amount: &Value) -> bool {
    amount.as_i64() == Some(0) || percentage(amount) == Some(0)
}

fn percentage(amount: &Value) -> Option<i64> {
    amount.as_str().and_then(|text| text.strip_suffix('%')?.parse().ok())
}

/// What is wrong with the `LabelSelector` that `selector` holds.
pub fn validate_selector(selector: &Value, path: &str, errors: &mut Vec<FieldError>) {
    metadata::validate_labels(selector, "/matchLabels", &format!("{path}.matchLabels"), errors);
    for (index, requirement) in field::list(selector, "/matchExpressions").iter().enumerate() {
        let path = format!("{path}.matchExpressions[{index}]");
        let values = field::list(requirement, "/values").len();
        match field::text(requirement, "/operator") {
            "In" | "NotIn" if values == 0 => {
                errors.push(FieldError::required(
                    format!("{path}.values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                ));
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                errors.push(FieldError::forbidden(
                    format!("{path}.values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(
                format!("{path}.operator"),
                other,
                "not a valid selector operator",
            )),
        }
        let key = field::text(requirement, "/key");
        metadata::invalid(errors, &format!("{path}.key"), key, names::qualified_name(key));
        for (index, value) in field::items(requirement, "/values").enumerate() {
            metadata::invalid(errors, &format!("{path}.values[{index}]"), value, names::label_value(value));
        }
    }
}
