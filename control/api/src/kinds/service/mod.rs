//! core/v1 Service.
//!
//! Files: `columns`, `allocated` (values that the server gave and an update keeps or drops), `validation`. Handing out cluster IPs and node
//! ports, and the IP families that follow from the cluster's, is the allocators' business.

pub mod allocated;
pub mod columns;
pub mod validation;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::at::At;
use super::{field, metadata};
use crate::status::FieldError;
use crate::strategy::{Column, NameRule, Strategy};

/// Seconds for which a client sticks to a backend unless the service says otherwise: three hours.
const AFFINITY_TIMEOUT_SECONDS: i64 = 10_800;

/// core/v1 Service.
#[derive(Debug, Clone, Copy)]
pub struct Service;

impl Strategy for Service {
    fn name_rule(&self) -> NameRule {
        NameRule::Dns1035Label
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        field::map_mut(object, "spec");
        if let Some(spec) = object.get_mut("spec") {
            default_spec(spec);
        }
        let load_balancer = field::text(object, "/spec/type") == "LoadBalancer";
        for ingress in field::list_mut(object, "/status/loadBalancer/ingress") {
            if let Some(ingress) =
                ingress.as_object_mut().filter(|ingress| load_balancer && !field::is_empty(ingress.get("ip")))
            {
                field::set_if_absent(ingress, "ipMode", "VIP");
            }
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        if let Some(map) = object.as_object_mut() {
            map.insert("status".to_owned(), json!({"loadBalancer": {}}));
        }
        allocated::one_ip_makes_a_list(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        metadata::keep(new, old, "status");
        metadata::count_generation(new, old, false);
        allocated::keep(new, old);
        allocated::follow_cluster_ip(new, old);
        allocated::drop_what_the_type_has_not(new, old);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        validation::validate(object)
    }

    fn validate_transition(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        validation::validate_transition(new, old)
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate_update(new, old);
        errors.extend(validation::validate_status(new));
        errors
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        [("spec.clusterIP", "/spec/clusterIP"), ("spec.type", "/spec/type")]
            .map(|(name, pointer)| (name, field::text(object, pointer).to_owned()))
            .to_vec()
    }

    fn columns(&self) -> &'static [Column] {
        columns::COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        columns::cells(object, now)
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some_and(|old| !metadata::spec_changed(new, old)) {
            return Vec::new();
        }
        let spec = At::new(new, "").child("spec");
        let mut warnings = Vec::new();
        if validation::is_headless(&spec) {
            if spec.len("externalIPs") > 0 {
                warnings.push(r#"spec.externalIPs is ignored when spec.clusterIP is "None""#.to_owned());
            }
            if !spec.text("loadBalancerIP").is_empty() {
                warnings.push(r#"spec.loadBalancerIP is ignored when spec.clusterIP is "None""#.to_owned());
            }
            if spec.text("sessionAffinity") == "ClientIP" {
                warnings.push("spec.SessionAffinity is ignored for headless services".to_owned());
            }
        }
        if !spec.text("externalName").is_empty() && spec.text("type") != "ExternalName" {
            warnings.push(r#"spec.externalName is ignored when spec.type is not "ExternalName""#.to_owned());
        }
        warnings
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

fn default_spec(spec: &mut Value) {
    for port in field::list_mut(spec, "/ports") {
        let Some(port) = port.as_object_mut() else { continue };
        field::set_if_zero(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            field::set_if_zero(port, "targetPort", number);
        }
    }
    let external_ips = !field::list(spec, "/externalIPs").is_empty();
    let sticky = field::integer(spec, "/sessionAffinityConfig/clientIP/timeoutSeconds").is_some();
    let Some(map) = spec.as_object_mut() else { return };
    field::set_if_zero(map, "sessionAffinity", "None");
    if map["sessionAffinity"] == "None" {
        map.shift_remove("sessionAffinityConfig");
    } else if map["sessionAffinity"] == "ClientIP" && !sticky {
        map.insert(
            "sessionAffinityConfig".to_owned(),
            json!({"clientIP": {"timeoutSeconds": AFFINITY_TIMEOUT_SECONDS}}),
        );
    }
    field::set_if_zero(map, "type", "ClusterIP");
    let kind = map["type"].as_str().unwrap_or_default().to_owned();
    let published = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    if published || (kind == "ClusterIP" && external_ips) {
        field::set_if_zero(map, "externalTrafficPolicy", "Cluster");
    }
    if published || kind == "ClusterIP" {
        field::set_if_absent(map, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        field::set_if_absent(map, "allocateLoadBalancerNodePorts", true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(spec: Value, expected: Value) {
        let mut object = json!({ "spec": spec });
        Service.default(&mut object);
        assert_eq!(object["spec"], expected);
        let once = object.clone();
        Service.default(&mut object);
        assert_eq!(object, once, "defaults must be idempotent");
    }

    #[test]
    fn a_service_gets_upstreams_defaults() {
        check(
            json!({"ports": [{"port": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}]}),
            json!({
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}],
                "sessionAffinity": "None", "type": "ClusterIP", "internalTrafficPolicy": "Cluster",
            }),
        );
        check(
            json!({"type": "LoadBalancer", "sessionAffinity": "ClientIP"}),
            json!({
                "type": "LoadBalancer", "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
                "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true,
            }),
        );
        check(
            json!({"type": "ExternalName", "externalName": "a.b"}),
            json!({"type": "ExternalName", "externalName": "a.b", "sessionAffinity": "None"}),
        );
    }

    #[test]
    fn what_a_headless_service_ignores_is_said() {
        let service =
            json!({"spec": {"clusterIPs": ["None"], "sessionAffinity": "ClientIP", "externalName": "a"}});
        assert_eq!(
            Service.warnings(&service, None),
            [
                "spec.SessionAffinity is ignored for headless services",
                r#"spec.externalName is ignored when spec.type is not "ExternalName""#
            ]
        );
        assert!(Service.warnings(&service, Some(&service)).is_empty());
    }

    #[test]
    fn writes_keep_to_their_half() {
        let old = json!({"spec": {"type": "ClusterIP"}, "status": {"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}]}}});
        let mut new = json!({"spec": {"type": "ClusterIP", "ports": []}, "status": {}});
        Service.prepare_update(&mut new, &old);
        assert_eq!(new["status"], old["status"]);
    }
}
