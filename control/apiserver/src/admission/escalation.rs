//! Nobody grants by roles and bindings what he does not hold himself.
//!
//! Upstream does this in the storage layer of the RBAC kinds, under the same rules: the verbs `escalate` (on the
//! role) and `bind` (on the referenced role) lift the check.

use api::status::{ApiError, quote};
use serde_json::Value;

use super::{AdmissionRequest, Operation};
use crate::attributes::{Attributes, UserInfo};
use crate::auth::Decision;
use crate::auth::policy::{Policy, full_authority, is_master};
use crate::auth::rules::{Rule, quoted_list, uncovered};

type Authorize<'a> = &'a dyn Fn(&Attributes) -> Decision;

pub(super) fn validate(
    policy: &Policy,
    authorize: Authorize<'_>,
    request: &AdmissionRequest<'_>,
) -> Result<(), ApiError> {
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    if request.resource.group != "rbac.authorization.k8s.io" || !writes || is_master(&request.attributes.user)
    {
        return Ok(());
    }
    let Some(object) = &request.object else { return Ok(()) };
    let old = request.old_value();
    let outcome = match request.resource.plural {
        "roles" | "clusterroles" => role(policy, authorize, request, object, old.as_ref()),
        _ => binding(policy, authorize, request, object, old.as_ref()),
    };
    outcome.map_err(|why| request.forbidden(why))
}

fn role(
    policy: &Policy,
    authorize: Authorize<'_>,
    request: &AdmissionRequest<'_>,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), String> {
    let unchanged = old
        .is_some_and(|old| old["rules"] == new["rules"] && old["aggregationRule"] == new["aggregationRule"]);
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    let escalate = ask(request, "escalate", request.resource.plural, &request.attributes.namespace, name);
    if unchanged || authorize(&escalate) == Decision::Allow {
        return Ok(());
    }
    let (user, namespace) = (&request.attributes.user, &request.attributes.namespace);
    let held = policy.rules_of(user, namespace);
    // An aggregating role gathers whatever others put into it later: only who holds everything may make one.
    if new["aggregationRule"].is_object() && !uncovered(&held, &full_authority()).is_empty() {
        return Err("must have cluster-admin privileges to use an aggregationRule".to_owned());
    }
    confirm(user, &held, &Rule::list_from_json(&new["rules"]))
}

fn binding(
    policy: &Policy,
    authorize: Authorize<'_>,
    request: &AdmissionRequest<'_>,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), String> {
    let unchanged =
        old.is_some_and(|old| old["subjects"] == new["subjects"] && old["roleRef"] == new["roleRef"]);
    let namespace = &request.attributes.namespace;
    let role_ref = &new["roleRef"];
    let plural = if role_ref["kind"] == "ClusterRole" { "clusterroles" } else { "roles" };
    let name = role_ref["name"].as_str().unwrap_or_default();
    if unchanged || authorize(&ask(request, "bind", plural, namespace, name)) == Decision::Allow {
        return Ok(());
    }
    let user = &request.attributes.user;
    let given = policy.referenced_rules(role_ref, namespace)?;
    confirm(user, &policy.rules_of(user, namespace), &given)
}

fn ask(request: &AdmissionRequest<'_>, verb: &str, plural: &str, namespace: &str, name: &str) -> Attributes {
    Attributes {
        user: request.attributes.user.clone(),
        verb: verb.to_owned(),
        group: "rbac.authorization.k8s.io".to_owned(),
        version: "v1".to_owned(),
        resource: plural.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        resource_request: true,
        ..Attributes::default()
    }
}

fn confirm(user: &UserInfo, held: &[Rule], given: &[Rule]) -> Result<(), String> {
    let missing = uncovered(held, given);
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        quote(&user.name),
        quoted_list(&user.groups),
        missing.join("\n")
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing;
    use super::*;
    use crate::auth::policy::Objects;

    /// jane may manage roles and get pods in `shop`; the ClusterRole `all` holds everything.
    fn policy(extra: Value) -> Policy {
        let mut rules = vec![
            json!({"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create", "update"]}),
            json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}),
        ];
        rules.extend(extra.as_array().cloned().unwrap_or_default());
        Policy::compile(&Objects {
            roles: vec![json!({"metadata": {"name": "r", "namespace": "shop"}, "rules": rules})],
            cluster_roles: vec![json!({"metadata": {"name": "all"},
                "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]})],
            role_bindings: vec![json!({"metadata": {"name": "b", "namespace": "shop"},
                "subjects": [{"kind": "User", "name": "jane"}], "roleRef": {"kind": "Role", "name": "r"}})],
            cluster_role_bindings: vec![],
        })
    }

    #[track_caller]
    fn check(user: UserInfo, extra: Value, request: &str, object: Value, expected: Option<&str>) {
        let policy = policy(extra);
        let attributes = testing::attributes(user, request);
        let request = testing::request(&attributes, Some(object));
        let outcome = validate(&policy, &|asked| policy.authorize(asked), &request);
        assert_eq!(outcome.err().map(|error| error.message).as_deref(), expected);
    }

    const ROLES: &str = "create rbac.authorization.k8s.io/roles shop x";
    const BINDINGS: &str = "create rbac.authorization.k8s.io/rolebindings shop x";

    fn role_of(verbs: &[&str]) -> Value {
        json!({"metadata": {"name": "x"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]})
    }

    #[test]
    fn one_hands_out_what_one_holds_and_no_more() {
        let jane = || UserInfo::named("jane", &[]);
        check(jane(), Value::Null, ROLES, role_of(&["get"]), None);
        check(
            jane(),
            Value::Null,
            ROLES,
            role_of(&["get", "delete"]),
            Some(
                "roles.rbac.authorization.k8s.io \"x\" is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}",
            ),
        );
        let escalate = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["escalate"]}]);
        check(jane(), escalate, ROLES, role_of(&["delete"]), None);
        check(UserInfo::named("root", &["system:masters"]), Value::Null, ROLES, role_of(&["delete"]), None);
    }

    #[test]
    fn binding_a_role_needs_its_rules_or_the_right_to_bind_it() {
        let jane = || UserInfo::named("jane", &[]);
        let to = |kind: &str, name: &str| json!({"metadata": {"name": "x"}, "subjects": [], "roleRef": {"kind": kind, "name": name}});
        check(jane(), Value::Null, BINDINGS, to("Role", "r"), None);
        check(
            jane(),
            Value::Null,
            BINDINGS,
            to("ClusterRole", "all"),
            Some(
                "rolebindings.rbac.authorization.k8s.io \"x\" is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}",
            ),
        );
        let bind = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "resourceNames": ["all"], "verbs": ["bind"]}]);
        check(jane(), bind, BINDINGS, to("ClusterRole", "all"), None);
        check(
            jane(),
            Value::Null,
            BINDINGS,
            to("Role", "missing"),
            Some(
                r#"rolebindings.rbac.authorization.k8s.io "x" is forbidden: role.rbac.authorization.k8s.io "missing" not found"#,
            ),
        );
    }
}
