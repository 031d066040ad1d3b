//! Values that the server gave a service, in updates: clients that leave them out keep them, and a change of type drops those that the new
//! type has not (kubernetes `pkg/registry/core/service`).

use serde_json::Value;

use crate::kinds::field;

/// The type has a cluster IP.
#[must_use]
pub fn needs_cluster_ip(service: &Value) -> bool {
    field::text(service, "/spec/type") != "ExternalName"
}

/// The type has node ports, unless a load balancer works without.
#[must_use]
pub fn needs_node_ports(service: &Value) -> bool {
    match field::text(service, "/spec/type") {
        "NodePort" => true,
        "LoadBalancer" => {
            service.pointer("/spec/allocateLoadBalancerNodePorts").and_then(Value::as_bool).unwrap_or(true)
        }
        _ => false,
    }
}

/// The type has a port on which each node says whether it has local endpoints.
#[must_use]
pub fn needs_health_check_node_port(service: &Value) -> bool {
    field::text(service, "/spec/type") == "LoadBalancer"
        && field::text(service, "/spec/externalTrafficPolicy") == "Local"
}

/// The type is reached from outside, where a traffic policy applies.
fn is_external(service: &Value) -> bool {
    match field::text(service, "/spec/type") {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !field::list(service, "/spec/externalIPs").is_empty(),
        _ => false,
    }
}

fn is_load_balancer(service: &Value) -> bool {
    field::text(service, "/spec/type") == "LoadBalancer"
}

/// A client that names only `clusterIP` means a list of one.
pub fn one_ip_makes_a_list(service: &mut Value) {
    let address = field::text(service, "/spec/clusterIP").to_owned();
    if address.is_empty() || !field::list(service, "/spec/clusterIPs").is_empty() {
        return;
    }
    if let Some(spec) = field::existing_mut(service, "/spec") {
        spec.insert("clusterIPs".to_owned(), vec![Value::from(address)].into());
    }
}

/// Fills in what `new` leaves out and `old` was given.
pub fn keep(new: &mut Value, old: &Value) {
    if needs_cluster_ip(new) && needs_cluster_ip(old) {
        let kept = ["/spec/clusterIP", "/spec/clusterIPs"].map(|pointer| field::at(old, pointer).cloned());
        let [address, list] = kept;
        if let Some(spec) = field::existing_mut(new, "/spec") {
            if field::is_empty(spec.get("clusterIP")) {
                spec.extend(address.clone().map(|address| ("clusterIP".to_owned(), address)));
            }
            if field::is_empty(spec.get("clusterIPs")) && spec.get("clusterIP") == address.as_ref() {
                spec.extend(list.map(|list| ("clusterIPs".to_owned(), list)));
            }
        }
    }
    if needs_node_ports(new) && needs_node_ports(old) {
        keep_node_ports(new, old);
    }
    if needs_health_check_node_port(new)
        && needs_health_check_node_port(old)
        && let Some(port) = field::at(old, "/spec/healthCheckNodePort").cloned()
        && let Some(spec) = field::existing_mut(new, "/spec")
    {
        field::set_if_zero(spec, "healthCheckNodePort", port);
    }
}

fn node_ports(service: &Value) -> Vec<i64> {
    field::list(service, "/spec/ports")
        .iter()
        .filter_map(|port| field::integer(port, "/nodePort"))
        .filter(|&port| port != 0)
        .collect()
}

fn keep_node_ports(new: &mut Value, old: &Value) {
    let before = node_ports(old);
    let mut taken: Vec<i64> = node_ports(new).into_iter().filter(|port| before.contains(port)).collect();
    for port in field::list_mut(new, "/spec/ports") {
        if field::integer(port, "/nodePort").is_some_and(|number| number != 0) {
            continue;
        }
        let same_name = |other: &&Value| field::text(other, "/name") == field::text(port, "/name");
        let number = field::list(old, "/spec/ports")
            .iter()
            .rev()
            .find(same_name)
            .and_then(|other| field::integer(other, "/nodePort"))
            .unwrap_or(0);
        if number != 0
            && !taken.contains(&number)
            && let Some(port) = port.as_object_mut()
        {
            taken.push(number);
            port.insert("nodePort".to_owned(), number.into());
        }
    }
}

/// `clusterIP` and the head of `clusterIPs` are one value: an old client that changes or clears the first alone means both.
pub fn follow_cluster_ip(new: &mut Value, old: &Value) {
    let address = field::text(new, "/spec/clusterIP").to_owned();
    let same_list = field::same(field::at(new, "/spec/clusterIPs"), field::at(old, "/spec/clusterIPs"));
    if address == field::text(old, "/spec/clusterIP") || !same_list {
        one_ip_makes_a_list(new);
        return;
    }
    let Some(spec) = field::existing_mut(new, "/spec") else { return };
    if address.is_empty() {
        spec.shift_remove("clusterIPs");
    } else if let Some(first) =
        spec.get_mut("clusterIPs").and_then(Value::as_array_mut).and_then(|list| list.first_mut())
    {
        *first = address.into();
    } else {
        one_ip_makes_a_list(new);
    }
}

/// Removes what was allocated for a type that the service no longer has, unless the client changed it on purpose (validation tells it off).
pub fn drop_what_the_type_has_not(new: &mut Value, old: &Value) {
    type Needs = fn(&Value) -> bool;
    const TYPE_BOUND: &[(Needs, &[&str])] = &[
        (
            needs_cluster_ip,
            &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"],
        ),
        (needs_health_check_node_port, &["healthCheckNodePort"]),
        (is_load_balancer, &["allocateLoadBalancerNodePorts", "loadBalancerClass"]),
        (is_external, &["externalTrafficPolicy"]),
    ];
    for (needs, keys) in TYPE_BOUND {
        if !needs(old) || needs(new) {
            continue;
        }
        for key in *keys {
            let pointer = format!("/spec/{key}");
            if field::same(field::at(new, &pointer), field::at(old, &pointer))
                && let Some(spec) = field::existing_mut(new, "/spec")
            {
                spec.shift_remove(*key);
            }
        }
    }
    if needs_node_ports(old) && !needs_node_ports(new) && node_ports(new) == node_ports(old) {
        for port in field::list_mut(new, "/spec/ports").iter_mut().filter_map(Value::as_object_mut) {
            port.shift_remove("nodePort");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(old: &Value, new: &Value, expected: Value) {
        let old = json!({ "spec": old });
        let mut new = json!({ "spec": new });
        keep(&mut new, &old);
        follow_cluster_ip(&mut new, &old);
        drop_what_the_type_has_not(&mut new, &old);
        assert_eq!(new["spec"], expected);
    }

    #[test]
    fn what_a_client_leaves_out_stays() {
        check(
            &json!({"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"name": "a", "nodePort": 30001}, {"name": "b", "nodePort": 30002}]}),
            &json!({"type": "NodePort", "ports": [{"name": "b"}, {"name": "c", "nodePort": 30001}, {"name": "a"}]}),
            json!({
                "type": "NodePort",
                "ports": [{"name": "b", "nodePort": 30002}, {"name": "c", "nodePort": 30001}, {"name": "a"}],
                "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            }),
        );
    }

    #[test]
    fn a_narrower_type_gives_back_what_it_does_not_need() {
        let old = json!({
            "type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "externalTrafficPolicy": "Local", "healthCheckNodePort": 30009,
            "allocateLoadBalancerNodePorts": true, "ports": [{"port": 80, "nodePort": 30001}],
        });
        let mut new = old.clone();
        new["type"] = json!("ClusterIP");
        check(
            &old,
            &new,
            json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80}]}),
        );
        check(
            &json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}),
            &json!({"type": "ExternalName", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "externalName": "a.b"}),
            json!({"type": "ExternalName", "externalName": "a.b"}),
        );
    }

    #[test]
    fn the_list_follows_the_single_address() {
        let old =
            json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"]});
        check(
            &old,
            &json!({"type": "ClusterIP", "clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.1", "fd00::1"]}),
            json!({"type": "ClusterIP", "clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2", "fd00::1"]}),
        );
    }
}
