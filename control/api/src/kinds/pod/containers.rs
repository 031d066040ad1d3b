//! Rules for the containers of a pod: names, ports, environment, mounts, resources (kubernetes `validateContainers`).

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{probes, volumes};
use crate::kinds::at::At;
use crate::kinds::names;
use crate::quantity::Quantity;
use crate::status::FieldError;

/// Checks all lists of containers of a pod's spec against its volumes, given by name.
pub fn validate(spec: &At<'_>, volumes: &HashMap<&str, &Value>, errors: &mut Vec<FieldError>) {
    if spec.len("containers") == 0 {
        errors.push(spec.required("containers", ""));
    }
    let grace = spec
        .integer("terminationGracePeriodSeconds")
        .unwrap_or(super::defaults::TERMINATION_GRACE_PERIOD_SECONDS);
    let mut seen: HashSet<&str> = HashSet::new();
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let mut host_ports: HashSet<String> = HashSet::new();
        for container in spec.items(list) {
            container_common(&container, volumes, errors);
            let name = container.text("name");
            if !name.is_empty() && !seen.insert(name) {
                errors.push(FieldError::duplicate(container.path_of("name"), name));
            }
            if list == "containers" {
                unique_host_ports(&container, &mut host_ports, errors);
            }
            if spec.flag("hostNetwork") {
                published_ports(&container, errors);
            }
            restart_policy(&container, list, errors);
            probes::validate(&container, list, grace, errors);
        }
    }
}

fn container_common(container: &At<'_>, volumes: &HashMap<&str, &Value>, errors: &mut Vec<FieldError>) {
    if container.demand("name", errors) {
        container.check_text("name", names::dns_label, errors);
    }
    container.demand("image", errors);
    container.check_choice("terminationMessagePolicy", &["FallbackToLogsOnError", "File"], errors);
    ports(container, errors);
    environment(container, errors);
    mounts(container, volumes, errors);
    container.demand_choice("imagePullPolicy", &["Always", "IfNotPresent", "Never"], errors);
    resources(&container.child("resources"), errors);
    security_context(container, errors);
}

fn restart_policy(container: &At<'_>, list: &str, errors: &mut Vec<FieldError>) {
    match (list, container.text("restartPolicy")) {
        (_, "") => {}
        ("ephemeralContainers", _) => {
            errors.push(container.forbidden("restartPolicy", "cannot be set for an Ephemeral Container"));
        }
        _ => container.check_choice("restartPolicy", &["Always", "OnFailure", "Never"], errors),
    }
}

fn ports(container: &At<'_>, errors: &mut Vec<FieldError>) {
    let mut seen: HashSet<&str> = HashSet::new();
    for port in container.items("ports") {
        let name = port.text("name");
        port.check_text("name", names::port_name, errors);
        if !name.is_empty() && !seen.insert(name) {
            errors.push(FieldError::duplicate(port.path_of("name"), name));
        }
        match port.integer("containerPort") {
            None | Some(0) => errors.push(port.required("containerPort", "")),
            Some(_) => port.check_range("containerPort", 1, 65_535, errors),
        }
        if port.integer("hostPort") != Some(0) {
            port.check_range("hostPort", 1, 65_535, errors);
        }
        port.check_protocol(errors);
    }
}

fn unique_host_ports(container: &At<'_>, taken: &mut HashSet<String>, errors: &mut Vec<FieldError>) {
    for port in container.items("ports") {
        let Some(number) = port.integer("hostPort").filter(|&number| number != 0) else { continue };
        let key = format!("{}/{}/{number}", port.text("protocol"), port.text("hostIP"));
        if !taken.insert(key.clone()) {
            errors.push(FieldError::duplicate(port.path_of("hostPort"), key));
        }
    }
}

fn published_ports(container: &At<'_>, errors: &mut Vec<FieldError>) {
    for port in container.items("ports") {
        if port.integer("hostPort").unwrap_or(0) != port.integer("containerPort").unwrap_or(0) {
            errors.push(port.invalid("containerPort", "must match `hostPort` when `hostNetwork` is true"));
        }
    }
}

const ENV_SOURCES: [&str; 5] =
    ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

fn environment(container: &At<'_>, errors: &mut Vec<FieldError>) {
    for variable in container.items("env") {
        if variable.demand("name", errors) {
            variable.check_text("name", names::env_name, errors);
        }
        let Some(source) = variable.present("valueFrom") else { continue };
        let given = ENV_SOURCES.iter().filter(|key| source.has(key)).count();
        let wrong = if given == 0 {
            Some(
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            )
        } else if !variable.text("value").is_empty() {
            Some("may not be specified when `value` is not empty")
        } else {
            (given > 1).then_some("may not have more than one field specified at a time")
        };
        errors.extend(wrong.map(|message| FieldError::invalid(source.path.clone(), "", message)));
        if let Some(reference) = source.present("fieldRef") {
            field_ref(&reference, ENV_FIELDS, errors);
        }
        for key in ["configMapKeyRef", "secretKeyRef"] {
            if let Some(reference) = source.present(key) {
                reference.demand("name", errors);
                if reference.demand("key", errors) {
                    reference.check_text("key", names::config_key, errors);
                }
            }
        }
        if let Some(reference) = source.present("resourceFieldRef") {
            reference.demand("resource", errors);
        }
    }
    for source in container.items("envFrom") {
        let given: Vec<At<'_>> =
            ["configMapRef", "secretRef"].into_iter().filter_map(|key| source.present(key)).collect();
        for reference in &given {
            reference.demand("name", errors);
        }
        source.check_text("prefix", names::env_name, errors);
        match given.len() {
            0 => errors.push(FieldError::invalid(
                source.path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            1 => {}
            _ => errors.push(FieldError::invalid(
                source.path,
                "",
                "may not have more than one field specified at a time",
            )),
        }
    }
}

/// Fields that an environment variable can hold.
pub const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields that a file of a downward API volume can hold.
pub const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Checks a reference to a field of the pod: one of `supported`, or one label or annotation.
pub fn field_ref(reference: &At<'_>, supported: &[&str], errors: &mut Vec<FieldError>) {
    reference.demand("apiVersion", errors);
    if !reference.demand("fieldPath", errors) {
        return;
    }
    let path = reference.text("fieldPath");
    let subscript = path.split_once("['").and_then(|(map, rest)| Some((map, rest.strip_suffix("']")?)));
    let known = [
        ENV_FIELDS,
        FILE_FIELDS,
        &["spec.restartPolicy", "spec.schedulerName", "status.phase", "status.nominatedNodeName"],
    ];
    match subscript {
        Some((map @ ("metadata.labels" | "metadata.annotations"), key)) => {
            let key = if map == "metadata.labels" { key.to_owned() } else { key.to_lowercase() };
            errors.extend(
                names::qualified_name(&key)
                    .into_iter()
                    .map(|message| reference.invalid("fieldPath", message)),
            );
        }
        _ if !known.iter().any(|list| list.contains(&path)) => {
            errors.push(reference.invalid(
                "fieldPath",
                format!("error converting fieldPath: field label not supported: {path}"),
            ));
        }
        _ if !supported.contains(&path) => {
            errors.push(FieldError::not_supported(reference.path_of("fieldPath"), path, supported));
        }
        _ => {}
    }
}

fn mounts(container: &At<'_>, volumes: &HashMap<&str, &Value>, errors: &mut Vec<FieldError>) {
    let mut seen: HashSet<&str> = HashSet::new();
    for mount in container.items("volumeMounts") {
        let name = mount.text("name");
        mount.demand("name", errors);
        if !name.is_empty() && !volumes.contains_key(name) {
            errors.push(FieldError::not_found(mount.path_of("name"), name));
        }
        mount.demand("mountPath", errors);
        let target = mount.text("mountPath");
        if !target.is_empty() && !seen.insert(target) {
            errors.push(mount.invalid("mountPath", "must be unique"));
        }
        volumes::local_path(&mount, "subPath", errors);
        if !mount.text("subPathExpr").is_empty() {
            if !mount.text("subPath").is_empty() {
                errors.push(mount.invalid("subPathExpr", "subPathExpr and subPath are mutually exclusive"));
            }
            volumes::local_path(&mount, "subPathExpr", errors);
        }
        mount.check_choice("mountPropagation", &["Bidirectional", "HostToContainer", "None"], errors);
        let privileged = container.child("securityContext").flag("privileged");
        if mount.text("mountPropagation") == "Bidirectional" && !privileged {
            errors.push(mount.forbidden(
                "mountPropagation",
                "Bidirectional mount propagation is available only to privileged containers",
            ));
        }
    }
}

/// A resource of which a node may promise more than it has.
fn may_overcommit(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory" | "ephemeral-storage")
}

/// Checks `limits` and `requests`: known names, amounts of at least zero, no request above its limit.
pub fn resources(resources: &At<'_>, errors: &mut Vec<FieldError>) {
    let limits = resource_list(&resources.child("limits"), errors);
    let requests = resource_list(&resources.child("requests"), errors);
    for (name, request) in &requests {
        let path = resources.path_of("requests");
        match limits.iter().find(|(other, _)| other == name) {
            None if !may_overcommit(name) => {
                errors
                    .push(resources.required("limits", "Limit must be set for non overcommitable resources"));
            }
            Some((_, limit)) if !may_overcommit(name) && request != limit => {
                errors.push(FieldError::invalid(
                    path,
                    request.to_string(),
                    format!("must be equal to {name} limit of {limit}"),
                ));
            }
            Some((_, limit)) if request > limit => {
                errors.push(FieldError::invalid(
                    path,
                    request.to_string(),
                    format!("must be less than or equal to {name} limit of {limit}"),
                ));
            }
            _ => {}
        }
    }
}

/// Checks a map of amounts and returns those that can be read.
pub fn resource_list<'a>(list: &At<'a>, errors: &mut Vec<FieldError>) -> Vec<(&'a str, Quantity)> {
    const NOT_A_QUANTITY: &str =
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    let mut read = Vec::new();
    for (name, value) in list.value.as_object().into_iter().flatten() {
        let path = format!("{}[{name}]", list.path);
        resource_name(name, &path, errors);
        let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        match Quantity::parse(&text) {
            Err(_) => errors.push(FieldError::invalid(path, value.clone(), NOT_A_QUANTITY)),
            Ok(amount) => {
                if amount.is_negative() {
                    errors.push(FieldError::invalid(
                        path.clone(),
                        amount.to_string(),
                        "must be greater than or equal to 0",
                    ));
                }
                if !may_overcommit(name) && !amount.is_integer() {
                    errors.push(FieldError::invalid(path, amount.to_string(), "must be an integer"));
                }
                read.push((name.as_str(), amount));
            }
        }
    }
    read
}

fn resource_name(name: &str, path: &str, errors: &mut Vec<FieldError>) {
    let messages = names::qualified_name(name);
    if !messages.is_empty() {
        errors.extend(messages.into_iter().map(|message| FieldError::invalid(path, name, message)));
        return;
    }
    if !name.contains('/') && !may_overcommit(name) && !name.starts_with("hugepages-") {
        errors.push(FieldError::invalid(path, name, "must be a standard resource type or fully qualified"));
        errors.push(FieldError::invalid(path, name, "must be a standard resource for containers"));
    }
}

fn security_context(container: &At<'_>, errors: &mut Vec<FieldError>) {
    let Some(context) = container.present("securityContext") else { return };
    for key in ["runAsUser", "runAsGroup"] {
        context.check_range(key, 0, i64::from(u32::MAX), errors);
    }
    context.check_choice("procMount", &["Default", "Unmasked"], errors);
    if context.has("allowPrivilegeEscalation") && !context.flag("allowPrivilegeEscalation") {
        const KEY: &str = "allowPrivilegeEscalation";
        if context.flag("privileged") {
            errors.push(
                context
                    .invalid(KEY, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"),
            );
        }
        if context.child("capabilities").items("add").any(|added| added.as_text() == "CAP_SYS_ADMIN") {
            errors.push(context.invalid(
                KEY,
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::pod::defaults;

    /// Checks one container, `a` of image `b`, with `fields` added.
    #[track_caller]
    fn check(fields: Value, expected: &[&str]) {
        let mut container = json!({"name": "a", "image": "b"});
        for (key, value) in fields.as_object().into_iter().flatten() {
            container[key] = value.clone();
        }
        check_spec(json!({"containers": [container]}), expected);
    }

    #[track_caller]
    fn check_spec(mut spec: Value, expected: &[&str]) {
        defaults::pod_spec(&mut spec);
        let mut errors = Vec::new();
        validate(&At::new(&spec, "spec"), &HashMap::new(), &mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn names_are_unique_over_all_lists() {
        check_spec(
            json!({"containers": [{"name": "a", "image": "b"}, {"name": "a", "image": "b"}], "initContainers": [{"name": "a", "image": "b"}]}),
            &[
                r#"spec.containers[1].name: Duplicate value: "a""#,
                r#"spec.initContainers[0].name: Duplicate value: "a""#,
            ],
        );
    }

    #[test]
    fn ports_are_numbers_with_unique_names() {
        check(
            json!({"ports": [{"name": "x", "containerPort": 80}, {"name": "x", "containerPort": 0, "protocol": "ICMP"}, {"containerPort": 70000}]}),
            &[
                "spec.containers[0].ports[1].name: Duplicate value: \"x\"",
                "spec.containers[0].ports[1].containerPort: Required value",
                "spec.containers[0].ports[1].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                "spec.containers[0].ports[2].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ],
        );
        check(
            json!({"ports": [{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}]}),
            &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//80\""],
        );
    }

    #[test]
    fn variables_have_one_source() {
        check(
            json!({"env": [
                {"name": ""},
                {"name": "A", "valueFrom": {}},
                {"name": "B", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.whatever"}}},
                {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "E", "valueFrom": {"secretKeyRef": {"name": "s"}}},
            ]}),
            &[
                "spec.containers[0].env[0].name: Required value",
                "spec.containers[0].env[1].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
                "spec.containers[0].env[2].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
                "spec.containers[0].env[3].valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.whatever\": error converting fieldPath: field label not supported: metadata.whatever",
                "spec.containers[0].env[5].valueFrom.secretKeyRef.key: Required value",
            ],
        );
    }

    #[test]
    fn requests_stay_below_limits() {
        check(
            json!({"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2", "example.com/gpu": "1"}}}),
            &[],
        );
        check(
            json!({"resources": {"requests": {"cpu": "2", "memory": "-1", "example.com/gpu": "1"}, "limits": {"cpu": "1"}}}),
            &[
                "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
            ],
        );
        check(
            json!({"resources": {"limits": {"gpu": "1"}}}),
            &[
                "spec.containers[0].resources.limits[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
                "spec.containers[0].resources.limits[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
            ],
        );
    }

    #[test]
    fn mounts_name_volumes_of_the_pod() {
        check(
            json!({"volumeMounts": [{"name": "none", "mountPath": "/a"}, {"name": "none", "mountPath": "/a", "subPath": "../x"}]}),
            &[
                "spec.containers[0].volumeMounts[0].name: Not found: \"none\"",
                "spec.containers[0].volumeMounts[1].name: Not found: \"none\"",
                "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
                "spec.containers[0].volumeMounts[1].subPath: Invalid value: \"../x\": must not contain '..'",
            ],
        );
    }

    #[test]
    fn privilege_and_no_escalation_exclude_each_other() {
        check(
            json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false}}),
            &[
                "spec.containers[0].securityContext.allowPrivilegeEscalation: Invalid value: false: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ],
        );
    }
}
