//! Rules for what a pod asks of its node: tolerations, affinity, spreading, gates (kubernetes `validateAffinity`, `ValidateTolerations`).

use serde_json::Value;

use crate::kinds::at::At;
use crate::kinds::{metadata, names, workload};
use crate::status::FieldError;

/// Effects of a taint.
pub const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Checks everything of a pod's spec that the scheduler reads.
pub fn validate(spec: &At<'_>, errors: &mut Vec<FieldError>) {
    let affinity = spec.child("affinity");
    if let Some(affinity) = affinity.present("nodeAffinity") {
        node_affinity(&affinity, errors);
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        if let Some(affinity) = affinity.present(key) {
            pod_affinity(&affinity, errors);
        }
    }
    gates(spec, errors);
    spread(spec, errors);
    for toleration in spec.items("tolerations") {
        tolerate(&toleration, errors);
    }
}

fn node_affinity(affinity: &At<'_>, errors: &mut Vec<FieldError>) {
    if let Some(required) = affinity.present("requiredDuringSchedulingIgnoredDuringExecution") {
        if required.len("nodeSelectorTerms") == 0 {
            errors.push(required.required("nodeSelectorTerms", "must have at least one node selector term"));
        }
        for term in required.items("nodeSelectorTerms") {
            node_selector_term(&term, errors);
        }
    }
    for preferred in affinity.items("preferredDuringSchedulingIgnoredDuringExecution") {
        weight(&preferred, errors);
        node_selector_term(&preferred.child("preference"), errors);
    }
}

fn weight(preferred: &At<'_>, errors: &mut Vec<FieldError>) {
    if !preferred.integer("weight").is_some_and(|weight| (1..=100).contains(&weight)) {
        let shown = preferred.integer("weight").unwrap_or(0);
        errors.push(FieldError::invalid(preferred.path_of("weight"), shown, "must be in the range 1-100"));
    }
}

fn node_selector_term(term: &At<'_>, errors: &mut Vec<FieldError>) {
    for requirement in term.items("matchExpressions") {
        node_requirement(&requirement, errors);
        requirement_key(&requirement, errors);
    }
    for requirement in term.items("matchFields") {
        match requirement.text("operator") {
            "In" | "NotIn" if requirement.len("values") != 1 => {
                errors.push(requirement.required(
                    "values",
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
                ));
            }
            "In" | "NotIn" => {}
            _ => errors.push(requirement.invalid("operator", "not a valid selector operator")),
        }
        if requirement.text("key") != "metadata.name" {
            errors.push(requirement.invalid("key", "not a valid field selector key"));
        }
    }
}

fn node_requirement(requirement: &At<'_>, errors: &mut Vec<FieldError>) {
    let values = requirement.len("values");
    match requirement.text("operator") {
        "In" | "NotIn" if values == 0 => {
            errors
                .push(requirement.required("values", "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if values > 0 => {
            errors.push(
                requirement.forbidden(
                    "values",
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ),
            );
        }
        "Gt" | "Lt" if values != 1 => {
            errors.push(
                requirement
                    .required("values", "must be specified single value when `operator` is 'Lt' or 'Gt'"),
            );
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => errors.push(requirement.invalid("operator", "not a valid selector operator")),
    }
}

fn requirement_key(requirement: &At<'_>, errors: &mut Vec<FieldError>) {
    let key = requirement.text("key");
    metadata::invalid(errors, &requirement.path_of("key"), key, names::qualified_name(key));
}

fn pod_affinity(affinity: &At<'_>, errors: &mut Vec<FieldError>) {
    for term in affinity.items("requiredDuringSchedulingIgnoredDuringExecution") {
        pod_affinity_term(&term, errors);
    }
    for preferred in affinity.items("preferredDuringSchedulingIgnoredDuringExecution") {
        weight(&preferred, errors);
        pod_affinity_term(&preferred.child("podAffinityTerm"), errors);
    }
}

fn pod_affinity_term(term: &At<'_>, errors: &mut Vec<FieldError>) {
    for key in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = term.present(key) {
            workload::validate_selector(selector.value, &selector.path, errors);
        }
    }
    for namespace in term.items("namespaces") {
        let name = namespace.as_text();
        metadata::invalid(errors, &term.path_of("namespace"), name, names::dns_label(name));
    }
    topology_key(term, errors);
}

fn topology_key(at: &At<'_>, errors: &mut Vec<FieldError>) {
    if at.text("topologyKey").is_empty() {
        errors.push(at.required("topologyKey", "can not be empty"));
    } else {
        at.check_text("topologyKey", names::qualified_name, errors);
    }
}

fn gates(spec: &At<'_>, errors: &mut Vec<FieldError>) {
    let mut seen: Vec<&str> = Vec::new();
    for gate in spec.items("schedulingGates") {
        let name = gate.text("name");
        metadata::invalid(errors, &gate.path_of("name"), name, names::qualified_name(name));
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(gate.path.clone(), name));
        }
        seen.push(name);
    }
}

fn spread(spec: &At<'_>, errors: &mut Vec<FieldError>) {
    let pair = |constraint: &At<'_>| {
        format!("{{{}, {}}}", constraint.text("topologyKey"), constraint.text("whenUnsatisfiable"))
    };
    let pairs: Vec<String> =
        spec.items("topologySpreadConstraints").map(|constraint| pair(&constraint)).collect();
    for (index, constraint) in spec.items("topologySpreadConstraints").enumerate() {
        if constraint.integer("maxSkew").unwrap_or(0) <= 0 {
            let shown = constraint.integer("maxSkew").unwrap_or(0);
            errors.push(FieldError::invalid(
                constraint.path_of("maxSkew"),
                shown,
                "must be greater than zero",
            ));
        }
        topology_key(&constraint, errors);
        let action = constraint.text("whenUnsatisfiable");
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            let path = constraint.path_of("whenUnsatisfiable");
            errors.push(FieldError::not_supported(path, action, &["DoNotSchedule", "ScheduleAnyway"]));
        }
        if pairs[index + 1..].contains(&pairs[index]) {
            errors.push(FieldError::duplicate(
                constraint.path_of("{topologyKey, whenUnsatisfiable}"),
                pairs[index].clone(),
            ));
        }
        if constraint.integer("minDomains").is_some_and(|domains| domains <= 0) {
            errors.push(constraint.invalid("minDomains", "must be greater than zero"));
        }
        if constraint.has("minDomains") && action != "DoNotSchedule" {
            let message = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
            errors.push(constraint.invalid("minDomains", message));
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.check_choice(policy, &["Honor", "Ignore"], errors);
        }
        if let Some(selector) = constraint.present("labelSelector") {
            workload::validate_selector(selector.value, &selector.path, errors);
        }
    }
}

fn tolerate(toleration: &At<'_>, errors: &mut Vec<FieldError>) {
    let operator = toleration.text("operator");
    toleration.check_text("key", names::qualified_name, errors);
    if toleration.text("key").is_empty() && operator != "Exists" {
        let message =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(toleration.path_of("operator"), operator, message));
    }
    let effect = toleration.text("effect");
    if toleration.has("tolerationSeconds") && effect != "NoExecute" {
        let message = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(FieldError::invalid(toleration.path_of("effect"), effect, message));
    }
    let value = toleration.text("value");
    match operator {
        "Equal" | "" => {
            let messages = names::label_value(value);
            if !messages.is_empty() {
                errors.push(FieldError::invalid(toleration.path_of("operator"), value, messages.join(";")));
            }
        }
        "Exists" if !value.is_empty() => {
            let message = "value must be empty when `operator` is 'Exists'";
            errors.push(FieldError::invalid(
                toleration.path_of("operator"),
                toleration.value.clone(),
                message,
            ));
        }
        "Exists" => {}
        other => errors.push(FieldError::not_supported(
            toleration.path_of("operator"),
            other,
            &["Equal", "Exists"],
        )),
    }
    toleration.check_choice("effect", TAINT_EFFECTS, errors);
}

/// Every toleration of `old` is still in `new`, or one like it with another time: tolerations of a pod only grow.
#[must_use]
pub fn only_adds_tolerations(new: &[Value], old: &[Value]) -> bool {
    let without_time = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(map) = toleration.as_object_mut() {
            map.shift_remove("tolerationSeconds");
        }
        toleration
    };
    old.iter().all(|old| new.iter().any(|new| without_time(new) == without_time(old)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(spec: Value, expected: &[&str]) {
        let mut errors = Vec::new();
        validate(&At::new(&spec, "spec"), &mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn tolerations_match_taints() {
        check(
            json!({"tolerations": [{"operator": "Exists"}, {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]}),
            &[],
        );
        check(
            json!({"tolerations": [{"value": "x"}, {"key": "a", "operator": "Exists", "value": "x"}, {"key": "a", "operator": "Like", "effect": "Never", "tolerationSeconds": 1}]}),
            &[
                "spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                "spec.tolerations[1].operator: Invalid value: {\"key\":\"a\",\"operator\":\"Exists\",\"value\":\"x\"}: value must be empty when `operator` is 'Exists'",
                "spec.tolerations[2].effect: Invalid value: \"Never\": effect must be 'NoExecute' when `tolerationSeconds` is set",
                "spec.tolerations[2].operator: Unsupported value: \"Like\": supported values: \"Equal\", \"Exists\"",
                "spec.tolerations[2].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
            ],
        );
    }

    #[test]
    fn affinity_terms_are_complete() {
        check(
            json!({"affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In"}, {"key": "b", "operator": "Gt", "values": ["1"]}]}]},
                    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "preference": {}}],
                },
                "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {}}]},
            }}),
            &[
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
                "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty",
            ],
        );
    }

    #[test]
    fn spreading_says_over_what_and_how_far() {
        check(
            json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]}),
            &[],
        );
        check(
            json!({"topologySpreadConstraints": [
                {"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2},
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
                {"maxSkew": 1, "whenUnsatisfiable": "Maybe"},
            ]}),
            &[
                "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                "spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{zone, ScheduleAnyway}\"",
                "spec.topologySpreadConstraints[0].minDomains: Invalid value: 2: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
                "spec.topologySpreadConstraints[2].topologyKey: Required value: can not be empty",
                "spec.topologySpreadConstraints[2].whenUnsatisfiable: Unsupported value: \"Maybe\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
            ],
        );
    }

    #[test]
    fn tolerations_only_grow() {
        let one = json!({"key": "a", "operator": "Exists", "tolerationSeconds": 1});
        let longer = json!({"key": "a", "operator": "Exists", "tolerationSeconds": 9});
        let other = json!({"key": "b", "operator": "Exists"});
        assert!(only_adds_tolerations(&[longer, other.clone()], std::slice::from_ref(&one)));
        assert!(!only_adds_tolerations(&[other], &[one]));
    }
}
