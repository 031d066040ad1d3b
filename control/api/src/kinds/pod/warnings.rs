//! What is legal in a pod or pod template and yet hardly meant (kubernetes `pkg/api/pod/warnings.go`, the cheap ones).

use std::collections::HashMap;

use serde_json::Value;

use crate::kinds::at::At;
use crate::kinds::{field, names};
use crate::quantity::Quantity;

/// Labels of nodes that got other names: old, since when, new.
const RENAMED_LABELS: &[(&str, &str, &str)] = &[
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "v1.17", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "v1.17", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "v1.17", "node.kubernetes.io/instance-type"),
];

/// Warnings about a pod.
#[must_use]
pub fn of_pod(pod: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let messages = names::dns_label(field::text(pod, "/metadata/name"));
    if !messages.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
            messages.join(" ")
        ));
    }
    of_spec(&At::new(pod, "").child("spec"), &mut warnings);
    warnings
}

/// Warnings about the pod template of a workload.
#[must_use]
pub fn of_template(workload: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    of_spec(&At::new(workload, "").child("spec").child("template").child("spec"), &mut warnings);
    warnings
}

fn of_spec(spec: &At<'_>, warnings: &mut Vec<String>) {
    for (key, entry) in spec.entries("nodeSelector") {
        if let Some((_, since, new)) = RENAMED_LABELS.iter().find(|(old, ..)| *old == key) {
            warnings.push(format!("{}: deprecated since {since}; use \"{new}\" instead", entry.path));
        }
    }
    duplicates(spec, "imagePullSecrets", "name", warnings);
    if spec.integer("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        warnings.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            spec.path_of("terminationGracePeriodSeconds")
        ));
    }
    for list in ["initContainers", "containers"] {
        for container in spec.items(list) {
            fractional_bytes(&container, warnings);
            hidden_variables(&container, warnings);
            repeated_ports(&container, warnings);
        }
    }
}

fn duplicates(spec: &At<'_>, list: &str, key: &str, warnings: &mut Vec<String>) {
    let mut seen: Vec<&str> = Vec::new();
    for item in spec.items(list) {
        let name = item.text(key);
        if name.is_empty() {
            warnings.push(format!("{}.{key}: invalid empty name \"\"", item.path));
        } else if seen.contains(&name) {
            warnings.push(format!("{}.{key}: duplicate name \"{name}\"", item.path));
        }
        seen.push(name);
    }
}

fn fractional_bytes(container: &At<'_>, warnings: &mut Vec<String>) {
    let resources = container.child("resources");
    for list in ["limits", "requests"] {
        for (name, amount) in
            resources.entries(list).filter(|(name, _)| matches!(*name, "memory" | "ephemeral-storage"))
        {
            let fractional = Quantity::parse(amount.as_text()).is_ok_and(|quantity| !quantity.is_integer());
            if fractional {
                let path = format!("{}[{name}]", resources.path_of(list));
                warnings.push(format!(
                    "{path}: fractional byte value \"{}\" is invalid, must be an integer",
                    amount.as_text()
                ));
            }
        }
    }
}

fn hidden_variables(container: &At<'_>, warnings: &mut Vec<String>) {
    let mut seen: HashMap<&str, &Value> = HashMap::new();
    for variable in container.items("env") {
        let name = variable.text("name");
        if let Some(before) = seen.insert(name, variable.value) {
            // A value that refers to the one before it is meant.
            let refers = variable.text("value").contains(&format!("$({name})"));
            if !refers || before == variable.value {
                warnings.push(format!(
                    "{}: hides previous definition of \"{name}\", which may be dropped when using apply",
                    variable.path
                ));
            }
        }
    }
}

/// What makes two ports one: number, protocol, number and address on the host.
type PortKey<'a> = (Option<i64>, &'a str, Option<i64>, &'a str);

fn port_key<'a>(port: &At<'a>) -> PortKey<'a> {
    (port.integer("containerPort"), port.text("protocol"), port.integer("hostPort"), port.text("hostIP"))
}

fn repeated_ports(container: &At<'_>, warnings: &mut Vec<String>) {
    let mut seen: HashMap<PortKey<'_>, String> = HashMap::new();
    for port in container.items("ports") {
        match seen.get(&port_key(&port)) {
            Some(first) => warnings.push(format!("{}: duplicate port definition with {first}", port.path)),
            None => {
                seen.insert(port_key(&port), port.path.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(object: Value, expected: &[&str]) {
        assert_eq!(of_pod(&object), expected);
    }

    #[test]
    fn what_is_hardly_meant_is_said() {
        check(
            json!({"metadata": {"name": "a"}, "spec": {"containers": [{"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]}}),
            &[],
        );
        check(
            json!({"metadata": {"name": "a.b"}}),
            &[
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]",
            ],
        );
        check(
            json!({"metadata": {"name": "a"}, "spec": {
                "nodeSelector": {"beta.kubernetes.io/arch": "amd64"},
                "imagePullSecrets": [{"name": "x"}, {"name": "x"}],
                "containers": [{
                    "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "A", "value": "$(A):3"}],
                    "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP"}],
                    "resources": {"limits": {"memory": "100m"}},
                }],
            }}),
            &[
                "spec.nodeSelector[beta.kubernetes.io/arch]: deprecated since v1.14; use \"kubernetes.io/arch\" instead",
                "spec.imagePullSecrets[1].name: duplicate name \"x\"",
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
            ],
        );
        assert_eq!(
            of_template(&json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": -1}}}})),
            [
                "spec.template.spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
            ]
        );
    }
}
