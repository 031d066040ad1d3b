//! Rules for pods and the specs of pod templates (kubernetes `ValidatePodCreate`, `ValidatePodSpec`).
//!
//! Containers, volumes and scheduling have files of their own. Not judged: Windows, sysctls, seccomp and AppArmor profiles, resource
//! claims, and sources of volumes that the node agent does not mount.

use serde_json::Value;

use super::{containers, scheduling, volumes};
use crate::kinds::at::At;
use crate::kinds::{address, metadata, names};
use crate::status::FieldError;

/// Largest 32-bit number: seconds are stored as such.
const SECONDS_MAX: i64 = i32::MAX as i64;

/// Largest user and group number.
const ID_MAX: i64 = u32::MAX as i64;

/// What is wrong with a new pod, apart from its metadata.
#[must_use]
pub fn new_pod(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = At::new(object, "").child("spec");
    pod_spec(&spec, &mut errors);
    for list in ["containers", "initContainers"] {
        for container in spec.items(list) {
            if container.text("image").trim() != container.text("image") {
                errors.push(container.invalid("image", "must not have leading or trailing whitespace"));
            }
        }
    }
    if spec.len("ephemeralContainers") > 0 {
        errors.push(spec.forbidden("ephemeralContainers", "cannot be set on create"));
    }
    if spec.len("schedulingGates") > 0 && !spec.text("nodeName").is_empty() {
        errors.push(spec.forbidden("nodeName", "cannot be set until all schedulingGates have been cleared"));
    }
    errors
}

/// What is wrong with the spec of a pod or a pod template.
pub fn pod_spec(spec: &At<'_>, errors: &mut Vec<FieldError>) {
    let volumes = volumes::validate(spec, errors);
    containers::validate(spec, &volumes, errors);
    spec.demand_choice("restartPolicy", &["Always", "OnFailure", "Never"], errors);
    spec.demand_choice("dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], errors);
    metadata::validate_labels(spec.value, "/nodeSelector", &spec.path_of("nodeSelector"), errors);
    security_context(spec, errors);
    for (index, secret) in spec.items("imagePullSecrets").enumerate() {
        if secret.text("name").is_empty() {
            errors.push(FieldError::required(
                format!("{}[{index}].name", spec.path_of("imagePullSecrets")),
                "",
            ));
        }
    }
    scheduling::validate(spec, errors);
    dns_config(spec, errors);
    for gate in spec.items("readinessGates") {
        gate.check_text("conditionType", names::qualified_name, errors);
    }
    for key in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        spec.check_text(key, names::dns_subdomain, errors);
    }
    spec.check_range("activeDeadlineSeconds", 1, SECONDS_MAX, errors);
    for key in ["hostname", "subdomain"] {
        spec.check_text(key, names::dns_label, errors);
    }
    host_aliases(spec, errors);
    spec.check_choice("preemptionPolicy", &["Never", "PreemptLowerPriority"], errors);
    if spec.has("overhead") {
        containers::resource_list(&spec.child("overhead"), errors);
    }
    if let Some(os) = spec.present("os") {
        os.demand_choice("name", &["linux", "windows"], errors);
    }
}

/// What is wrong with the addresses of a pod's status.
#[must_use]
pub fn status(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let status = At::new(object, "").child("status");
    for list in ["podIPs", "hostIPs"] {
        let mut families = Vec::new();
        for entry in status.items(list) {
            match entry.text("ip").parse::<std::net::IpAddr>() {
                Ok(ip) => families.push(ip.is_ipv4()),
                Err(_) => {
                    errors.push(FieldError::invalid(
                        entry.path.clone(),
                        entry.text("ip"),
                        address::NOT_AN_IP,
                    ));
                }
            }
        }
        if families.len() > 2 || matches!(families.as_slice(), [first, second] if first == second) {
            errors.push(status.invalid(list, "may specify no more than one IP for each IP family"));
        }
    }
    errors
}

fn security_context(spec: &At<'_>, errors: &mut Vec<FieldError>) {
    let Some(context) = spec.present("securityContext") else { return };
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        context.check_range(key, 0, ID_MAX, errors);
    }
    for group in context.items("supplementalGroups") {
        if group.value.as_i64().is_some_and(|id| !(0..=ID_MAX).contains(&id)) {
            errors.push(FieldError::invalid(group.path, group.value.clone(), names::out_of_range(0, ID_MAX)));
        }
    }
    context.check_choice("fsGroupChangePolicy", &["Always", "OnRootMismatch"], errors);
    context.check_choice("supplementalGroupsPolicy", &["Merge", "Strict"], errors);
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        errors.push(
            context
                .invalid("shareProcessNamespace", "ShareProcessNamespace and HostPID cannot both be enabled"),
        );
    }
}

fn dns_config(spec: &At<'_>, errors: &mut Vec<FieldError>) {
    const NAMESERVERS_MAX: usize = 3;
    const SEARCHES_MAX: usize = 32;
    let config = spec.child("dnsConfig");
    if spec.text("dnsPolicy") == "None" && config.len("nameservers") == 0 {
        let path = if config.value.is_null() { config.path.clone() } else { config.path_of("nameservers") };
        errors.push(FieldError::required(
            path,
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        ));
    }
    if config.len("nameservers") > NAMESERVERS_MAX {
        errors.push(
            config.invalid("nameservers", format!("must not have more than {NAMESERVERS_MAX} nameservers")),
        );
    }
    for server in config.items("nameservers") {
        errors.extend(address::invalid_ip(&server.path, server.as_text()));
    }
    if config.len("searches") > SEARCHES_MAX {
        errors
            .push(config.invalid("searches", format!("must not have more than {SEARCHES_MAX} search paths")));
    }
    for option in config.items("options") {
        if option.text("name").is_empty() {
            errors.push(FieldError::required(option.path, "must not be empty"));
        }
    }
}

fn host_aliases(spec: &At<'_>, errors: &mut Vec<FieldError>) {
    for alias in spec.items("hostAliases") {
        errors.extend(address::invalid_ip(&alias.path_of("ip"), alias.text("ip")));
        for name in alias.items("hostnames") {
            metadata::invalid(
                errors,
                &alias.path_of("hostnames"),
                name.as_text(),
                names::dns_subdomain(name.as_text()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::pod::defaults;

    #[track_caller]
    fn check(spec: Value, expected: &[&str]) {
        let mut object = json!({ "spec": spec });
        defaults::pod(&mut object);
        assert_eq!(new_pod(&object).iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    fn with(key: &str, value: Value) -> Value {
        let mut spec = json!({"containers": [{"name": "a", "image": "b"}]});
        spec[key] = value;
        spec
    }

    #[test]
    fn the_least_pod_is_a_named_image() {
        check(json!({"containers": [{"name": "a", "image": "b"}]}), &[]);
        check(json!({}), &["spec.containers: Required value"]);
        check(
            json!({"containers": [{"image": " b "}]}),
            &[
                "spec.containers[0].name: Required value",
                "spec.containers[0].image: Invalid value: \" b \": must not have leading or trailing whitespace",
            ],
        );
    }

    #[test]
    fn a_pod_has_one_address_of_each_family() {
        let check = |ips: &[&str], expected: &[&str]| {
            let ips: Vec<Value> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
            let errors = status(&json!({"status": {"podIPs": ips}}));
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        check(&["10.0.0.1", "fd00::1"], &[]);
        check(
            &["x"],
            &[
                "status.podIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ],
        );
        check(
            &["10.0.0.1", "10.0.0.2"],
            &[
                "status.podIPs: Invalid value: [{\"ip\":\"10.0.0.1\"},{\"ip\":\"10.0.0.2\"}]: may specify no more than one IP for each IP family",
            ],
        );
    }

    #[test]
    fn fields_of_the_spec_are_judged_in_upstreams_words() {
        check(
            with("restartPolicy", json!("Sometimes")),
            &[
                r#"spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never""#,
            ],
        );
        check(
            with("dnsPolicy", json!("None")),
            &[
                "spec.dnsConfig: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None",
            ],
        );
        check(
            with("activeDeadlineSeconds", json!(0)),
            &["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
        );
        check(
            with("hostAliases", json!([{"ip": "x", "hostnames": ["a"]}])),
            &[
                "spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ],
        );
        check(
            with("securityContext", json!({"runAsUser": -1})),
            &[
                "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 4294967295, inclusive",
            ],
        );
        check(
            with("ephemeralContainers", json!([{"name": "d", "image": "e"}])),
            &["spec.ephemeralContainers: Forbidden: cannot be set on create"],
        );
    }
}
