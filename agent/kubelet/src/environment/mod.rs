//! A container's environment: what a spec asks for, resolved against the pod, its ConfigMaps and Secrets and the
//! services of its namespace. Pure; `Sources` holds what was fetched before.

pub mod expand;
pub mod fields;
pub mod services;

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod};

pub use fields::NodeFacts;

/// Contents of the ConfigMaps and Secrets that a container names, by object name; `None`: it does not exist.
#[derive(Debug, Default, Clone)]
pub struct Sources {
    /// ConfigMaps of the pod's namespace.
    pub config_maps: HashMap<String, Option<BTreeMap<String, Vec<u8>>>>,
    /// Secrets of the pod's namespace.
    pub secrets: HashMap<String, Option<BTreeMap<String, Vec<u8>>>>,
}

/// Why an environment cannot be built; shown as CreateContainerConfigError.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvironmentError {
    /// A required object does not exist.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A required key is not in the object.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// The key.
        key: String,
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// The pod's namespace.
        namespace: String,
        /// Object name.
        name: String,
    },
    /// A field path or resource name that means nothing.
    #[error("env {variable}: {message}")]
    Field {
        /// The variable.
        variable: String,
        /// What is wrong.
        message: String,
    },
}

/// Names of the ConfigMaps and Secrets that the environment of `container` needs.
pub fn references(container: &Container) -> (Vec<String>, Vec<String>) {
    let mut config_maps = Vec::new();
    let mut secrets = Vec::new();
    for source in container.env_from.iter().flatten() {
        config_maps.extend(source.config_map_ref.as_ref().map(|reference| reference.name.clone()));
        secrets.extend(source.secret_ref.as_ref().map(|reference| reference.name.clone()));
    }
    for from in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        config_maps.extend(from.config_map_key_ref.as_ref().map(|reference| reference.name.clone()));
        secrets.extend(from.secret_key_ref.as_ref().map(|reference| reference.name.clone()));
    }
    (config_maps, secrets)
}

/// The container's variables, in the order: service variables, envFrom, env; later ones win in place.
pub fn build(
    pod: &Pod,
    container: &Container,
    service_variables: Vec<(String, String)>,
    sources: &Sources,
    node: &NodeFacts,
) -> Result<Vec<(String, String)>, EnvironmentError> {
    let mut result: Vec<(String, String)> = Vec::new();
    let mut declared: Vec<(String, String)> = Vec::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let (kind, map, name, optional) = match (&source.config_map_ref, &source.secret_ref) {
            (Some(r), _) => ("configmap", sources.config_maps.get(&r.name), &r.name, r.optional),
            (None, Some(r)) => ("secret", sources.secrets.get(&r.name), &r.name, r.optional),
            (None, None) => continue,
        };
        match map.and_then(Option::as_ref) {
            Some(data) => {
                for (key, value) in data {
                    set(&mut declared, format!("{prefix}{key}"), String::from_utf8_lossy(value).into_owned());
                }
            }
            None if optional == Some(true) => {}
            None => return Err(EnvironmentError::NotFound { kind, name: name.clone() }),
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(from)) => from_source(pod, container, variable, from, sources, node)?,
            (literal, None) => {
                let text = literal.as_deref().unwrap_or_default();
                Some(expand::expand(text, |name| {
                    lookup(&declared, name).or_else(|| lookup(&service_variables, name))
                }))
            }
        };
        if let Some(value) = value {
            set(&mut declared, variable.name.clone(), value);
        }
    }
    for (name, value) in service_variables.into_iter().chain(declared) {
        set(&mut result, name, value);
    }
    Ok(result)
}

fn lookup(list: &[(String, String)], name: &str) -> Option<String> {
    list.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone())
}

fn set(list: &mut Vec<(String, String)>, name: String, value: String) {
    match list.iter_mut().find(|(key, _)| *key == name) {
        Some(entry) => entry.1 = value,
        None => list.push((name, value)),
    }
}

/// `None`: an optional reference that leads nowhere; the variable is left out.
fn from_source(
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
    from: &EnvVarSource,
    sources: &Sources,
    node: &NodeFacts,
) -> Result<Option<String>, EnvironmentError> {
    let wrong = |message: String| EnvironmentError::Field { variable: variable.name.clone(), message };
    if let Some(field) = &from.field_ref {
        return fields::pod_field(pod, &field.field_path, node).map(Some).map_err(wrong);
    }
    if let Some(resource) = &from.resource_field_ref {
        return fields::resource_field(pod, container, resource, node).map(Some).map_err(wrong);
    }
    let (kind, label, map, name, key, optional) = match (&from.config_map_key_ref, &from.secret_key_ref) {
        (Some(r), _) => {
            ("configmap", "ConfigMap", sources.config_maps.get(&r.name), &r.name, &r.key, r.optional)
        }
        (None, Some(r)) => ("secret", "Secret", sources.secrets.get(&r.name), &r.name, &r.key, r.optional),
        (None, None) => return Err(wrong("valueFrom names no source that this node knows".into())),
    };
    let data = map.and_then(Option::as_ref);
    match data.and_then(|data| data.get(key)) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional == Some(true) => Ok(None),
        None if data.is_none() => Err(EnvironmentError::NotFound { kind, name: name.clone() }),
        None => Err(EnvironmentError::NoKey {
            key: key.clone(),
            kind: label,
            namespace: crate::pods::state::namespace(pod).to_owned(),
            name: name.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn sources() -> Sources {
        let data = |pairs: &[(&str, &str)]| {
            Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect())
        };
        Sources {
            config_maps: [("cm".to_owned(), data(&[("A", "1"), ("B", "2")])), ("gone".to_owned(), None)]
                .into(),
            secrets: [("s".to_owned(), data(&[("password", "x")]))].into(),
        }
    }

    fn check(container: &serde_json::Value, expected: Result<&[(&str, &str)], &str>) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns", "labels": {"app": "x"}},
            "spec": {"containers": [container], "nodeName": "n1"}}))
        .unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let services = vec![("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned())];
        let found = build(&pod, container, services, &sources(), &NodeFacts::default());
        let found = found.map_err(|error| error.to_string());
        let expected = expected
            .map(|list| list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>())
            .map_err(str::to_owned);
        assert_eq!(found, expected);
    }

    #[test]
    fn env_overrides_env_from_which_follows_services() {
        let host = ("KUBERNETES_SERVICE_HOST", "10.96.0.1");
        check(
            &json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}],
                "env": [{"name": "P_A", "value": "one"}, {"name": "URL", "value": "http://$(KUBERNETES_SERVICE_HOST)/$(P_B)"}]}),
            Ok(&[host, ("P_A", "one"), ("P_B", "2"), ("URL", "http://10.96.0.1/2")]),
        );
        check(
            &json!({"name": "c", "env": [
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
                {"name": "MAYBE", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "x", "optional": true}}}]}),
            Ok(&[host, ("NAME", "x"), ("PW", "x")]),
        );
    }

    #[test]
    fn missing_sources_are_named() {
        check(
            &json!({"name": "c", "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "x"}}}]}),
            Err("configmap \"gone\" not found"),
        );
        check(
            &json!({"name": "c", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "user"}}}]}),
            Err("couldn't find key user in Secret ns/s"),
        );
        check(
            &json!({"name": "c", "envFrom": [{"secretRef": {"name": "none"}}]}),
            Err("secret \"none\" not found"),
        );
    }
}
