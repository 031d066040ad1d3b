//! What a kubelet may read of others' secrets: the Secrets and ConfigMaps that a pod on its node names, by name.
//!
//! Narrows what RBAC gives (`system:node`), as upstream's node authorizer does for these two kinds. Not here: the
//! same for pods and nodes, which the service proxy of this agent watches all of; and writes, which the admission
//! plugin NodeRestriction narrows.

use serde_json::Value;

use super::policy::Decision;
use crate::attributes::{Attributes, UserInfo};

/// The node whose kubelet a user is: a member of `system:nodes` called `system:node:NAME`.
pub fn node_of(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:").filter(|name| !name.is_empty())?;
    user.groups.iter().any(|group| group == "system:nodes").then_some(name)
}

/// Decides on a read of Secrets or ConfigMaps by a kubelet; `None` when it is something else, and RBAC alone decides.
///
/// `pods` gives the pods of a namespace that run on a node.
pub fn decide<P>(asked: &Attributes, pods: impl FnOnce(&str, &str) -> P) -> Option<Decision>
where
    P: IntoIterator<Item = Value>,
{
    let node = node_of(&asked.user)?;
    let named = asked.resource_request && asked.group.is_empty() && asked.subresource.is_empty();
    let kind = match asked.resource.as_str() {
        "secrets" => Kind::Secret,
        "configmaps" => Kind::ConfigMap,
        _ => return None,
    };
    if !named {
        return None;
    }
    let reason = match asked.verb.as_str() {
        "get" | "list" | "watch" if asked.name.is_empty() => "No Object name found",
        "get" | "list" | "watch" => {
            if pods(&asked.namespace, node).into_iter().any(|pod| refers_to(&pod, kind, &asked.name)) {
                return Some(Decision::Allow);
            }
            return Some(Decision::Deny {
                reason: format!("no relationship found between node '{node}' and this object"),
            });
        }
        _ => "can only read resources of this type",
    };
    Some(Decision::Deny { reason: reason.to_owned() })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Secret,
    ConfigMap,
}

impl Kind {
    /// JSON pointers to the name, below an environment variable, an `envFrom` entry, a volume, a projected source.
    fn pointers(self) -> [&'static str; 4] {
        match self {
            Self::Secret => {
                ["/valueFrom/secretKeyRef/name", "/secretRef/name", "/secret/secretName", "/secret/name"]
            }
            Self::ConfigMap => [
                "/valueFrom/configMapKeyRef/name",
                "/configMapRef/name",
                "/configMap/name",
                "/configMap/name",
            ],
        }
    }
}

fn refers_to(pod: &Value, kind: Kind, name: &str) -> bool {
    let [variable, source, volume, projected] = kind.pointers();
    let spec = &pod["spec"];
    let is = |item: &Value, pointer: &str| item.pointer(pointer).is_some_and(|found| found == name);
    let by_container = ["containers", "initContainers", "ephemeralContainers"]
        .iter()
        .flat_map(|list| items(&spec[*list]))
        .any(|container| {
            items(&container["env"]).iter().any(|item| is(item, variable))
                || items(&container["envFrom"]).iter().any(|item| is(item, source))
        });
    let by_volume = || {
        items(&spec["volumes"]).iter().any(|item| {
            is(item, volume)
                || items(&item["projected"]["sources"]).iter().any(|item| is(item, projected))
                || (kind == Kind::Secret && is(item, "/csi/nodePublishSecretRef/name"))
        })
    };
    let by_pull =
        || kind == Kind::Secret && items(&spec["imagePullSecrets"]).iter().any(|item| is(item, "/name"));
    by_container || by_volume() || by_pull()
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({"spec": {
            "nodeName": "n1",
            "imagePullSecrets": [{"name": "s-pull"}],
            "initContainers": [{"name": "i", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s-env", "key": "k"}}}]}],
            "containers": [{"name": "c",
                "env": [{"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c-env", "key": "k"}}}, {"name": "C", "value": "c"}],
                "envFrom": [{"configMapRef": {"name": "c-all"}}, {"secretRef": {"name": "s-all"}}]}],
            "volumes": [
                {"name": "v", "secret": {"secretName": "s-vol"}},
                {"name": "w", "configMap": {"name": "c-vol"}},
                {"name": "x", "projected": {"sources": [{"secret": {"name": "s-proj"}}, {"configMap": {"name": "c-proj"}}]}},
            ],
        }})
    }

    fn ask(user: UserInfo, text: &str) -> Option<Decision> {
        let words: Vec<&str> = text.split(' ').collect();
        let asked = Attributes {
            user,
            verb: words[0].into(),
            resource: words[1].into(),
            namespace: "shop".into(),
            name: words.get(2).unwrap_or(&"").to_string(),
            resource_request: true,
            ..Attributes::default()
        };
        decide(&asked, |namespace, node| {
            assert_eq!((namespace, node), ("shop", "n1"));
            [pod()]
        })
    }

    fn kubelet() -> UserInfo {
        UserInfo::named("system:node:n1", &["system:nodes"])
    }

    #[test]
    fn a_kubelet_reads_what_its_pods_name_wherever_they_name_it() {
        for name in ["s-pull", "s-env", "s-all", "s-vol", "s-proj"] {
            assert_eq!(ask(kubelet(), &format!("get secrets {name}")), Some(Decision::Allow), "{name}");
        }
        for name in ["c-env", "c-all", "c-vol", "c-proj"] {
            assert_eq!(ask(kubelet(), &format!("watch configmaps {name}")), Some(Decision::Allow), "{name}");
        }
    }

    #[test]
    fn everything_else_of_these_kinds_is_refused() {
        for (request, reason) in [
            ("get secrets other", "no relationship found between node 'n1' and this object"),
            ("get secrets c-vol", "no relationship found between node 'n1' and this object"),
            ("list secrets", "No Object name found"),
            ("delete secrets s-vol", "can only read resources of this type"),
        ] {
            assert_eq!(ask(kubelet(), request), Some(Decision::Deny { reason: reason.into() }), "{request}");
        }
    }

    #[test]
    fn other_users_and_kinds_are_left_to_rbac() {
        assert_eq!(ask(UserInfo::named("jane", &[]), "get secrets other"), None);
        assert_eq!(ask(UserInfo::named("system:node:n1", &[]), "get secrets other"), None);
        assert_eq!(ask(kubelet(), "list pods"), None);
    }
}
