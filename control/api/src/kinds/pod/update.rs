//! What may change in a pod (kubernetes `ValidatePodUpdate`): images, a shorter deadline, more tolerations; of a gated pod also what
//! narrows where it may run.

use serde_json::{Map, Value};

use super::scheduling::only_adds_tolerations;
use crate::kinds::at::At;
use crate::kinds::{field, names};
use crate::status::FieldError;

const RULE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What is wrong with the step from `old` to `new` in a pod's spec.
#[must_use]
pub fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (new, old) = (At::new(new, "").child("spec"), At::new(old, "").child("spec"));
    for list in ["containers", "initContainers"] {
        if new.len(list) != old.len(list) {
            errors.push(FieldError::forbidden(
                new.path_of(list),
                "pod updates may not add or remove containers",
            ));
            return errors;
        }
        for container in new.items(list) {
            container.demand("image", &mut errors);
        }
    }
    deadline(&new, &old, &mut errors);
    let tolerations = [&new, &old].map(|spec| field::list(spec.value, "/tolerations"));
    if !only_adds_tolerations(tolerations[0], tolerations[1]) {
        errors.push(FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
    gates(&new, &old, &mut errors);
    let differences = differences(&masked(new.value, old.value), old.value);
    if !differences.is_empty() {
        errors.push(FieldError::forbidden("spec", format!("{RULE}\n{}", differences.join("\n"))));
    }
    errors
}

fn deadline(new: &At<'_>, old: &At<'_>, errors: &mut Vec<FieldError>) {
    const KEY: &str = "activeDeadlineSeconds";
    match (new.integer(KEY), old.integer(KEY)) {
        (Some(now), _) if !(0..=i64::from(i32::MAX)).contains(&now) => {
            errors.push(new.invalid(KEY, names::out_of_range(0, i64::from(i32::MAX))));
        }
        (Some(now), Some(before)) if now > before => {
            errors.push(new.invalid(KEY, "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            errors.push(new.invalid(KEY, "must not update from a positive integer to nil value"));
        }
        _ => {}
    }
}

fn gates(new: &At<'_>, old: &At<'_>, errors: &mut Vec<FieldError>) {
    let before: Vec<&str> =
        old.items("schedulingGates").map(|gate| field::text(gate.value, "/name")).collect();
    for gate in new.items("schedulingGates") {
        if !before.contains(&gate.text("name")) {
            let message = "only deletion is allowed, but found new scheduling gate";
            errors.push(FieldError::forbidden(
                "spec.schedulingGates",
                format!("{message} '{}'", gate.text("name")),
            ));
        }
    }
}

/// `new` with everything that may change put back as it was.
fn masked(new: &Value, old: &Value) -> Value {
    let mut masked = new.clone();
    for list in ["containers", "initContainers"] {
        let images: Vec<Option<Value>> = field::list(old, &format!("/{list}"))
            .iter()
            .map(|container| container.get("image").cloned())
            .collect();
        for (container, image) in field::list_mut(&mut masked, &format!("/{list}")).iter_mut().zip(images) {
            if let (Some(container), Some(image)) = (container.as_object_mut(), image) {
                container.insert("image".to_owned(), image);
            }
        }
    }
    let gated = !field::list(old, "/schedulingGates").is_empty();
    let negative_grace = field::integer(old, "/terminationGracePeriodSeconds")
        .is_some_and(|seconds| seconds < 0)
        && field::integer(new, "/terminationGracePeriodSeconds") == Some(1);
    // Ephemeral containers come by a subresource, which keeps the rest; here they are whatever is stored.
    let mut kept = vec!["activeDeadlineSeconds", "tolerations", "ephemeralContainers", "schedulingGates"];
    if negative_grace {
        kept.push("terminationGracePeriodSeconds");
    }
    // While gated, a pod may be narrowed: nobody has chosen a node yet.
    if gated {
        kept.extend(["nodeSelector", "affinity"]);
    }
    if let Some(map) = masked.as_object_mut() {
        for key in kept {
            put_back(map, old, key);
        }
    }
    masked
}

fn put_back(map: &mut Map<String, Value>, old: &Value, key: &str) {
    match old.get(key) {
        Some(value) => {
            map.insert(key.to_owned(), value.clone());
        }
        None => {
            map.shift_remove(key);
        }
    }
}

/// One line for each field that differs: its path, what it was, what it is.
fn differences(new: &Value, old: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    collect(new, old, "spec", &mut lines);
    lines
}

fn collect(new: &Value, old: &Value, path: &str, lines: &mut Vec<String>) {
    if field::same(Some(new), Some(old)) {
        return;
    }
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            let added = new.keys().filter(|key| !old.contains_key(*key));
            for key in old.keys().chain(added) {
                collect(
                    new.get(key).unwrap_or(&Value::Null),
                    old.get(key).unwrap_or(&Value::Null),
                    &format!("{path}.{key}"),
                    lines,
                );
            }
        }
        (Value::Array(new), Value::Array(old)) if new.len() == old.len() => {
            for (index, (new, old)) in new.iter().zip(old).enumerate() {
                collect(new, old, &format!("{path}[{index}]"), lines);
            }
        }
        _ => lines.push(format!("  {path}:\n-   {old}\n+   {new}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(change: impl Fn(&mut Value), expected: &[&str]) {
        let old = json!({"spec": {
            "containers": [{"name": "a", "image": "b:1", "ports": [{"containerPort": 80}]}],
            "activeDeadlineSeconds": 10,
            "tolerations": [{"key": "x", "operator": "Exists"}],
            "nodeSelector": {"a": "b"},
        }});
        let mut new = old.clone();
        change(&mut new["spec"]);
        assert_eq!(validate(&new, &old).iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn images_shorter_deadlines_and_more_tolerations_may_come() {
        check(|_| {}, &[]);
        check(|spec| spec["containers"][0]["image"] = json!("b:2"), &[]);
        check(|spec| spec["activeDeadlineSeconds"] = json!(5), &[]);
        check(
            |spec| {
                spec["tolerations"] =
                    json!([{"key": "x", "operator": "Exists"}, {"key": "y", "operator": "Exists"}]);
            },
            &[],
        );
    }

    #[test]
    fn everything_else_stays() {
        check(
            |spec| spec["containers"][0]["ports"][0]["containerPort"] = json!(81),
            &[&format!(
                "spec: Forbidden: {RULE}\n  spec.containers[0].ports[0].containerPort:\n-   80\n+   81"
            )],
        );
        check(
            |spec| spec["nodeName"] = json!("n"),
            &[&format!("spec: Forbidden: {RULE}\n  spec.nodeName:\n-   null\n+   \"n\"")],
        );
        check(
            |spec| spec["containers"] = json!([]),
            &["spec.containers: Forbidden: pod updates may not add or remove containers"],
        );
        check(
            |spec| spec["activeDeadlineSeconds"] = json!(11),
            &["spec.activeDeadlineSeconds: Invalid value: 11: must be less than or equal to previous value"],
        );
        check(
            |spec| spec["tolerations"] = json!([]),
            &[
                "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
            ],
        );
        check(
            |spec| spec["schedulingGates"] = json!([{"name": "g"}]),
            &["spec.schedulingGates: Forbidden: only deletion is allowed, but found new scheduling gate 'g'"],
        );
    }

    #[test]
    fn a_gated_pod_may_be_narrowed() {
        let old = json!({"spec": {"containers": [], "schedulingGates": [{"name": "g"}]}});
        let new = json!({"spec": {"containers": [], "schedulingGates": [], "nodeSelector": {"a": "b"}}});
        assert_eq!(validate(&new, &old), []);
    }
}
