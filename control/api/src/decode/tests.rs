//! Request bodies and what upstream says of them, as tables.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::registry::lookup;

fn deployments() -> Target {
    Target::of(lookup("apps", "v1", "deployments").unwrap())
}

#[track_caller]
fn refused(target: &Target, media: MediaType, text: &str, message: &str) {
    let error = body(text.as_bytes(), media, target, FieldValidation::Strict).unwrap_err();
    assert_eq!((error.code(), error.message.as_str()), (400, message));
}

/// `text` is the inside of a Deployment's spec.
#[track_caller]
fn spec_refused(text: &str, why: &str) {
    let text =
        format!(r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"x"}},"spec":{text}}}"#);
    refused(
        &deployments(),
        MediaType::Json,
        &text,
        &format!("Deployment in version \"v1\" cannot be handled as a Deployment: {why}"),
    );
}

#[test]
fn strict_validation_names_unknown_and_duplicate_fields_with_their_path() {
    for (spec, fields) in [
        (r#"{"replcas":3}"#, r#"unknown field "spec.replcas""#),
        (r#"{"Replicas":3}"#, r#"unknown field "spec.Replicas""#),
        (r#"{"replicas":1,"replicas":2}"#, r#"duplicate field "spec.replicas""#),
        (
            r#"{"template":{"spec":{"containers":[{"name":"a"},{"nmae":"b"}]}}}"#,
            r#"unknown field "spec.template.spec.containers[1].nmae""#,
        ),
        (
            r#"{"a":1,"template":{"metadata":{"lables":{}}}}"#,
            r#"unknown field "spec.a", unknown field "spec.template.metadata.lables""#,
        ),
        (
            r#"{"selector":{"matchLabels":{"a":"b","a":"c"}}}"#,
            r#"duplicate field "spec.selector.matchLabels.a""#,
        ),
    ] {
        spec_refused(spec, &format!("strict decoding error: {fields}"));
    }
}

#[test]
fn wrong_types_are_told_in_gos_words() {
    for (spec, why) in [
        (
            r#"{"replicas":"3"}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"replicas":1.5}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"replicas":99999999999}"#,
            "json: cannot unmarshal number 99999999999 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"template":{"spec":{"restartPolicy":1}}}"#,
            "json: cannot unmarshal number into Go struct field PodSpec.spec.template.spec.restartPolicy of type v1.RestartPolicy",
        ),
        (
            r#"{"paused":1}"#,
            "json: cannot unmarshal number into Go struct field DeploymentSpec.spec.paused of type bool",
        ),
        (
            r#"{"template":[]}"#,
            "json: cannot unmarshal array into Go struct field DeploymentSpec.spec.template of type v1.PodTemplateSpec",
        ),
        (
            r#"{"template":{"spec":{"containers":[{"env":[{"name":"A","value":true}]}]}}}"#,
            "json: cannot unmarshal bool into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            r#"{"template":{"spec":{"containers":"x"}}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            r#"{"template":{"metadata":{"labels":{"a":1}}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.spec.template.metadata.labels of type string",
        ),
        (
            r#"{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"1 core"}}}]}}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            r#"{"strategy":{"rollingUpdate":{"maxSurge":true}}}"#,
            "json: cannot unmarshal bool into Go value of type int32",
        ),
        // A wrong type outweighs unknown fields.
        (
            r#"{"replcas":1,"replicas":"3"}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
    ] {
        spec_refused(spec, why);
    }
    refused(
        &Target::of(lookup("", "v1", "secrets").unwrap()),
        MediaType::Json,
        r#"{"kind":"Secret","apiVersion":"v1","data":{"a":"%%%%"}}"#,
        r#"Secret in version "v1" cannot be handled as a Secret: illegal base64 data at input byte 0"#,
    );
}

#[test]
fn malformed_json_says_where() {
    let prefix = "the object provided is unrecognized (must be of type Deployment): couldn't get version/kind; json parse error:";
    for (text, why) in [
        ("", "unexpected end of JSON input (line 1, column 0) (<empty>)"),
        (r#"{"kind":"#, r#"unexpected end of JSON input (line 1, column 8) ({"kind":)"#),
        (
            r#"{"kind":x}"#,
            r#"invalid character 'x' looking for beginning of value (line 1, column 9) ({"kind":x})"#,
        ),
        (
            r#"{"a":1 "b"}"#,
            r#"invalid character '"' after object key:value pair (line 1, column 8) ({"a":1 "b"})"#,
        ),
        (
            r#"{"a":1,}"#,
            r#"invalid character '}' looking for beginning of object key string (line 1, column 8) ({"a":1,})"#,
        ),
        ("[1 2]", "invalid character '2' after array element (line 1, column 4) (5b3120325d)"),
        ("{} x", "invalid character 'x' after top-level value (line 1, column 4) ({} x)"),
    ] {
        refused(&deployments(), MediaType::Json, text, &format!("{prefix} {why}"));
    }
}

#[test]
fn malformed_yaml_says_the_line() {
    let error = body(
        b"kind: Deployment\nspec:\n  a: b: c\n",
        MediaType::Yaml,
        &deployments(),
        FieldValidation::Strict,
    )
    .unwrap_err();
    assert!(error.message.contains("error converting YAML to JSON: yaml: line 3"), "{error}");
}

#[test]
fn bottomless_bodies_are_refused() {
    for (media, text) in [
        (MediaType::Json, "[".repeat(100_000)),
        (MediaType::Yaml, "[".repeat(100_000)),
        (MediaType::Yaml, (0..5_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect()),
    ] {
        assert_eq!(
            body(text.as_bytes(), media, &deployments(), FieldValidation::Warn).unwrap_err().code(),
            400
        );
    }
}

#[test]
fn free_form_values_may_not_nest_without_end() {
    let revisions = Target::of(lookup("apps", "v1", "controllerrevisions").unwrap());
    let revision =
        |depth: usize| format!(r#"{{"revision":1,"data":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(body(revision(64).as_bytes(), MediaType::Json, &revisions, FieldValidation::Strict).is_ok());
    refused(
        &revisions,
        MediaType::Json,
        &revision(65),
        r#"ControllerRevision in version "v1" cannot be handled as a ControllerRevision: exceeded max depth"#,
    );
}

#[test]
fn yaml_is_read_like_json() {
    let text = "kind: Deployment\nspec:\n  replicas: 3.0\n  paused: no\n  template:\n    metadata:\n      labels: {a: \"1\"}\n";
    let decoded = body(text.as_bytes(), MediaType::Yaml, &deployments(), FieldValidation::Strict).unwrap();
    assert_eq!(
        decoded.object,
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 3, "template": {"metadata": {"labels": {"a": "1"}}}}})
    );
    refused(
        &deployments(),
        MediaType::Yaml,
        "spec:\n  replicas: 1\n  replicas: 2\n",
        r#"Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: duplicate field "spec.replicas""#,
    );
}

#[test]
fn kinds_are_checked() {
    let deployments = deployments();
    for (text, message) in [
        (
            r#"{"kind":"Pod","apiVersion":"v1"}"#,
            r#"Pod in version "v1" cannot be handled as a Deployment: converting (v1.Pod) to (apps.Deployment): unknown conversion"#,
        ),
        (
            r#"{"kind":"Deployment","apiVersion":"apps/v1beta1"}"#,
            r#"Deployment in version "v1beta1" cannot be handled as a Deployment: no kind "Deployment" is registered for version "apps/v1beta1" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
        ),
        (
            r#"{"kind":5}"#,
            r#"the object provided is unrecognized (must be of type Deployment): couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field .kind of type string ({"kind":5})"#,
        ),
    ] {
        refused(&deployments, MediaType::Json, text, message);
    }
    let events = Target::of(lookup("events.k8s.io", "v1", "events").unwrap());
    refused(
        &events,
        MediaType::Json,
        r#"{"kind":"Event","apiVersion":"v1"}"#,
        "the API version in the data (v1) does not match the expected API version (events.k8s.io/v1)",
    );
}

#[test]
fn kind_and_version_are_filled_in_and_nulls_are_dropped() {
    let text = r#"{"metadata":{"name":"x","creationTimestamp":null},"data":{"a":null},"immutable":null}"#;
    let target = Target::of(lookup("", "v1", "configmaps").unwrap());
    let decoded = body(text.as_bytes(), MediaType::Json, &target, FieldValidation::Strict).unwrap();
    assert_eq!(
        decoded.object,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": ""}})
    );
}

#[test]
fn zeros_that_go_leaves_out_are_dropped_and_those_of_pointers_stay() {
    let text =
        br#"{"metadata":{"name":"a","labels":{}},"spec":{"nodeName":"","hostNetwork":false,"volumes":[],
      "terminationGracePeriodSeconds":0,"automountServiceAccountToken":false,"securityContext":{},
      "containers":[{"name":"a","args":[""],"resources":{}}]}}"#;
    let target = Target::of(lookup("", "v1", "pods").unwrap());
    let pod = body(text, MediaType::Json, &target, FieldValidation::Strict).unwrap().object;
    let spec = json!({
        "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false, "securityContext": {},
        "containers": [{"name": "a", "args": [""], "resources": {}}],
    });
    assert_eq!((&pod["metadata"], &pod["spec"]), (&json!({"name": "a"}), &spec));
}

#[test]
fn lenient_validation_drops_fields_with_or_without_a_warning() {
    let text = br#"{"spec":{"replcas":3,"replicas":1,"replicas":2}}"#;
    let read = |validation| body(text, MediaType::Json, &deployments(), validation).unwrap();
    let warned = read(FieldValidation::Warn);
    assert_eq!(warned.warnings, [r#"duplicate field "spec.replicas""#, r#"unknown field "spec.replcas""#]);
    assert_eq!(warned.object["spec"], json!({"replicas": 2}));
    let ignored = read(FieldValidation::Ignore);
    assert_eq!((ignored.warnings.len(), ignored.object), (0, warned.object));
}

#[test]
fn media_types_and_validation_levels() {
    for (header, media) in [
        (None, Ok(MediaType::Json)),
        (Some("application/json; charset=utf-8"), Ok(MediaType::Json)),
        (Some("application/yaml"), Ok(MediaType::Yaml)),
        (Some("application/vnd.kubernetes.protobuf"), Ok(MediaType::Protobuf)),
        (Some("text/plain"), Err(415)),
    ] {
        assert_eq!(MediaType::of(header).map_err(|e| e.code()), media);
    }
    assert_eq!(FieldValidation::parse(None), Ok(FieldValidation::Warn));
    assert_eq!(
        FieldValidation::parse(Some("Loose")).unwrap_err().message,
        r#"CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Loose": supported values: "", "Ignore", "Strict", "Warn""#
    );
}

#[test]
fn whole_pods_pass() {
    let text = br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","labels":{"run":"a"},"creationTimestamp":null},
      "spec":{"containers":[{"name":"a","image":"x","resources":{"limits":{"cpu":2,"memory":"1Gi"}},"ports":[{"containerPort":80}],
      "livenessProbe":{"httpGet":{"path":"/","port":80}}}],"restartPolicy":"Always"},"status":{}}"#;
    let target = Target::of(lookup("", "v1", "pods").unwrap());
    let pod = body(text, MediaType::Json, &target, FieldValidation::Strict).unwrap().object;
    assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "2", "memory": "1Gi"}));
}
