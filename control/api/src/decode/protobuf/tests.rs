//! Bodies as client-go writes them, built by a small encoder.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::decode::{self, FieldValidation, MediaType};
use crate::registry;

fn number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn int(field: u32, n: i64) -> Vec<u8> {
    let mut out = Vec::new();
    number(&mut out, u64::from(field) << 3);
    number(&mut out, n as u64);
    out
}

fn bytes(field: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    number(&mut out, u64::from(field) << 3 | 2);
    number(&mut out, content.len() as u64);
    out.extend(content);
    out
}

fn text(field: u32, content: &str) -> Vec<u8> {
    bytes(field, content.as_bytes())
}

fn group(field: u32, parts: &[Vec<u8>]) -> Vec<u8> {
    bytes(field, &parts.concat())
}

fn envelope(api_version: &str, kind: &str, raw: &[Vec<u8>]) -> Vec<u8> {
    let type_meta = group(1, &[text(1, api_version), text(2, kind)]);
    [MAGIC.to_vec(), type_meta, bytes(2, &raw.concat()), text(3, ""), text(4, "")].concat()
}

#[track_caller]
fn check(target: &Target, body: &[u8], expected: Value) {
    let decoded = decode::body(body, MediaType::Protobuf, target, FieldValidation::Strict).unwrap();
    assert_eq!(decoded.object, expected);
}

fn target(group: &str, version: &str, plural: &str) -> Target {
    Target::of(registry::lookup(group, version, plural).unwrap())
}

#[test]
fn access_review_of_kubectl_auth_can_i() {
    let attributes = group(
        1,
        &[
            text(1, "default"),
            text(2, "list"),
            text(3, ""),
            text(4, "*"),
            text(5, "pods"),
            text(6, ""),
            text(7, ""),
        ],
    );
    // Go writes the empty metadata and status as well.
    let metadata = group(1, &[text(1, ""), text(2, ""), text(5, ""), int(7, 0), bytes(8, &[])]);
    let body = envelope(
        "authorization.k8s.io/v1",
        "SelfSubjectAccessReview",
        &[metadata, group(2, &[attributes]), group(3, &[int(1, 0), text(2, ""), text(3, ""), int(4, 0)])],
    );
    check(
        &target("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
        &body,
        json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "metadata": {},
            "spec": {"resourceAttributes": {"namespace": "default", "verb": "list", "version": "*", "resource": "pods"}},
            "status": {"allowed": false},
        }),
    );
}

/// Bytes recorded from kubectl 1.32: `kubectl auth can-i create deployments.apps -n x`, `kubectl create token x`.
#[test]
fn bodies_recorded_from_kubectl() {
    let can_i = b"k8s\x00\n2\n\x17authorization.k8s.io/v1\x12\x17SelfSubjectAccessReview\x12D\n\x10\n\x00\x12\x00\x1a\x00\"\x00*\x002\x008\x00B\x00\x12&\n$\n\x01x\x12\x06create\x1a\x04apps\"\x00*\x0bdeployments2\x00:\x00\x1a\x08\x08\x00\x12\x00\x1a\x00 \x00\x1a\x00\"\x00";
    check(
        &target("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
        can_i,
        json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "metadata": {},
            "spec": {"resourceAttributes": {"namespace": "x", "verb": "create", "group": "apps", "resource": "deployments"}},
            "status": {"allowed": false},
        }),
    );
    let token = b"k8s\x00\n(\n\x18authentication.k8s.io/v1\x12\x0cTokenRequest\x12\x1a\n\x10\n\x00\x12\x00\x1a\x00\"\x00*\x002\x008\x00B\x00\x12\x00\x1a\x04\n\x00\x12\x00\x1a\x00\"\x00";
    let accounts = registry::lookup("", "v1", "serviceaccounts").unwrap();
    check(
        &Target::subresource(accounts.subresource("token").unwrap()),
        token,
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": {}, "status": {"token": ""}}),
    );
}

#[test]
fn maps_of_lists_come_wrapped() {
    let extra = group(5, &[text(1, "scopes"), group(2, &[text(1, "a"), text(1, "b")])]);
    let body = envelope(
        "authorization.k8s.io/v1",
        "SubjectAccessReview",
        &[group(2, &[text(3, "jane"), text(4, "dev"), text(4, "ops"), extra])],
    );
    check(
        &target("authorization.k8s.io", "v1", "subjectaccessreviews"),
        &body,
        json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": "jane", "groups": ["dev", "ops"], "extra": {"scopes": ["a", "b"]}},
        }),
    );
}

#[test]
fn pods_with_inlined_messages_quantities_and_times() {
    let limit = group(1, &[text(1, "cpu"), group(2, &[text(1, "100m")])]);
    let probe = group(
        10,
        &[
            group(1, &[group(2, &[text(1, "/ok"), group(2, &[int(1, 1), int(2, 0), text(3, "http")])])]),
            int(2, 5),
        ],
    );
    let environment =
        group(7, &[text(1, "A"), group(3, &[group(3, &[group(1, &[text(1, "cm")]), text(2, "key")])])]);
    let container = group(2, &[text(1, "main"), text(2, "echo"), environment, group(8, &[limit]), probe]);
    let volume = group(1, &[text(1, "tmp"), group(2, &[group(2, &[text(1, "Memory")])])]);
    let metadata = group(
        1,
        &[
            text(1, "p"),
            text(3, "default"),
            group(8, &[int(1, 1_795_343_317)]),
            group(11, &[text(1, "app"), text(2, "web")]),
        ],
    );
    let spec = group(2, &[volume, container, int(4, 0), int(11, 0)]);
    check(
        &target("", "v1", "pods"),
        &envelope("v1", "Pod", &[metadata, spec]),
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default", "creationTimestamp": "2026-11-22T10:28:37Z", "labels": {"app": "web"}},
            "spec": {
                "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}],
                "containers": [{
                    "name": "main",
                    "image": "echo",
                    "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "key"}}}],
                    "resources": {"limits": {"cpu": "100m"}},
                    "livenessProbe": {"httpGet": {"path": "/ok", "port": "http"}, "initialDelaySeconds": 5},
                }],
                "terminationGracePeriodSeconds": 0,
            },
        }),
    );
}

#[test]
fn delete_options_come_under_any_version() {
    let body = envelope("policy/v1", "DeleteOptions", &[int(1, 30), text(4, "Background")]);
    let decoded =
        decode::body(&body, MediaType::Protobuf, &Target::DELETE_OPTIONS, FieldValidation::Strict).unwrap();
    assert_eq!(decoded.object["gracePeriodSeconds"], 30);
    assert_eq!(decoded.object["propagationPolicy"], "Background");
}

#[test]
fn damaged_bodies_are_refused() {
    let pods = target("", "v1", "pods");
    let whole = envelope("v1", "Pod", &[group(1, &[text(1, "p")])]);
    for (body, message) in [
        (&b"{}"[..], "expected prefix [107 56 115 0]"),
        (&whole[..whole.len() - 5], "unexpected EOF"),
        (&envelope("v1", "Pod", &[vec![0x0b]]), "illegal wireType 3"),
        (&envelope("v1", "Secret", &[]), "converting (v1.Secret) to (core.Pod): unknown conversion"),
        (&envelope("v1", "Pod", &[int(1, 7)]), "wrong wireType"),
    ] {
        let error = decode::body(body, MediaType::Protobuf, &pods, FieldValidation::Strict).unwrap_err();
        assert!(error.code() == 400 && error.message.contains(message), "{error}");
    }
}
