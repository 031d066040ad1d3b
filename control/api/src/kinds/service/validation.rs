//! Rules for services (kubernetes `ValidateService`, `ValidateServiceUpdate`).

use std::collections::HashSet;

use serde_json::{Value, json};

use super::allocated::{needs_cluster_ip, needs_health_check_node_port};
use crate::kinds::at::At;
use crate::kinds::{address, metadata, names};
use crate::status::FieldError;

/// The `clusterIP` of a service without one: its name resolves to its endpoints.
pub const HEADLESS: &str = "None";

/// The kubelet's port, which a load balancer must not publish.
const KUBELET_PORT: i64 = 10_250;

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

/// The service has `clusterIPs: [None]`.
#[must_use]
pub fn is_headless(spec: &At<'_>) -> bool {
    spec.len("clusterIPs") == 1 && spec.items("clusterIPs").all(|ip| ip.as_text() == HEADLESS)
}

/// What is wrong with a service, new or updated, apart from its metadata.
#[must_use]
pub fn validate(service: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = At::new(service, "").child("spec");
    let kind = spec.text("type");
    if spec.len("ports") == 0 && !is_headless(&spec) && kind != "ExternalName" {
        errors.push(spec.required("ports", ""));
    }
    by_type(&spec, kind, &mut errors);
    ports(&spec, kind, &mut errors);
    metadata::validate_labels(service, "/spec/selector", "spec.selector", &mut errors);
    affinity(&spec, &mut errors);
    if needs_cluster_ip(service) {
        families(&spec, &mut errors);
        cluster_ips(&spec, &mut errors);
    }
    for ip in spec.items("externalIPs") {
        let wrong = address::invalid_ip(&ip.path, ip.as_text());
        errors.extend(wrong.or_else(|| address::special_ip(&ip.path, ip.as_text())));
    }
    spec.demand_choice("type", TYPES, &mut errors);
    load_balancer(&spec, kind, &mut errors);
    traffic(service, &spec, kind, &mut errors);
    errors
}

fn by_type(spec: &At<'_>, kind: &str, errors: &mut Vec<FieldError>) {
    match kind {
        "LoadBalancer" | "NodePort" => {
            for port in spec.items("ports") {
                if kind == "LoadBalancer" && port.integer("port") == Some(KUBELET_PORT) {
                    let message =
                        format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet");
                    errors.push(FieldError::invalid(port.path, KUBELET_PORT, message));
                }
            }
            if is_headless(spec) {
                let message = format!("may not be set to 'None' for {kind} services");
                errors.push(FieldError::invalid(
                    format!("{}[0]", spec.path_of("clusterIPs")),
                    HEADLESS,
                    message,
                ));
            }
        }
        "ExternalName" => {
            for key in ["clusterIPs", "ipFamilies"] {
                if spec.len(key) > 0 {
                    errors.push(spec.forbidden(key, "may not be set for ExternalName services"));
                }
            }
            if spec.has("ipFamilyPolicy") {
                errors.push(spec.forbidden("ipFamilyPolicy", "may not be set for ExternalName services"));
            }
            let name = spec.text("externalName");
            match name.strip_suffix('.').unwrap_or(name) {
                "" => errors.push(spec.required("externalName", "")),
                name => {
                    metadata::invalid(
                        errors,
                        &spec.path_of("externalName"),
                        name,
                        names::dns_subdomain(name),
                    );
                }
            }
        }
        _ => {}
    }
}

fn ports(spec: &At<'_>, kind: &str, errors: &mut Vec<FieldError>) {
    let several = spec.len("ports") > 1;
    let mut seen_names: HashSet<&str> = HashSet::new();
    let mut seen_ports: HashSet<(&str, i64)> = HashSet::new();
    let mut seen_node_ports: HashSet<(&str, i64)> = HashSet::new();
    for port in spec.items("ports") {
        let name = port.text("name");
        if name.is_empty() && several {
            errors.push(port.required("name", ""));
        }
        port.check_text("name", names::dns_label, errors);
        if !name.is_empty() && !seen_names.insert(name) {
            errors.push(FieldError::duplicate(port.path_of("name"), name));
        }
        port.check_port("port", errors);
        port.check_protocol(errors);
        port.check_port("targetPort", errors);
        port.check_text("appProtocol", names::qualified_name, errors);
    }
    for port in spec.items("ports") {
        let (protocol, number) = (port.text("protocol"), port.integer("port").unwrap_or(0));
        let node_port = port.integer("nodePort").unwrap_or(0);
        if node_port != 0 {
            if kind == "ClusterIP" {
                errors.push(port.forbidden("nodePort", "may not be used when `type` is 'ClusterIP'"));
            }
            if !seen_node_ports.insert((protocol, node_port)) {
                errors.push(FieldError::duplicate(port.path_of("nodePort"), node_port));
            }
        }
        if !seen_ports.insert((protocol, number)) {
            errors.push(FieldError::duplicate(port.path, json!({"protocol": protocol, "port": number})));
        }
    }
}

fn affinity(spec: &At<'_>, errors: &mut Vec<FieldError>) {
    const TIMEOUT_MAX_SECONDS: i64 = 86_400;
    spec.demand_choice("sessionAffinity", &["ClientIP", "None"], errors);
    let config = spec.child("sessionAffinityConfig");
    match spec.text("sessionAffinity") {
        "None" if !config.value.is_null() => {
            errors.push(
                spec.forbidden("sessionAffinityConfig", "must not be set when session affinity is None"),
            );
        }
        "ClientIP" => {
            const WHEN: &str = "when session affinity type is ClientIP";
            if config.value.is_null() {
                errors.push(spec.required("sessionAffinityConfig", WHEN));
            } else if !config.has("clientIP") {
                errors.push(config.required("clientIP", WHEN));
            } else {
                let client = config.child("clientIP");
                match client.integer("timeoutSeconds") {
                    None => errors.push(client.required("timeoutSeconds", WHEN)),
                    Some(seconds) if !(1..=TIMEOUT_MAX_SECONDS).contains(&seconds) => {
                        errors.push(client.invalid(
                            "timeoutSeconds",
                            format!("must be greater than 0 and less than {TIMEOUT_MAX_SECONDS}"),
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
        _ => {}
    }
}

fn families(spec: &At<'_>, errors: &mut Vec<FieldError>) {
    let mut seen: HashSet<&str> = HashSet::new();
    for family in spec.items("ipFamilies") {
        let name = family.as_text();
        if !matches!(name, "IPv4" | "IPv6") {
            errors.push(FieldError::not_supported(family.path.clone(), name, &["IPv4", "IPv6"]));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(family.path, name));
        }
    }
    spec.check_choice("ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"], errors);
}

fn cluster_ips(spec: &At<'_>, errors: &mut Vec<FieldError>) {
    let first = spec.text("clusterIP");
    let listed: Vec<&str> = spec.items("clusterIPs").map(|ip| ip.as_text()).collect();
    match listed.first() {
        None if !first.is_empty() => errors.push(spec.required("clusterIPs", "")),
        Some(_) if first.is_empty() => {
            errors.push(spec.invalid("clusterIPs", "must be empty when `clusterIP` is not specified"));
        }
        Some(head) if *head != first => {
            errors.push(spec.invalid("clusterIPs", "first value must match `clusterIP`"));
        }
        _ => {}
    }
    if listed.len() > 2 {
        errors.push(spec.invalid("clusterIPs", "may only hold up to 2 values"));
    }
    let mut parsed = Vec::new();
    for ip in spec.items("clusterIPs") {
        if ip.as_text() == HEADLESS {
            if listed.len() > 1 {
                errors.push(spec.invalid("clusterIPs", "'None' must be the first and only value"));
                return;
            }
            return;
        }
        match ip.as_text().parse::<std::net::IpAddr>() {
            Ok(address) => parsed.push((ip, address)),
            Err(_) => errors.push(FieldError::invalid(ip.path, ip.value.clone(), address::NOT_AN_IP)),
        }
    }
    if let [(_, first), (_, second)] = parsed.as_slice()
        && first.is_ipv4() == second.is_ipv4()
    {
        errors.push(spec.invalid("clusterIPs", "may specify no more than one IP for each IP family"));
    }
    for (index, ((ip, address), family)) in parsed.iter().zip(spec.items("ipFamilies")).enumerate() {
        let family = family.as_text();
        let fits = if family == "IPv4" { address.is_ipv4() } else { address.is_ipv6() };
        if matches!(family, "IPv4" | "IPv6") && !fits {
            let message = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.push(FieldError::invalid(ip.path.clone(), ip.value.clone(), message));
        }
    }
}

fn load_balancer(spec: &At<'_>, kind: &str, errors: &mut Vec<FieldError>) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    if spec.len("loadBalancerSourceRanges") > 0 && kind != "LoadBalancer" {
        errors.push(spec.forbidden("loadBalancerSourceRanges", ONLY));
    }
    for range in spec.items("loadBalancerSourceRanges") {
        errors.extend(address::invalid_cidr(&range.path, range.as_text().trim()));
    }
    if kind == "LoadBalancer" {
        if !spec.has("allocateLoadBalancerNodePorts") {
            errors.push(spec.required("allocateLoadBalancerNodePorts", ""));
        }
        spec.check_text("loadBalancerClass", names::qualified_name, errors);
    } else {
        for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if spec.has(key) {
                errors.push(spec.forbidden(key, ONLY));
            }
        }
    }
}

fn traffic(service: &Value, spec: &At<'_>, kind: &str, errors: &mut Vec<FieldError>) {
    const POLICIES: &[&str] = &["Cluster", "Local"];
    let external =
        matches!(kind, "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && spec.len("externalIPs") > 0);
    if external {
        spec.demand_choice("externalTrafficPolicy", POLICIES, errors);
    } else if !spec.text("externalTrafficPolicy").is_empty() {
        errors.push(
            spec.invalid("externalTrafficPolicy", "may only be set for externally-accessible services"),
        );
    }
    let health_port = spec.integer("healthCheckNodePort").unwrap_or(0);
    if health_port != 0 {
        if needs_health_check_node_port(service) {
            spec.check_range("healthCheckNodePort", 1, 65_535, errors);
        } else {
            let message =
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(spec.invalid("healthCheckNodePort", message));
        }
    }
    if matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") {
        spec.demand_choice("internalTrafficPolicy", POLICIES, errors);
    } else {
        spec.check_choice("internalTrafficPolicy", POLICIES, errors);
    }
    spec.check_choice("trafficDistribution", &["PreferClose", "PreferSameNode", "PreferSameZone"], errors);
}

const ONCE: &str = "may not change once set";

/// What is wrong with the step from `old` to `new`: cluster IPs, their families and the load balancer's class stay.
#[must_use]
pub fn validate_transition(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (new_spec, old_spec) = (At::new(new, "").child("spec"), At::new(old, "").child("spec"));
    if needs_cluster_ip(new) && needs_cluster_ip(old) && !(is_headless(&new_spec) && is_headless(&old_spec)) {
        stays(&new_spec, &old_spec, "clusterIPs", "clusterIP", &mut errors);
    }
    if needs_cluster_ip(new) && needs_cluster_ip(old) {
        stays(&new_spec, &old_spec, "ipFamilies", "ipFamily", &mut errors);
    }
    let health_port = |spec: &At<'_>| spec.integer("healthCheckNodePort").unwrap_or(0);
    if needs_health_check_node_port(new)
        && needs_health_check_node_port(old)
        && health_port(&new_spec) != health_port(&old_spec)
    {
        errors.push(new_spec.forbidden("healthCheckNodePort", metadata::IMMUTABLE));
    }
    let balanced = [new, old]
        .iter()
        .all(|service| service.pointer("/spec/type").is_some_and(|kind| kind == "LoadBalancer"));
    if balanced && new_spec.text("loadBalancerClass") != old_spec.text("loadBalancerClass") {
        errors.push(new_spec.invalid("loadBalancerClass", ONCE));
    }
    errors
}

/// A second entry may come and go; the first never changes.
fn stays(new: &At<'_>, old: &At<'_>, key: &str, singular: &str, errors: &mut Vec<FieldError>) {
    let [now, before] = [new, old].map(|spec| spec.items(key).map(|item| item.as_text()).collect::<Vec<_>>());
    let at = |index: usize, message: String| {
        FieldError::invalid(format!("{}[{index}]", new.path_of(key)), new.child(key).value.clone(), message)
    };
    if now.len() == before.len() {
        let changed = now.iter().zip(&before).enumerate().filter(|(_, (now, before))| now != before);
        errors.extend(changed.map(|(index, _)| at(index, ONCE.to_owned())));
        return;
    }
    match (now.first(), before.first()) {
        (None, Some(_)) => errors.push(at(0, format!("primary {singular} can not be unset"))),
        (Some(now), Some(before)) if now != before => errors.push(at(0, ONCE.to_owned())),
        _ => {}
    }
    if now.len() == 1 && before.len() == 2 && new.text("ipFamilyPolicy") != "SingleStack" {
        errors.push(new.invalid(
            "ipFamilyPolicy",
            format!("must be set to 'SingleStack' when releasing the secondary {singular}"),
        ));
    }
}

/// What is wrong with `status.loadBalancer`.
#[must_use]
pub fn validate_status(service: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let balancer = At::new(service, "").child("status").child("loadBalancer");
    let kind = service.pointer("/spec/type").and_then(Value::as_str).unwrap_or_default();
    if balancer.len("ingress") > 0 && kind != "LoadBalancer" {
        errors.push(balancer.forbidden("ingress", "may only be used when `spec.type` is \"LoadBalancer\""));
    }
    for ingress in balancer.items("ingress") {
        if !ingress.text("ip").is_empty() {
            errors.extend(address::invalid_ip(&ingress.path_of("ip"), ingress.text("ip")));
        }
        ingress.check_choice("ipMode", &["Proxy", "VIP"], &mut errors);
        ingress.check_text("hostname", names::dns_subdomain, &mut errors);
        if ingress.text("hostname").parse::<std::net::IpAddr>().is_ok() {
            errors.push(ingress.invalid("hostname", "must be a DNS name, not an IP address"));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::service::Service;
    use crate::strategy::Strategy;

    #[track_caller]
    fn check(spec: Value, expected: &[&str]) {
        let mut service = json!({ "spec": spec });
        Service.default(&mut service);
        Service.prepare_create(&mut service);
        assert_eq!(validate(&service).iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_service_has_ports_with_names_and_numbers() {
        check(json!({"ports": [{"port": 80}]}), &[]);
        check(json!({}), &["spec.ports: Required value"]);
        check(json!({"clusterIP": "None"}), &[]);
        check(
            json!({"ports": [{"port": 80}, {"name": "a", "port": 0}, {"name": "a", "port": 80, "protocol": "ICMP", "targetPort": "9"}]}),
            &[
                "spec.ports[0].name: Required value",
                "spec.ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[1].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[2].name: Duplicate value: \"a\"",
                "spec.ports[2].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                "spec.ports[2].targetPort: Invalid value: \"9\": must contain at least one letter (a-z)",
            ],
        );
        check(
            json!({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]}),
            &["spec.ports[1]: Duplicate value: {\"protocol\":\"TCP\",\"port\":80}"],
        );
        check(
            json!({"ports": [{"port": 80, "nodePort": 30000}]}),
            &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        );
    }

    #[test]
    fn types_have_their_fields() {
        check(
            json!({"type": "Magic", "ports": [{"port": 80}]}),
            &[
                r#"spec.type: Unsupported value: "Magic": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort""#,
            ],
        );
        check(
            json!({"type": "ExternalName", "clusterIP": "10.0.0.1"}),
            &[
                "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
                "spec.externalName: Required value",
            ],
        );
        check(
            json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]}),
            &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
        );
        check(
            json!({"ports": [{"port": 80}], "externalTrafficPolicy": "Local", "loadBalancerSourceRanges": ["x"]}),
            &[
                "spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
                "spec.loadBalancerSourceRanges[0]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ],
        );
        check(
            json!({"ports": [{"port": 80}], "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}),
            &[
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400",
            ],
        );
    }

    #[test]
    fn cluster_ips_are_one_of_each_family() {
        let ports = json!([{"port": 80}]);
        check(
            json!({"ports": ports, "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"]}),
            &[],
        );
        check(
            json!({"ports": ports, "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.2"]}),
            &[
                "spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for each IP family",
            ],
        );
        check(
            json!({"ports": ports, "clusterIP": "x"}),
            &[
                "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ],
        );
        check(
            json!({"ports": ports, "clusterIP": "10.0.0.1", "ipFamilies": ["IPv6"]}),
            &[
                "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
            ],
        );
    }

    #[test]
    fn the_first_cluster_ip_never_changes() {
        let service = |ips: &[&str], policy: &str| json!({"spec": {"type": "ClusterIP", "clusterIPs": ips, "ipFamilyPolicy": policy}});
        let check = |new: Value, old: Value, expected: &[&str]| {
            assert_eq!(
                validate_transition(&new, &old).iter().map(ToString::to_string).collect::<Vec<_>>(),
                expected
            );
        };
        let old = service(&["10.0.0.1"], "SingleStack");
        check(service(&["10.0.0.1", "fd00::1"], "PreferDualStack"), old.clone(), &[]);
        check(
            service(&["10.0.0.2"], "SingleStack"),
            old.clone(),
            &["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"],
        );
        check(
            service(&[], "SingleStack"),
            old,
            &["spec.clusterIPs[0]: Invalid value: []: primary clusterIP can not be unset"],
        );
        check(
            service(&["10.0.0.1"], "PreferDualStack"),
            service(&["10.0.0.1", "fd00::1"], "PreferDualStack"),
            &[
                "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the secondary clusterIP",
            ],
        );
    }

    #[test]
    fn the_health_check_port_stays_while_it_is_needed() {
        let service = |policy: &str, port: u16| {
            json!({"spec": {
                "type": "LoadBalancer", "clusterIPs": ["10.0.0.1"], "externalTrafficPolicy": policy, "healthCheckNodePort": port
            }})
        };
        let check = |new: Value, old: Value, expected: &[&str]| {
            let errors = validate_transition(&new, &old);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        check(service("Local", 30001), service("Local", 30001), &[]);
        check(
            service("Local", 30002),
            service("Local", 30001),
            &["spec.healthCheckNodePort: Forbidden: field is immutable"],
        );
        check(service("Cluster", 0), service("Local", 30001), &[]);
        check(service("Local", 30002), service("Cluster", 0), &[]);
    }

    #[test]
    fn only_load_balancers_have_an_ingress() {
        let service = |kind: &str, ingress: Value| json!({"spec": {"type": kind}, "status": {"loadBalancer": {"ingress": [ingress]}}});
        let check = |service: &Value, expected: &[&str]| {
            assert_eq!(
                validate_status(service).iter().map(ToString::to_string).collect::<Vec<_>>(),
                expected
            );
        };
        check(&service("LoadBalancer", json!({"ip": "1.1.1.1", "ipMode": "VIP"})), &[]);
        check(
            &service("ClusterIP", json!({"ip": "1.1.1.1"})),
            &[
                "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is \"LoadBalancer\"",
            ],
        );
        check(
            &service("LoadBalancer", json!({"hostname": "1.1.1.1"})),
            &[
                "status.loadBalancer.ingress[0].hostname: Invalid value: \"1.1.1.1\": must be a DNS name, not an IP address",
            ],
        );
    }
}
