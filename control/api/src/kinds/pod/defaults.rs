//! Defaults of pods and pod templates (kubernetes `pkg/apis/core/v1/defaults.go` and the `+default` markers of the types).
//!
//! `pod_spec` holds for pods and templates alike; `pod` adds what upstream sets on pods only, so that templates, whose hash names
//! ReplicaSets, stay as they were written.

use serde_json::{Map, Value, json};

use crate::kinds::field;
use crate::quantity::Quantity;

/// Seconds between SIGTERM and SIGKILL when a pod does not say.
pub const TERMINATION_GRACE_PERIOD_SECONDS: i64 = 30;

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Defaults of a Pod.
pub fn pod(object: &mut Value) {
    field::map_mut(object, "spec");
    let Some(spec) = object.get_mut("spec") else { return };
    pod_spec(spec);
    let host_network = field::flag(spec, "/hostNetwork");
    for list in ["/containers", "/initContainers"] {
        for container in field::list_mut(spec, list) {
            request_what_is_limited(container);
            if host_network {
                publish_ports_on_host(container);
            }
        }
    }
    if let Some(spec) = spec.as_object_mut() {
        field::set_if_absent(spec, "enableServiceLinks", true);
    }
    align_addresses(object);
}

/// `status.podIP` is the old form of the head of `status.podIPs`; where they differ the old one holds.
fn align_addresses(pod: &mut Value) {
    let single = field::text(pod, "/status/podIP").to_owned();
    let head = field::list(pod, "/status/podIPs")
        .first()
        .map(|ip| field::text(ip, "/ip").to_owned())
        .unwrap_or_default();
    if single == head {
        return;
    }
    let Some(status) = field::map_mut(pod, "status") else { return };
    if single.is_empty() {
        status.insert("podIP".to_owned(), head.into());
    } else {
        status.insert("podIPs".to_owned(), json!([{"ip": single}]));
    }
}

/// Defaults of the spec of a pod or a pod template.
pub fn pod_spec(spec: &mut Value) {
    if let Some(map) = spec.as_object_mut() {
        field::set_if_zero(map, "restartPolicy", "Always");
        field::set_if_absent(map, "terminationGracePeriodSeconds", TERMINATION_GRACE_PERIOD_SECONDS);
        field::set_if_zero(map, "dnsPolicy", "ClusterFirst");
        field::set_if_absent(map, "securityContext", json!({}));
        field::set_if_zero(map, "schedulerName", "default-scheduler");
        alias_service_account(map);
        canonical_quantities(map.get_mut("overhead"));
        default_resources(map.get_mut("resources"));
    }
    for list in CONTAINER_LISTS {
        for container in field::list_mut(spec, &format!("/{list}")) {
            default_container(container);
        }
    }
    for volume in field::list_mut(spec, "/volumes") {
        default_volume(volume);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; upstream answers both, and reads the old one when the new one is empty.
fn alias_service_account(spec: &mut Map<String, Value>) {
    let name = ["serviceAccountName", "serviceAccount"]
        .into_iter()
        .filter_map(|key| spec.get(key).and_then(Value::as_str))
        .find(|name| !name.is_empty())
        .map(ToOwned::to_owned);
    if let Some(name) = name {
        spec.insert("serviceAccountName".to_owned(), name.clone().into());
        spec.insert("serviceAccount".to_owned(), name.into());
    }
}

fn default_container(container: &mut Value) {
    let policy = default_pull_policy(field::text(container, "/image"));
    for port in field::list_mut(container, "/ports") {
        if let Some(port) = port.as_object_mut() {
            field::set_if_zero(port, "protocol", "TCP");
        }
    }
    for variable in field::list_mut(container, "/env") {
        default_field_ref(variable.pointer_mut("/valueFrom/fieldRef"));
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe) {
            default_probe(probe);
        }
    }
    for hook in ["/lifecycle/postStart/httpGet", "/lifecycle/preStop/httpGet"] {
        default_http_get(container.pointer_mut(hook));
    }
    let Some(map) = container.as_object_mut() else { return };
    default_resources(Some(map.entry("resources").or_insert_with(|| json!({}))));
    field::set_if_zero(map, "terminationMessagePath", "/dev/termination-log");
    field::set_if_zero(map, "terminationMessagePolicy", "File");
    field::set_if_zero(map, "imagePullPolicy", policy);
}

/// `Always` for `latest`, said or implied; a fixed tag or a digest needs pulling once.
fn default_pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let last = name.rsplit('/').next().unwrap_or(name);
    let latest = match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => !digest && !last.is_empty(),
    };
    if latest { "Always" } else { "IfNotPresent" }
}

fn default_probe(probe: &mut Value) {
    default_http_get(probe.pointer_mut("/httpGet"));
    if let Some(grpc) = field::existing_mut(probe, "/grpc") {
        field::set_if_absent(grpc, "service", "");
    }
    if let Some(map) = probe.as_object_mut() {
        for (key, value) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            field::set_if_zero(map, key, value);
        }
    }
}

fn default_http_get(action: Option<&mut Value>) {
    if let Some(action) = action.and_then(Value::as_object_mut) {
        field::set_if_zero(action, "path", "/");
        field::set_if_zero(action, "scheme", "HTTP");
    }
}

fn default_field_ref(reference: Option<&mut Value>) {
    if let Some(reference) = reference.and_then(Value::as_object_mut) {
        field::set_if_zero(reference, "apiVersion", "v1");
    }
}

/// Numbers may be written in many ways and are stored in one.
fn default_resources(resources: Option<&mut Value>) {
    if let Some(resources) = resources {
        canonical_quantities(resources.get_mut("limits"));
        canonical_quantities(resources.get_mut("requests"));
    }
}

/// Rewrites each quantity of a map in its canonical form, rounded up to thousandths. Malformed ones stay for validation to name.
pub fn canonical_quantities(list: Option<&mut Value>) {
    let Some(list) = list.and_then(Value::as_object_mut) else { return };
    for value in list.values_mut() {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => continue,
        };
        if let Ok(quantity) = Quantity::parse(&text) {
            *value = quantity.round_up_to_milli().to_string().into();
        }
    }
}

fn request_what_is_limited(container: &mut Value) {
    let Some(resources) = field::existing_mut(container, "/resources") else { return };
    let Some(limits) =
        resources.get("limits").and_then(Value::as_object).filter(|limits| !limits.is_empty()).cloned()
    else {
        return;
    };
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    if requests.is_null() {
        *requests = json!({});
    }
    if let Some(requests) = requests.as_object_mut() {
        for (name, amount) in limits {
            field::set_if_absent(requests, &name, amount);
        }
    }
}

fn publish_ports_on_host(container: &mut Value) {
    for port in field::list_mut(container, "/ports") {
        let Some(port) = port.as_object_mut() else { continue };
        if let Some(number) = port.get("containerPort").cloned() {
            field::set_if_zero(port, "hostPort", number);
        }
    }
}

/// Permission bits of files that volumes make, 0644.
const FILE_MODE: i64 = 0o644;

fn default_volume(volume: &mut Value) {
    let Some(map) = volume.as_object_mut() else { return };
    if map.iter().all(|(key, source)| key == "name" || source.is_null()) {
        map.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = map.get_mut(source).and_then(Value::as_object_mut) {
            field::set_if_absent(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(source) = map.get_mut("hostPath").and_then(Value::as_object_mut) {
        field::set_if_absent(source, "type", "");
    }
    if let Some(source) = map.get_mut("image").and_then(Value::as_object_mut) {
        let policy = default_pull_policy(source.get("reference").and_then(Value::as_str).unwrap_or_default());
        field::set_if_zero(source, "pullPolicy", policy);
    }
    for item in field::list_mut(volume, "/downwardAPI/items") {
        default_field_ref(item.get_mut("fieldRef"));
    }
    for source in field::list_mut(volume, "/projected/sources") {
        if let Some(token) = field::existing_mut(source, "/serviceAccountToken") {
            field::set_if_absent(token, "expirationSeconds", 3600);
        }
        for item in field::list_mut(source, "/downwardAPI/items") {
            default_field_ref(item.get_mut("fieldRef"));
        }
    }
    if let Some(claim) = field::existing_mut(volume, "/ephemeral/volumeClaimTemplate/spec") {
        field::set_if_absent(claim, "volumeMode", "Filesystem");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mut spec: Value, expected: Value) {
        let mut object = json!({ "spec": spec.take() });
        pod(&mut object);
        assert_eq!(object["spec"], expected);
        let once = object.clone();
        pod(&mut object);
        assert_eq!(object, once, "defaults must be idempotent");
    }

    #[test]
    fn a_pod_gets_upstreams_defaults() {
        check(
            json!({
                "containers": [{
                    "name": "a", "image": "echo",
                    "ports": [{"containerPort": 80}],
                    "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                    "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 3},
                    "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}, "requests": {"cpu": "100m"}},
                }],
                "volumes": [{"name": "e"}, {"name": "c", "configMap": {"name": "x"}}, {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
                "serviceAccountName": "builder",
            }),
            json!({
                "containers": [{
                    "name": "a", "image": "echo",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP", "apiVersion": "v1"}}}],
                    "readinessProbe": {
                        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                        "periodSeconds": 3, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3,
                    },
                    "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "imagePullPolicy": "Always",
                }],
                "volumes": [
                    {"name": "e", "emptyDir": {}},
                    {"name": "c", "configMap": {"name": "x", "defaultMode": 420}},
                    {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}], "defaultMode": 420}},
                ],
                "serviceAccountName": "builder",
                "serviceAccount": "builder",
                "restartPolicy": "Always",
                "terminationGracePeriodSeconds": 30,
                "dnsPolicy": "ClusterFirst",
                "securityContext": {},
                "schedulerName": "default-scheduler",
                "enableServiceLinks": true,
            }),
        );
    }

    #[test]
    fn the_single_address_is_the_first_of_the_list() {
        let check = |status: Value, expected: Value| {
            let mut object = json!({ "status": status });
            pod(&mut object);
            assert_eq!(object["status"], expected);
        };
        check(
            json!({"podIPs": [{"ip": "a"}, {"ip": "b"}]}),
            json!({"podIPs": [{"ip": "a"}, {"ip": "b"}], "podIP": "a"}),
        );
        check(json!({"podIP": "a"}), json!({"podIP": "a", "podIPs": [{"ip": "a"}]}));
        check(json!({"podIP": "c", "podIPs": [{"ip": "a"}]}), json!({"podIP": "c", "podIPs": [{"ip": "c"}]}));
        check(json!({}), json!({}));
    }

    #[test]
    fn host_network_pods_publish_their_ports() {
        let mut object = json!({"spec": {"hostNetwork": true, "containers": [{"name": "a", "image": "b:1", "ports": [{"containerPort": 80}]}]}});
        pod(&mut object);
        assert_eq!(
            object["spec"]["containers"][0]["ports"][0],
            json!({"containerPort": 80, "protocol": "TCP", "hostPort": 80})
        );
    }

    #[test]
    fn only_moving_tags_are_always_pulled() {
        for (image, policy) in [
            ("echo", "Always"),
            ("echo:latest", "Always"),
            ("localhost:5000/echo", "Always"),
            ("echo:1", "IfNotPresent"),
            ("echo@sha256:00", "IfNotPresent"),
            ("echo:latest@sha256:00", "Always"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(default_pull_policy(image), policy, "{image}");
        }
    }
}
