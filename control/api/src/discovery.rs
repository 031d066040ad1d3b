//! Discovery documents, as pure functions over the registry: what groups, versions and resources there are.
//!
//! Both forms: the aggregated `apidiscovery.k8s.io/v2` lists that today's clients ask for, and the old documents one a group version.
//! Negotiation between them is the server's business.

use base64::Engine as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::registry::{self, RESOURCES, Resource, Subresource};

/// `GET /api`, old form. `server_address` is `host:port` as clients reach it.
#[must_use]
pub fn api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": server_address }],
    })
}

/// `GET /apis`, old form.
#[must_use]
pub fn api_group_list() -> Value {
    let groups: Vec<Value> =
        groups().into_iter().filter(|g| !g.is_empty()).map(|group| group_body(group).into()).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `GET /apis/{group}`; `None` for a group that is not served.
#[must_use]
pub fn api_group(group: &str) -> Option<Value> {
    let group = groups().into_iter().find(|g| *g == group && !g.is_empty())?;
    let mut out = Map::from_iter([("kind".into(), json!("APIGroup")), ("apiVersion".into(), json!("v1"))]);
    out.append(&mut group_body(group));
    Some(out.into())
}

/// `GET /api/v1` or `/apis/{group}/{version}`; `None` for a group version that is not served.
#[must_use]
pub fn api_resource_list(group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for row in rows(group, version) {
        resources.push(resource_entry(row));
        resources.extend(row.subresources.iter().map(|sub| subresource_entry(row, sub)));
    }
    if resources.is_empty() {
        return None;
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": registry::api_version(group, version),
        "resources": resources,
    }))
}

/// Which of the two URLs an aggregated document answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// `/api`: the core group.
    Core,
    /// `/apis`: all other groups.
    Groups,
}

/// `GET /api` or `/apis` with `Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList`.
#[must_use]
pub fn aggregated(root: Root) -> Value {
    let items: Vec<Value> =
        groups().into_iter().filter(|g| g.is_empty() == (root == Root::Core)).map(group_discovery).collect();
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items })
}

/// Groups in the order of the registry, each once.
fn groups() -> Vec<&'static str> {
    let mut out: Vec<&str> = Vec::new();
    for (group, _) in registry::group_versions() {
        if !out.contains(&group) {
            out.push(group);
        }
    }
    out
}

fn versions(group: &str) -> Vec<&'static str> {
    registry::group_versions().into_iter().filter(|(g, _)| *g == group).map(|(_, version)| version).collect()
}

fn rows<'a>(group: &'a str, version: &'a str) -> impl Iterator<Item = &'static Resource> + 'a {
    RESOURCES.iter().filter(move |row| row.group == group && row.version == version)
}

fn group_body(group: &str) -> Map<String, Value> {
    let version = |v: &str| json!({ "groupVersion": registry::api_version(group, v), "version": v });
    let versions: Vec<Value> = versions(group).into_iter().map(version).collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    Map::from_iter([
        ("name".into(), group.into()),
        ("versions".into(), versions.into()),
        ("preferredVersion".into(), preferred),
    ])
}

fn resource_entry(row: &Resource) -> Value {
    let mut entry = json!({
        "name": row.plural,
        "singularName": row.singular,
        "namespaced": row.namespaced,
        "kind": row.kind,
        "verbs": row.verbs,
    });
    put_names(&mut entry, row);
    if row.is_stored() {
        entry["storageVersionHash"] = storage_version_hash(row).into();
    }
    entry
}

fn subresource_entry(row: &Resource, sub: &Subresource) -> Value {
    let mut entry = json!({ "name": format!("{}/{}", row.plural, sub.name), "singularName": "", "namespaced": row.namespaced });
    if (sub.group, sub.version) != (row.group, row.version) {
        if !sub.group.is_empty() {
            entry["group"] = sub.group.into();
        }
        entry["version"] = sub.version.into();
    }
    entry["kind"] = sub.kind.into();
    entry["verbs"] = sub.verbs.into();
    entry
}

fn put_names(entry: &mut Value, row: &Resource) {
    if !row.short_names.is_empty() {
        entry["shortNames"] = row.short_names.into();
    }
    if !row.categories.is_empty() {
        entry["categories"] = row.categories.into();
    }
}

fn group_discovery(group: &str) -> Value {
    let version = |version: &str| {
        let resources: Vec<Value> = rows(group, version).map(resource_discovery).collect();
        json!({ "version": version, "resources": resources, "freshness": "Current" })
    };
    let versions: Vec<Value> = versions(group).into_iter().map(version).collect();
    let metadata = if group.is_empty() { json!({}) } else { json!({ "name": group }) };
    json!({ "metadata": metadata, "versions": versions })
}

fn resource_discovery(row: &Resource) -> Value {
    let mut entry = json!({
        "resource": row.plural,
        "responseKind": response_kind(row.group, row.version, row.kind),
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": row.verbs,
    });
    put_names(&mut entry, row);
    if !row.subresources.is_empty() {
        let subresource = |sub: &Subresource| {
            json!({
                "subresource": sub.name,
                "responseKind": response_kind(sub.group, sub.version, sub.kind),
                "verbs": sub.verbs,
            })
        };
        entry["subresources"] = row.subresources.iter().map(subresource).collect();
    }
    entry
}

fn response_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({ "group": group, "version": version, "kind": kind })
}

/// Changes when the version in which objects are stored does: the start of a hash of group, version and kind, as upstream makes it.
fn storage_version_hash(row: &Resource) -> String {
    // Events are stored as core/v1 whichever group serves them.
    let stored = registry::RESOURCES.iter().find(|r| r.storage_prefix == row.storage_prefix).unwrap_or(row);
    let digest = Sha256::digest(format!("{}/{}/{}", stored.group, stored.version, stored.kind));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(list: &Value, name: &str) -> Value {
        list["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).cloned().unwrap_or_default()
    }

    #[test]
    fn core_lists_pods_and_their_subresources() {
        let list = api_resource_list("", "v1").unwrap();
        assert_eq!(list["groupVersion"], "v1");
        let pods = entry(&list, "pods");
        assert_eq!(pods["shortNames"], json!(["po"]));
        assert_eq!(pods["categories"], json!(["all"]));
        // The values that upstream publishes for these resources.
        assert_eq!(pods["storageVersionHash"], "xPOwRZ+Yhw8=");
        assert_eq!(entry(&list, "nodes")["storageVersionHash"], "XwShjMxG9Fs=");
        assert_eq!(
            entry(&list, "pods/eviction"),
            json!({"name": "pods/eviction", "singularName": "", "namespaced": true, "group": "policy", "version": "v1", "kind": "Eviction", "verbs": ["create"]})
        );
        assert_eq!(entry(&list, "pods/log")["kind"], "Pod");
        assert_eq!(entry(&list, "serviceaccounts/token")["kind"], "TokenRequest");
        assert!(api_resource_list("", "v2").is_none());
    }

    #[test]
    fn apps_has_scale_of_autoscaling() {
        let list = api_resource_list("apps", "v1").unwrap();
        let scale = entry(&list, "deployments/scale");
        assert_eq!(
            (&scale["group"], &scale["version"], &scale["kind"]),
            (&json!("autoscaling"), &json!("v1"), &json!("Scale"))
        );
        assert_eq!(entry(&list, "deployments")["storageVersionHash"], "8aSe+NMegvE=");
    }

    #[test]
    fn aggregated_documents_split_core_from_the_groups() {
        let core = aggregated(Root::Core);
        assert_eq!(core["items"].as_array().unwrap().len(), 1);
        assert_eq!(core["items"][0]["versions"][0]["version"], "v1");
        let groups = aggregated(Root::Groups);
        let names: Vec<&str> = groups["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|g| g["metadata"]["name"].as_str().unwrap())
            .collect();
        assert!(
            names.contains(&"apps") && names.contains(&"rbac.authorization.k8s.io") && !names.contains(&"")
        );
        let pods = core["items"][0]["versions"][0]["resources"]
            .as_array()
            .unwrap()
            .iter()
            .find(|r| r["resource"] == "pods")
            .unwrap();
        assert_eq!(pods["responseKind"], json!({"group": "", "version": "v1", "kind": "Pod"}));
        assert_eq!(pods["scope"], "Namespaced");
        assert!(pods["subresources"].as_array().unwrap().iter().any(|s| s["subresource"] == "exec"));
    }

    #[test]
    fn old_group_documents() {
        assert_eq!(
            api_group("apps").unwrap()["preferredVersion"],
            json!({"groupVersion": "apps/v1", "version": "v1"})
        );
        assert!(api_group("").is_none() && api_group("nope").is_none());
        assert_eq!(api_group_list()["groups"][0]["name"], "apps");
        assert_eq!(
            api_versions("172.30.0.2:6443")["serverAddressByClientCIDRs"][0]["serverAddress"],
            "172.30.0.2:6443"
        );
    }
}
