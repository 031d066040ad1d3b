//! ServiceAccount: every pod runs as an account of its namespace, and finds that account's token mounted.
//!
//! The token itself is asked for by the kubelet, which fills the projected volume named here.

use std::time::Duration;

use api::status::{ApiError, Reason};
use serde_json::{Value, json};

use super::{AdmissionRequest, Operation};
use crate::bootstrap::rows;
use crate::object::ToValue as _;
use crate::registry_access::Registry;

/// Account of pods that name none.
const DEFAULT_ACCOUNT: &str = "default";
/// Where containers find token, CA certificate and namespace.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Lifetime of the mounted token, in seconds: an hour, and 7 seconds by which upstream marks these tokens.
const TOKEN_SECONDS: u32 = 3607;
/// The default account of a new namespace appears a moment after it: wait for it this often and this long.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);
/// A pod that shows a static pod of its kubelet; it has no account.
pub(super) const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

pub(super) async fn admit(registry: &Registry, request: &mut AdmissionRequest<'_>) -> Result<(), ApiError> {
    if !request.is("pods") || request.operation != Operation::Create || is_mirror(request) {
        return Ok(());
    }
    let namespace = request.attributes.namespace.clone();
    let Some(pod) = &mut request.object else { return Ok(()) };
    let name = account_name(pod).unwrap_or(DEFAULT_ACCOUNT).to_owned();
    pod["spec"]["serviceAccountName"] = name.as_str().into();
    // The field's old name, which upstream keeps filled.
    pod["spec"]["serviceAccount"] = name.as_str().into();
    let account = match find(registry, &namespace, &name).await {
        Ok(account) => account,
        Err(error) => {
            let why = match error.reason {
                Reason::NotFound => format!("serviceaccount {name:?} not found"),
                _ => error.message,
            };
            return Err(
                request.forbidden(format!("error looking up service account {namespace}/{name}: {why}"))
            );
        }
    };
    if let Some(pod) = &mut request.object {
        if wants_token(pod, &account) {
            mount_token(pod, &volume_suffix());
        }
        copy_pull_secrets(pod, &account);
    }
    Ok(())
}

/// A mirror pod may not use the API's secrets: the kubelet made it, not the API.
pub(super) fn validate(request: &AdmissionRequest<'_>) -> Result<(), ApiError> {
    if !request.is("pods") || request.operation != Operation::Create || !is_mirror(request) {
        return Ok(());
    }
    let Some(pod) = &request.object else { return Ok(()) };
    if account_name(pod).is_some() {
        return Err(request.forbidden("a mirror pod may not reference service accounts"));
    }
    let volumes = pod["spec"]["volumes"].as_array().map(Vec::as_slice).unwrap_or_default();
    if volumes.iter().any(|volume| !volume["secret"].is_null()) {
        return Err(request.forbidden("a mirror pod may not reference secrets"));
    }
    if volumes.iter().any(projects_token) {
        return Err(request.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

fn projects_token(volume: &Value) -> bool {
    let sources = volume["projected"]["sources"].as_array().map(Vec::as_slice).unwrap_or_default();
    sources.iter().any(|source| !source["serviceAccountToken"].is_null())
}

fn is_mirror(request: &AdmissionRequest<'_>) -> bool {
    request.object.as_ref().is_some_and(|pod| !pod["metadata"]["annotations"][MIRROR_ANNOTATION].is_null())
}

fn account_name(pod: &Value) -> Option<&str> {
    let spec = &pod["spec"];
    [&spec["serviceAccountName"], &spec["serviceAccount"]]
        .into_iter()
        .find_map(|name| name.as_str().filter(|name| !name.is_empty()))
}

async fn find(registry: &Registry, namespace: &str, name: &str) -> Result<Value, ApiError> {
    if let Some(account) = registry.cached(rows::service_accounts(), namespace, name) {
        return Ok(account.value());
    }
    let tries = if name == DEFAULT_ACCOUNT { TRIES } else { 1 };
    let mut attempt = 1;
    loop {
        match registry.get(rows::service_accounts(), namespace, name).await {
            Err(error) if error.reason == Reason::NotFound && attempt < tries => {
                attempt += 1;
                tokio::time::sleep(PAUSE).await;
            }
            found => return found.map(|account| account.value()),
        }
    }
}

/// The pod's word on mounting a token counts before its account's.
fn wants_token(pod: &Value, account: &Value) -> bool {
    let word = |value: &Value| value.as_bool();
    word(&pod["spec"]["automountServiceAccountToken"])
        .or_else(|| word(&account["automountServiceAccountToken"]))
        .unwrap_or(true)
}

fn volume_suffix() -> String {
    /// Characters that upstream generates names from: no vowels, no look-alikes.
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let bytes: [u8; 5] = rand::random();
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}

/// Adds the projected volume, and a mount of it to each container that has nothing at its place.
fn mount_token(pod: &mut Value, suffix: &str) {
    let spec = &mut pod["spec"];
    let volumes = spec["volumes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let present = volumes
        .iter()
        .filter_map(|volume| volume["name"].as_str())
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let name = present.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{suffix}"));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            mounted |= mount(container, &name);
        }
    }
    if mounted && present.is_none() {
        push(&mut spec["volumes"], token_volume(&name));
    }
}

fn mount(container: &mut Value, volume: &str) -> bool {
    let mounts = container["volumeMounts"].as_array().map(Vec::as_slice).unwrap_or_default();
    if mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
        return false;
    }
    let mount = json!({ "name": volume, "readOnly": true, "mountPath": MOUNT_PATH });
    push(&mut container["volumeMounts"], mount);
    true
}

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(items) => items.push(item),
        None => *list = json!([item]),
    }
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "sources": [
                { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
                { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [{
                    "path": "namespace",
                    "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" },
                }] } },
            ],
            "defaultMode": 420,
        },
    })
}

fn copy_pull_secrets(pod: &mut Value, account: &Value) {
    let given = pod["spec"]["imagePullSecrets"].as_array().is_some_and(|list| !list.is_empty());
    if let (false, Some(secrets)) =
        (given, account["imagePullSecrets"].as_array().filter(|list| !list.is_empty()))
    {
        pod["spec"]["imagePullSecrets"] = secrets.clone().into();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing;
    use super::*;
    use crate::attributes::UserInfo;

    #[test]
    fn the_token_is_mounted_where_nothing_else_is() {
        let mut pod = json!({"spec": {
            "initContainers": [{"name": "i"}],
            "containers": [
                {"name": "a", "volumeMounts": [{"name": "x", "mountPath": "/x"}]},
                {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]},
            ],
        }});
        mount_token(&mut pod, "bcdfg");
        let mounts = |list: &str, i: usize| pod["spec"][list][i]["volumeMounts"].clone();
        let ours = json!({"name": "kube-api-access-bcdfg", "readOnly": true, "mountPath": MOUNT_PATH});
        assert_eq!(mounts("initContainers", 0), json!([ours]));
        assert_eq!(mounts("containers", 0), json!([{"name": "x", "mountPath": "/x"}, ours]));
        assert_eq!(mounts("containers", 1), json!([{"name": "own", "mountPath": MOUNT_PATH}]));
        assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 1);

        let once = pod.clone();
        mount_token(&mut pod, "other");
        assert_eq!(pod, once, "a second time adds nothing");
    }

    #[test]
    fn pod_and_account_can_refuse_the_token_and_the_pod_has_the_last_word() {
        for (pod, account, expected) in [
            (Value::Null, Value::Null, true),
            (Value::Null, json!(false), false),
            (json!(true), json!(false), true),
            (json!(false), Value::Null, false),
        ] {
            let wants = wants_token(
                &json!({"spec": {"automountServiceAccountToken": pod}}),
                &json!({"automountServiceAccountToken": account}),
            );
            assert_eq!(wants, expected, "{pod} {account}");
        }
    }

    #[test]
    fn a_pod_without_init_containers_gets_no_such_field() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}]}});
        mount_token(&mut pod, "bcdfg");
        let fields: Vec<&str> = pod["spec"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, ["containers", "volumes"]);
    }

    #[test]
    fn pull_secrets_come_from_the_account_unless_the_pod_has_some() {
        let account = json!({"imagePullSecrets": [{"name": "reg"}]});
        let mut pod = json!({"spec": {}});
        copy_pull_secrets(&mut pod, &account);
        assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "reg"}]));
        let mut pod = json!({"spec": {"imagePullSecrets": [{"name": "own"}]}});
        copy_pull_secrets(&mut pod, &account);
        assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "own"}]));
    }

    #[test]
    fn a_mirror_pod_uses_no_account_secret_or_token() {
        let attributes =
            testing::attributes(UserInfo::named("system:node:a", &["system:nodes"]), "create core/pods shop");
        for (spec, expected) in [
            (json!({}), None),
            (json!({"serviceAccountName": "x"}), Some("a mirror pod may not reference service accounts")),
            (
                json!({"volumes": [{"name": "s", "secret": {}}]}),
                Some("a mirror pod may not reference secrets"),
            ),
            (
                json!({"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
                Some("a mirror pod may not use ServiceAccountToken volume projections"),
            ),
        ] {
            let pod =
                json!({"metadata": {"name": "m", "annotations": {MIRROR_ANNOTATION: "h"}}, "spec": spec});
            let outcome = validate(&testing::request(&attributes, Some(pod))).map_err(|error| error.message);
            assert_eq!(outcome.err(), expected.map(|why| format!(r#"pods "m" is forbidden: {why}"#)));
        }
    }
}
