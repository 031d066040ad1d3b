//! Strategic merge as upstream's table tests and kubectl's requests have it.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

const POD: &str = "io.k8s.api.core.v1.Pod";
const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";
const SERVICE: &str = "io.k8s.api.core.v1.Service";
const NODE: &str = "io.k8s.api.core.v1.Node";

#[track_caller]
fn check(of: &str, original: Value, patch: Value, expected: Value) {
    assert_eq!(strategic_merge_patch(&original, &patch, of).unwrap(), expected);
}

/// Patches the containers of a pod.
#[track_caller]
fn containers(original: Value, patch: Value, expected: Value) {
    let wrap = |list: Value| json!({"spec": {"containers": list}});
    check(POD, wrap(original), wrap(patch), wrap(expected));
}

#[track_caller]
fn refused(of: &str, original: Value, patch: Value, code: u16, why: &str) {
    let error = strategic_merge_patch(&original, &patch, of).unwrap_err();
    let text = error.details.as_ref().map_or(&error.message, |d| &d.causes[0].message);
    assert_eq!((error.code(), text.as_str()), (code, why));
}

#[test]
fn maps_merge_and_nulls_delete() {
    check(
        DEPLOYMENT,
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"paused": true, "replicas": 1}}),
        json!({"metadata": {"labels": {"b": null, "c": "3"}}, "spec": {"paused": null, "replicas": 2}}),
        json!({"metadata": {"labels": {"a": "1", "c": "3"}}, "spec": {"replicas": 2}}),
    );
    check(
        POD,
        json!({}),
        json!({"metadata": {"labels": {"a": null, "b": "1"}}}),
        json!({"metadata": {"labels": {"b": "1"}}}),
    );
}

#[test]
fn containers_merge_by_name_and_keep_their_order() {
    let original = json!([{"name": "a", "image": "1", "tty": true}, {"name": "b", "image": "1"}]);
    containers(
        original.clone(),
        json!([{"name": "b", "image": "2"}]),
        json!([{"name": "a", "image": "1", "tty": true}, {"name": "b", "image": "2"}]),
    );
    containers(
        original.clone(),
        json!([{"name": "c", "image": "3"}]),
        json!([{"name": "c", "image": "3"}, {"name": "a", "image": "1", "tty": true}, {"name": "b", "image": "1"}]),
    );
    containers(
        original.clone(),
        json!([{"name": "a", "tty": null}]),
        json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]),
    );
    containers(
        original.clone(),
        json!([{"$patch": "delete", "name": "a"}]),
        json!([{"name": "b", "image": "1"}]),
    );
    containers(original.clone(), json!([{"$patch": "replace"}, {"name": "z"}]), json!([{"name": "z"}]));
    containers(original, json!([{"name": "a", "$patch": "replace"}, {"name": "z"}]), json!([{"name": "z"}]));
}

#[test]
fn nested_lists_merge_by_their_own_keys() {
    containers(
        json!([{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "1"}], "ports": [{"containerPort": 80, "protocol": "TCP"}], "volumeMounts": [{"mountPath": "/a", "name": "v"}], "args": ["1", "2"]}]),
        json!([{"name": "a", "env": [{"name": "Y", "value": "2"}], "ports": [{"containerPort": 80, "name": "http"}], "volumeMounts": [{"mountPath": "/a", "readOnly": true}], "args": ["3"]}]),
        json!([{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}], "ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}], "volumeMounts": [{"mountPath": "/a", "name": "v", "readOnly": true}], "args": ["3"]}]),
    );
    check(
        SERVICE,
        json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "nodePort": 30000}], "selector": {"a": "b"}}}),
        json!({"spec": {"ports": [{"port": 80, "targetPort": "http"}], "selector": {"c": "d"}}}),
        json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "nodePort": 30000, "targetPort": "http"}], "selector": {"a": "b", "c": "d"}}}),
    );
}

#[test]
fn set_element_order_moves_elements() {
    check(
        POD,
        json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}, {"name": "server-only"}]}}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}], "containers": [{"name": "c", "image": "3"}, {"name": "b", "image": "2"}]}}),
        json!({"spec": {"containers": [{"name": "c", "image": "3"}, {"name": "b", "image": "2"}, {"name": "a"}, {"name": "server-only"}]}}),
    );
    // Only the order changes.
    check(
        POD,
        json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
        json!({"spec": {"containers": [{"name": "b"}, {"name": "a"}]}}),
    );
    // What only the server has keeps its place before what followed it.
    check(
        POD,
        json!({"spec": {"containers": [{"name": "x"}, {"name": "a"}, {"name": "y"}, {"name": "b"}]}}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}]}}),
        json!({"spec": {"containers": [{"name": "x"}, {"name": "a"}, {"name": "y"}, {"name": "b"}]}}),
    );
}

#[test]
fn kubectl_apply_removes_an_element_and_keeps_the_order() {
    check(
        DEPLOYMENT,
        json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]}}}}),
        json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a", "$setElementOrder/env": [{"name": "B"}], "env": [{"$patch": "delete", "name": "A"}]}]}}}}),
        json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "B", "value": "2"}]}]}}}}),
    );
    refused(
        POD,
        json!({"spec": {"containers": [{"name": "a"}]}}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}}),
        400,
        "The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n",
    );
}

/// The patch that kubectl 1.32 sent when a manifest lost a container and a variable and changed an image, a variable and the order.
#[test]
fn a_patch_recorded_from_kubectl_apply() {
    check(
        DEPLOYMENT,
        json!({"spec": {"replicas": 1, "template": {"spec": {"containers": [
            {"name": "a", "image": "echo:1", "imagePullPolicy": "IfNotPresent"},
            {"name": "gone", "image": "x"},
            {"name": "b", "image": "echo:1", "env": [{"name": "A", "value": "1"}], "terminationMessagePath": "/dev/termination-log"},
        ]}}}}),
        json!({"spec": {"replicas": 2, "template": {"spec": {
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
            "containers": [
                {"$setElementOrder/env": [{"name": "B"}], "env": [{"name": "B", "value": "2"}, {"$patch": "delete", "name": "A"}],
                 "image": "echo:2", "name": "b", "ports": [{"containerPort": 80}]},
                {"$patch": "delete", "name": "gone"},
            ],
        }}}}),
        json!({"spec": {"replicas": 2, "template": {"spec": {"containers": [
            {"name": "b", "image": "echo:2", "env": [{"name": "B", "value": "2"}], "terminationMessagePath": "/dev/termination-log", "ports": [{"containerPort": 80}]},
            {"name": "a", "image": "echo:1", "imagePullPolicy": "IfNotPresent"},
        ]}}}}),
    );
}

#[test]
fn retain_keys_clears_the_other_members_of_a_union() {
    check(
        DEPLOYMENT,
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    check(
        POD,
        json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}}),
        json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}),
    );
    refused(
        DEPLOYMENT,
        json!({"spec": {"strategy": {}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}}),
        400,
        "invalid patch format of retainKeys",
    );
}

#[test]
fn lists_of_scalars_are_sets_where_marked_and_replaced_elsewhere() {
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    check(
        POD,
        finalizers(json!(["a", "b"])),
        finalizers(json!(["c", "a"])),
        finalizers(json!(["c", "a", "b"])),
    );
    check(
        POD,
        finalizers(json!(["a", "b", "c"])),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "$setElementOrder/finalizers": ["c", "a"]}}),
        finalizers(json!(["c", "a"])),
    );
    check(
        NODE,
        json!({"spec": {"taints": [{"key": "a"}]}}),
        json!({"spec": {"taints": [{"key": "b"}]}}),
        json!({"spec": {"taints": [{"key": "b"}]}}),
    );
    check(
        NODE,
        json!({"spec": {"taints": [{"key": "a"}]}}),
        json!({"spec": {"taints": null}}),
        json!({"spec": {}}),
    );
}

#[test]
fn map_directives() {
    let selector = |map: Value| json!({"spec": {"nodeSelector": map}});
    check(
        POD,
        selector(json!({"a": "1"})),
        selector(json!({"$patch": "replace", "b": "2"})),
        selector(json!({"b": "2"})),
    );
    check(POD, selector(json!({"a": "1"})), selector(json!({"$patch": "delete"})), selector(json!({})));
    refused(
        POD,
        selector(json!({"a": "1"})),
        selector(json!({"$patch": "mix"})),
        422,
        "unknown patch type: mix in map: map[$patch:mix]",
    );
}

#[test]
fn new_values_lose_their_directives() {
    check(
        POD,
        json!({}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a"}, {"$patch": "delete", "name": "b"}], "$retainKeys": ["containers"]}}),
        json!({"spec": {"containers": [{"name": "a"}]}}),
    );
    check(
        POD,
        json!({"spec": {}}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a", "stdin": null}]}}),
        json!({"spec": {"containers": [{"name": "a"}]}}),
    );
}

#[test]
fn malformed_patches_say_why() {
    let pod = || json!({"spec": {"containers": [{"name": "a"}]}});
    refused(
        POD,
        pod(),
        json!({"spec": {"containers": [{"image": "x"}]}}),
        400,
        "map: map[image:x] does not contain declared merge key: name",
    );
    refused(
        POD,
        pod(),
        json!({"spec": {"$setElementOrder/containers": 1}}),
        400,
        "invalid patch format of setElementOrder list",
    );
    refused(
        POD,
        pod(),
        json!({"spec": {"$setElementOrder/container": []}}),
        400,
        "unable to find api field in struct PodSpec for the json field \"container\"",
    );
    refused(
        POD,
        pod(),
        json!({"spec": {"containers": [{"name": "a", "$patch": "merge"}]}}),
        400,
        "merging lists cannot yet be specified in the patch",
    );
    refused(
        POD,
        json!({"metadata": {"finalizers": ["a"]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}),
        400,
        "invalid patch format of primitive list",
    );
    refused(POD, pod(), json!([]), 400, "invalid JSON document");
}

#[test]
fn status_conditions_merge_by_type() {
    check(
        NODE,
        json!({"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "DiskPressure", "status": "False"}]}}),
        json!({"status": {"$setElementOrder/conditions": [{"type": "DiskPressure"}, {"type": "Ready"}], "conditions": [{"type": "Ready", "status": "True"}]}}),
        json!({"status": {"conditions": [{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": "True"}]}}),
    );
}
