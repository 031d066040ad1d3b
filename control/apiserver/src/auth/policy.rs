//! Who holds which rules: Roles, ClusterRoles and their bindings compiled into one look-up by subject.
//!
//! Pure: built from the objects as they are at one moment, never changed afterwards. A change of any of them
//! means a new [`Policy`] (see `authorizer`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use api::selector::LabelSelector;
use serde_json::Value;

use super::rules::Rule;
use crate::attributes::{Attributes, UserInfo};

/// The group that may do everything, whatever the roles say.
pub const MASTERS: &str = "system:masters";

/// The objects a policy is compiled from, as JSON.
#[derive(Debug, Default)]
pub struct Objects {
    /// ClusterRoles.
    pub cluster_roles: Vec<Value>,
    /// Roles of all namespaces.
    pub roles: Vec<Value>,
    /// ClusterRoleBindings.
    pub cluster_role_bindings: Vec<Value>,
    /// RoleBindings of all namespaces.
    pub role_bindings: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// Rules bound to a subject.
#[derive(Debug, Clone)]
struct Grant {
    /// Where the rules hold; `None` is everywhere.
    namespace: Option<String>,
    /// The rules, or the message about a role that does not exist.
    rules: Result<Arc<[Rule]>, String>,
}

/// Compiled roles and bindings.
#[derive(Debug, Default)]
pub struct Policy {
    grants: HashMap<Subject, Vec<Grant>>,
    roles: RoleRules,
}

/// Rules of each role: a Role by its namespace and name, a ClusterRole with an empty namespace.
type RoleRules = HashMap<(String, String), Arc<[Rule]>>;

/// What the policy says about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is permitted.
    Allow,
    /// Nothing permits it.
    Deny {
        /// Why, beyond "no rule matches"; usually empty.
        reason: String,
    },
}

impl Policy {
    /// Compiles `objects`.
    pub fn compile(objects: &Objects) -> Self {
        let roles = role_rules(objects);
        let mut grants: HashMap<Subject, Vec<Grant>> = HashMap::new();
        let bindings = objects.cluster_role_bindings.iter().chain(&objects.role_bindings);
        for binding in bindings {
            let namespace = binding["metadata"]["namespace"].as_str().map(str::to_owned);
            let rules = resolve(&roles, &binding["roleRef"], namespace.as_deref().unwrap_or_default());
            for subject in binding["subjects"].as_array().map(Vec::as_slice).unwrap_or_default() {
                if let Some(subject) = Subject::from_json(subject, namespace.as_deref()) {
                    let grant = Grant { namespace: namespace.clone(), rules: rules.clone() };
                    grants.entry(subject).or_default().push(grant);
                }
            }
        }
        Self { grants, roles }
    }

    /// Decides on a request. `system:masters` may do everything.
    pub fn authorize(&self, asked: &Attributes) -> Decision {
        if is_master(&asked.user) {
            return Decision::Allow;
        }
        let mut errors = Vec::new();
        for grant in self.grants_of(&asked.user, &asked.namespace) {
            match &grant.rules {
                Ok(rules) if rules.iter().any(|rule| rule.allows(asked)) => return Decision::Allow,
                Ok(_) => {}
                Err(message) if !errors.contains(message) => errors.push(message.clone()),
                Err(_) => {}
            }
        }
        let reason = match errors.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            several => format!("RBAC: [{}]", several.join(", ")),
        };
        Decision::Deny { reason }
    }

    /// All rules that `user` holds in `namespace` (cluster-wide ones included).
    pub fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        if is_master(user) {
            return full_authority();
        }
        self.grants_of(user, namespace)
            .filter_map(|grant| grant.rules.as_ref().ok())
            .flat_map(|rules| rules.iter().cloned())
            .collect()
    }

    /// The rules of the role that a binding in `namespace` (empty for a ClusterRoleBinding) refers to.
    pub fn referenced_rules(&self, role_ref: &Value, namespace: &str) -> Result<Arc<[Rule]>, String> {
        resolve(&self.roles, role_ref, namespace)
    }

    fn grants_of<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = &'a Grant> {
        let subjects = std::iter::once(Subject::User(user.name.clone()))
            .chain(user.groups.iter().map(|group| Subject::Group(group.clone())));
        subjects
            .filter_map(|subject| self.grants.get(&subject))
            .flatten()
            .filter(move |grant| grant.namespace.as_deref().is_none_or(|held| held == namespace))
    }
}

/// `* on *.*` and on every path: what `cluster-admin` holds.
pub fn full_authority() -> Vec<Rule> {
    let all = || vec!["*".to_owned()];
    vec![
        Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
        Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
    ]
}

/// Whether the user is a member of [`MASTERS`].
pub fn is_master(user: &UserInfo) -> bool {
    user.groups.iter().any(|group| group == MASTERS)
}

impl Subject {
    fn from_json(subject: &Value, binding_namespace: Option<&str>) -> Option<Self> {
        let name = subject["name"].as_str()?;
        match subject["kind"].as_str()? {
            "User" => Some(Self::User(name.to_owned())),
            "Group" => Some(Self::Group(name.to_owned())),
            "ServiceAccount" => {
                let namespace =
                    subject["namespace"].as_str().filter(|n| !n.is_empty()).or(binding_namespace)?;
                Some(Self::User(format!("system:serviceaccount:{namespace}:{name}")))
            }
            _ => None,
        }
    }
}

fn resolve(roles: &RoleRules, role_ref: &Value, namespace: &str) -> Result<Arc<[Rule]>, String> {
    let name = role_ref["name"].as_str().unwrap_or_default();
    let (kind, namespace) = match role_ref["kind"].as_str() {
        Some("Role") => ("role", namespace),
        Some("ClusterRole") => ("clusterrole", ""),
        other => {
            return Err(format!(
                "unsupported role reference kind: {}",
                api::status::quote(other.unwrap_or_default())
            ));
        }
    };
    let key = (namespace.to_owned(), name.to_owned());
    roles
        .get(&key)
        .cloned()
        .ok_or_else(|| format!("{kind}.rbac.authorization.k8s.io {} not found", api::status::quote(name)))
}

fn role_rules(objects: &Objects) -> RoleRules {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut rules = RoleRules::new();
    for role in &objects.roles {
        let key = (text(&role["metadata"]["namespace"]), text(&role["metadata"]["name"]));
        rules.insert(key, Rule::list_from_json(&role["rules"]).into());
    }
    for role in &objects.cluster_roles {
        let name = text(&role["metadata"]["name"]);
        let gathered = aggregated(role, &objects.cluster_roles, &mut BTreeSet::new());
        rules.insert((String::new(), name), gathered.into());
    }
    rules
}

/// The rules of a ClusterRole: its own, or those of the roles its aggregation rule selects, which may aggregate too.
fn aggregated<'a>(role: &'a Value, all: &'a [Value], seen: &mut BTreeSet<&'a str>) -> Vec<Rule> {
    let selectors = match role["aggregationRule"]["clusterRoleSelectors"].as_array() {
        Some(selectors) if !selectors.is_empty() => selectors,
        _ => return Rule::list_from_json(&role["rules"]),
    };
    if !seen.insert(role["metadata"]["name"].as_str().unwrap_or_default()) {
        return Vec::new();
    }
    let mut rules = Vec::new();
    for candidate in all {
        if selectors.iter().any(|selector| selects(selector, &candidate["metadata"]["labels"])) {
            for rule in aggregated(candidate, all, seen) {
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
    }
    rules
}

fn selects(selector: &Value, labels: &Value) -> bool {
    LabelSelector::from_object(Some(selector)).is_ok_and(|selector| selector.matches_map(Some(labels)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role(namespace: &str, name: &str, labels: Value, verb: &str) -> Value {
        json!({
            "metadata": {"namespace": namespace, "name": name, "labels": labels},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}],
        })
    }

    fn binding(namespace: Option<&str>, kind: &str, role: &str, subject: Value) -> Value {
        json!({"metadata": {"namespace": namespace, "name": "b"}, "subjects": [subject], "roleRef": {"kind": kind, "name": role}})
    }

    #[track_caller]
    fn check(objects: &Objects, user: &str, verb: &str, namespace: &str, expected: Result<(), &str>) {
        let asked = Attributes {
            user: UserInfo::named(user, &["dev"]),
            verb: verb.into(),
            resource: "pods".into(),
            namespace: namespace.into(),
            resource_request: true,
            ..Attributes::default()
        };
        let expected = match expected {
            Ok(()) => Decision::Allow,
            Err(reason) => Decision::Deny { reason: reason.into() },
        };
        assert_eq!(Policy::compile(objects).authorize(&asked), expected, "{user} {verb} in {namespace:?}");
    }

    #[test]
    fn a_binding_holds_for_its_subjects_in_its_namespace() {
        let user = |name: &str| json!({"kind": "User", "name": name});
        let objects = Objects {
            cluster_roles: vec![role("", "c", Value::Null, "list")],
            roles: vec![role("shop", "r", Value::Null, "get")],
            cluster_role_bindings: vec![binding(
                None,
                "ClusterRole",
                "c",
                json!({"kind": "Group", "name": "ops"}),
            )],
            role_bindings: vec![
                binding(Some("shop"), "Role", "r", user("jane")),
                binding(Some("shop"), "ClusterRole", "c", json!({"kind": "Group", "name": "dev"})),
                binding(
                    Some("shop"),
                    "Role",
                    "r",
                    json!({"kind": "ServiceAccount", "name": "web", "namespace": "blog"}),
                ),
            ],
        };
        check(&objects, "jane", "get", "shop", Ok(()));
        check(&objects, "jane", "get", "blog", Err(""));
        check(&objects, "jane", "list", "shop", Ok(()));
        check(&objects, "jane", "list", "", Err(""));
        check(&objects, "joe", "get", "shop", Err(""));
        check(&objects, "system:serviceaccount:blog:web", "get", "shop", Ok(()));
        check(&objects, "system:serviceaccount:shop:web", "get", "shop", Err(""));
    }

    #[test]
    fn a_role_of_another_namespace_does_not_count_and_a_missing_one_is_named() {
        let objects = Objects {
            roles: vec![role("blog", "r", Value::Null, "get")],
            role_bindings: vec![binding(Some("shop"), "Role", "r", json!({"kind": "User", "name": "jane"}))],
            cluster_role_bindings: vec![binding(
                None,
                "ClusterRole",
                "c",
                json!({"kind": "User", "name": "jane"}),
            )],
            ..Objects::default()
        };
        check(
            &objects,
            "jane",
            "get",
            "shop",
            Err(
                r#"RBAC: [clusterrole.rbac.authorization.k8s.io "c" not found, role.rbac.authorization.k8s.io "r" not found]"#,
            ),
        );
        check(
            &objects,
            "jane",
            "get",
            "blog",
            Err(r#"RBAC: clusterrole.rbac.authorization.k8s.io "c" not found"#),
        );
    }

    #[test]
    fn aggregation_gathers_through_roles_that_gather_and_ends_in_a_circle() {
        let gathering = |name: &str, of: &str, labels: Value| {
            json!({
                "metadata": {"name": name, "labels": labels},
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {of: "true"}}]},
                "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
            })
        };
        let objects = Objects {
            cluster_roles: vec![
                gathering("top", "to-top", json!({"to-middle": "true"})),
                gathering("middle", "to-middle", json!({"to-top": "true"})),
                role("", "leaf", json!({"to-middle": "true"}), "get"),
            ],
            cluster_role_bindings: vec![binding(
                None,
                "ClusterRole",
                "top",
                json!({"kind": "User", "name": "jane"}),
            )],
            ..Objects::default()
        };
        check(&objects, "jane", "get", "shop", Ok(()));
        check(&objects, "jane", "delete", "shop", Err(""));
    }
}
