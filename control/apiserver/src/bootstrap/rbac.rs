//! The bootstrap policy as objects, and how it is kept: what upstream calls reconciliation.
//!
//! Pure: [`objects`] makes the desired objects, [`reconciled`] what an existing one should become.

use serde_json::{Value, json};

use super::policy::{BINDINGS, BindingRow, CONTROLLER_ROLES, ROLES, RoleRow};
use crate::auth::rules::{Rule, uncovered};

/// An object that carries this annotation with another value than `true` is left alone.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const RBAC: &str = "rbac.authorization.k8s.io";

/// All roles and bindings of the table, roles first.
pub fn objects() -> Vec<Value> {
    let mut objects: Vec<Value> = ROLES.iter().map(role).collect();
    for (name, rules) in CONTROLLER_ROLES {
        let mut object = role(&RoleRow { namespace: "", name: "", aggregate_to: &[], gathers: "", rules });
        object["metadata"]["name"] = format!("system:controller:{name}").into();
        objects.push(object);
    }
    objects.extend(BINDINGS.iter().map(binding));
    for (name, _) in CONTROLLER_ROLES {
        let role = format!("system:controller:{name}");
        let account = format!("account:kube-system/{name}");
        let subjects = ["user:system:kube-controller-manager", &account];
        objects.push(binding_object("", &role, &role, &subjects));
    }
    objects
}

/// What `existing` should become so that it grants at least what `desired` does; `None` when it already does, or
/// when somebody switched its upkeep off.
pub fn reconciled(existing: &Value, desired: &Value) -> Option<Value> {
    if existing["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return None;
    }
    let mut next = existing.clone();
    for part in ["labels", "annotations"] {
        for (key, value) in desired["metadata"][part].as_object().into_iter().flatten() {
            if existing["metadata"][part][key].is_null() {
                next["metadata"][part][key] = value.clone();
            }
        }
    }
    if desired["aggregationRule"].is_object() {
        if existing["aggregationRule"].is_null() {
            next["aggregationRule"] = desired["aggregationRule"].clone();
        }
    } else if desired["rules"].is_array() {
        let held = Rule::list_from_json(&existing["rules"]);
        if !uncovered(&held, &Rule::list_from_json(&desired["rules"])).is_empty() {
            merge_missing(&mut next, "rules", &desired["rules"]);
        }
    }
    merge_missing(&mut next, "subjects", &desired["subjects"]);
    (next != *existing).then_some(next)
}

/// Appends to the list `field` those items of `wanted` that it lacks.
fn merge_missing(object: &mut Value, field: &str, wanted: &Value) {
    let wanted = wanted.as_array().map(Vec::as_slice).unwrap_or_default();
    if wanted.is_empty() {
        return;
    }
    let mut items = object[field].as_array().cloned().unwrap_or_default();
    items.extend(wanted.iter().filter(|item| !items.contains(item)).cloned().collect::<Vec<_>>());
    object[field] = items.into();
}

fn role(row: &RoleRow) -> Value {
    let kind = if row.namespace.is_empty() { "ClusterRole" } else { "Role" };
    let mut object = skeleton(kind, row.namespace, row.name);
    for target in row.aggregate_to {
        object["metadata"]["labels"][format!("{RBAC}/aggregate-to-{target}")] = "true".into();
    }
    if row.gathers.is_empty() {
        object["rules"] = row.rules.iter().map(|text| rule(text)).collect();
    } else {
        let label = format!("{RBAC}/aggregate-to-{}", row.gathers);
        object["aggregationRule"] = json!({ "clusterRoleSelectors": [{ "matchLabels": { label: "true" } }] });
        object["rules"] = json!([]);
    }
    object
}

fn binding(row: &BindingRow) -> Value {
    binding_object(row.namespace, row.name, row.role, row.subjects)
}

fn binding_object(namespace: &str, name: &str, role: &str, subjects: &[&str]) -> Value {
    let (kind, role_kind) =
        if namespace.is_empty() { ("ClusterRoleBinding", "ClusterRole") } else { ("RoleBinding", "Role") };
    let mut object = skeleton(kind, namespace, name);
    object["roleRef"] = json!({ "apiGroup": RBAC, "kind": role_kind, "name": role });
    object["subjects"] = subjects.iter().map(|text| subject(text)).collect();
    object
}

fn skeleton(kind: &str, namespace: &str, name: &str) -> Value {
    let mut metadata = json!({
        "name": name,
        "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" },
        "annotations": { AUTOUPDATE: "true" },
    });
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    json!({ "apiVersion": format!("{RBAC}/v1"), "kind": kind, "metadata": metadata })
}

/// `verbs | groups | resources | names` or `verbs | paths` as a PolicyRule.
fn rule(text: &str) -> Value {
    let parts: Vec<Vec<&str>> = text.split('|').map(|part| part.split_whitespace().collect()).collect();
    let verbs: Vec<&str> = parts[0]
        .iter()
        .flat_map(|word| match *word {
            "READ" => &["get", "list", "watch"][..],
            "WRITE" => &["create", "delete", "deletecollection", "patch", "update"][..],
            _ => std::slice::from_ref(word),
        })
        .copied()
        .collect();
    match parts.as_slice() {
        [_, paths] => json!({ "nonResourceURLs": paths, "verbs": verbs }),
        [_, groups, resources, names @ ..] => {
            let groups: Vec<&str> =
                groups.iter().map(|group| if *group == "core" { "" } else { group }).collect();
            let mut rule = json!({ "apiGroups": groups, "resources": resources, "verbs": verbs });
            if let [names] = names {
                rule["resourceNames"] = json!(names);
            }
            rule
        }
        _ => Value::Null,
    }
}

/// `user:NAME`, `group:NAME` or `account:NAMESPACE/NAME` as a Subject.
fn subject(text: &str) -> Value {
    let (kind, name) = text.split_once(':').unwrap_or(("", text));
    match kind {
        "user" => json!({ "apiGroup": RBAC, "kind": "User", "name": name }),
        "group" => json!({ "apiGroup": RBAC, "kind": "Group", "name": name }),
        _ => {
            let (namespace, name) = name.split_once('/').unwrap_or(("", name));
            json!({ "kind": "ServiceAccount", "name": name, "namespace": namespace })
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::attributes::{Attributes, UserInfo};
    use crate::auth::policy::{Decision, Objects, Policy};

    /// The policy of a new cluster, plus a RoleBinding of `view`, `edit` and `admin` in `shop` to the users of that name.
    fn new_cluster() -> Policy {
        let mut sorted = Objects::default();
        for object in objects() {
            match object["kind"].as_str().unwrap() {
                "ClusterRole" => sorted.cluster_roles.push(object),
                "Role" => sorted.roles.push(object),
                "ClusterRoleBinding" => sorted.cluster_role_bindings.push(object),
                _ => sorted.role_bindings.push(object),
            }
        }
        for role in ["view", "edit", "admin"] {
            sorted.role_bindings.push(json!({
                "metadata": {"namespace": "shop", "name": role},
                "roleRef": {"kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "User", "name": role}],
            }));
        }
        Policy::compile(&sorted)
    }

    /// `user[,group..] verb group/resource[/sub] [namespace] [name]` or `user verb /path`.
    fn asked(text: &str) -> Attributes {
        let words: Vec<&str> = text.split(' ').collect();
        let mut names = words[0].split(',');
        let user = UserInfo::named(names.next().unwrap(), &names.collect::<Vec<_>>());
        let verb = words[1].to_owned();
        if words[2].starts_with('/') {
            return Attributes { user, verb, path: words[2].to_owned(), ..Attributes::default() };
        }
        let mut resource = words[2].splitn(3, '/');
        let group = resource.next().unwrap().replace("core", "");
        Attributes {
            user,
            verb,
            group,
            resource: resource.next().unwrap().to_owned(),
            subresource: resource.next().unwrap_or_default().to_owned(),
            namespace: words.get(3).unwrap_or(&"").to_string(),
            name: words.get(4).unwrap_or(&"").to_string(),
            resource_request: true,
            ..Attributes::default()
        }
    }

    #[test]
    fn a_new_cluster_permits_each_part_its_work_and_no_more() {
        let policy = new_cluster();
        let table: &[(&str, bool)] = &[
            ("root,system:masters delete core/nodes", true),
            ("jane list core/pods default", false),
            ("jane get /version", true),
            ("jane get /openapi/v3", true),
            ("jane get /metrics", false),
            ("jane create authorization.k8s.io/selfsubjectaccessreviews", true),
            ("jane create authorization.k8s.io/subjectaccessreviews", false),
            ("view list core/pods shop", true),
            ("view list core/pods other", false),
            ("view get core/pods/log shop", true),
            ("view get core/secrets shop", false),
            ("view delete core/pods shop", false),
            ("edit get core/secrets shop", true),
            ("edit patch apps/deployments/scale shop", true),
            ("edit create core/pods/exec shop", true),
            ("edit list core/pods shop", true),
            ("edit create rbac.authorization.k8s.io/roles shop", false),
            ("admin create rbac.authorization.k8s.io/roles shop", true),
            ("admin list core/configmaps shop", true),
            ("admin list core/nodes", false),
            ("system:node:a,system:nodes create core/nodes", true),
            ("system:node:a,system:nodes patch core/pods/status shop", true),
            ("system:node:a,system:nodes create authorization.k8s.io/subjectaccessreviews", true),
            ("system:node:a,system:nodes create authentication.k8s.io/tokenreviews", true),
            ("system:node:a,system:nodes watch discovery.k8s.io/endpointslices", true),
            ("system:node:a,system:nodes update coordination.k8s.io/leases kube-node-lease a", true),
            ("system:node:a,system:nodes delete core/services shop", false),
            ("system:kube-scheduler create core/pods/binding shop", true),
            ("system:kube-scheduler update coordination.k8s.io/leases kube-system kube-scheduler", true),
            ("system:kube-scheduler update apps/deployments shop", false),
            ("system:kube-controller-manager update core/namespaces/finalize", true),
            ("system:kube-controller-manager create apps/replicasets shop", true),
            (
                "system:kube-controller-manager update coordination.k8s.io/leases kube-system kube-controller-manager",
                true,
            ),
            ("system:kube-controller-manager create rbac.authorization.k8s.io/clusterroles", false),
            ("kube-apiserver-kubelet-client get core/nodes/proxy", true),
            ("system:serviceaccount:shop:web,system:serviceaccounts get /openid/v1/jwks", true),
        ];
        for (text, allowed) in table {
            assert_eq!(policy.authorize(&asked(text)) == Decision::Allow, *allowed, "{text}");
        }
        let anonymous = Attributes { user: UserInfo::anonymous(), ..asked("x get /version") };
        assert_eq!(policy.authorize(&anonymous), Decision::Allow);
        let anonymous = Attributes { user: UserInfo::anonymous(), ..asked("x get /api") };
        assert_ne!(policy.authorize(&anonymous), Decision::Allow);
    }

    #[test]
    fn every_binding_names_a_role_of_the_table() {
        let all = objects();
        for binding in all.iter().filter(|object| object["roleRef"].is_object()) {
            let found = all.iter().any(|role| {
                role["kind"] == binding["roleRef"]["kind"]
                    && role["metadata"]["name"] == binding["roleRef"]["name"]
                    && role["metadata"]["namespace"] == binding["metadata"]["namespace"]
            });
            assert!(found, "{}", binding["metadata"]["name"]);
        }
    }

    #[test]
    fn rules_are_read_from_the_table() {
        assert_eq!(
            rule("READ create | core apps | pods | a b"),
            json!({"apiGroups": ["", "apps"], "resources": ["pods"], "verbs": ["get", "list", "watch", "create"], "resourceNames": ["a", "b"]})
        );
        assert_eq!(rule("get | /a /b/*"), json!({"nonResourceURLs": ["/a", "/b/*"], "verbs": ["get"]}));
        assert_eq!(rule("* | *"), json!({"nonResourceURLs": ["*"], "verbs": ["*"]}));
    }

    #[test]
    fn upkeep_adds_what_is_missing_and_keeps_what_was_added() {
        let desired =
            objects().into_iter().find(|object| object["metadata"]["name"] == "system:basic-user").unwrap();
        assert_eq!(reconciled(&desired, &desired), None);

        let extra = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
        let mut changed = desired.clone();
        changed["rules"] = json!([extra]);
        let mended = reconciled(&changed, &desired).unwrap();
        assert_eq!(mended["rules"].as_array().unwrap().len(), 3);
        assert_eq!(mended["rules"][0], extra);

        changed["metadata"]["annotations"][AUTOUPDATE] = "false".into();
        assert_eq!(reconciled(&changed, &desired), None);
    }
}
