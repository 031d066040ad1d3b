//! rbac.authorization.k8s.io/v1: Role, ClusterRole, RoleBinding, ClusterRoleBinding.
//!
//! That nobody may grant more than he has is checked where the rules of the requester are known, not here.

use jiff::Timestamp;
use serde_json::Value;

use super::{cell, field, metadata};
use crate::status::FieldError;
use crate::strategy::{Column, NameRule, Strategy};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Role and ClusterRole.
#[derive(Debug, Clone, Copy)]
pub struct Role {
    /// A Role, not a ClusterRole.
    pub namespaced: bool,
}

impl Strategy for Role {
    fn namespaced(&self) -> bool {
        self.namespaced
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (index, rule) in field::list(object, "/rules").iter().enumerate() {
            validate_rule(rule, self.namespaced, &format!("rules[{index}]"), &mut errors);
        }
        if !self.namespaced && field::at(object, "/aggregationRule").is_some() {
            if field::list(object, "/aggregationRule/clusterRoleSelectors").is_empty() {
                errors.push(FieldError::required(
                    "aggregationRule.clusterRoleSelectors",
                    "at least one clusterRoleSelector required if aggregationRule is non-nil",
                ));
            }
            for (index, selector) in
                field::list(object, "/aggregationRule/clusterRoleSelectors").iter().enumerate()
            {
                let path = format!("aggregationRule.clusterRoleSelectors[{index}]");
                super::workload::validate_selector(selector, &path, &mut errors);
            }
        }
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

fn validate_rule(rule: &Value, namespaced: bool, path: &str, errors: &mut Vec<FieldError>) {
    let empty = |key: &str| field::list(rule, &format!("/{key}")).is_empty();
    if empty("verbs") {
        errors.push(FieldError::required(format!("{path}.verbs"), "verbs must contain at least one value"));
    }
    if !empty("nonResourceURLs") {
        let urls = rule.get("nonResourceURLs").cloned().unwrap_or_default();
        if namespaced {
            errors.push(FieldError::invalid(
                format!("{path}.nonResourceURLs"),
                urls.clone(),
                "namespaced rules cannot apply to non-resource URLs",
            ));
        }
        if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
            errors.push(FieldError::invalid(
                format!("{path}.nonResourceURLs"),
                urls,
                "rules cannot apply to both regular resources and non-resource URLs",
            ));
        }
        return;
    }
    if empty("apiGroups") {
        errors.push(FieldError::required(
            format!("{path}.apiGroups"),
            "resource rules must supply at least one api group",
        ));
    }
    if empty("resources") {
        errors.push(FieldError::required(
            format!("{path}.resources"),
            "resource rules must supply at least one resource",
        ));
    }
}

/// RoleBinding and ClusterRoleBinding.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// A RoleBinding, not a ClusterRoleBinding.
    pub namespaced: bool,
}

impl Strategy for Binding {
    fn namespaced(&self) -> bool {
        self.namespaced
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn default(&self, object: &mut Value) {
        if let Some(role) = field::existing_mut(object, "/roleRef") {
            field::set_if_zero(role, "apiGroup", GROUP);
        }
        for subject in field::list_mut(object, "/subjects") {
            let outside = matches!(field::text(subject, "/kind"), "User" | "Group");
            if let Some(subject) = subject.as_object_mut().filter(|_| outside) {
                field::set_if_zero(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate_role_ref(object, self.namespaced, &mut errors);
        for (index, subject) in field::list(object, "/subjects").iter().enumerate() {
            validate_subject(subject, &format!("subjects[{index}]"), self.namespaced, &mut errors);
        }
        errors
    }

    fn validate_transition(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        if field::same(field::at(new, "/roleRef"), field::at(old, "/roleRef")) {
            return Vec::new();
        }
        vec![FieldError::invalid(
            "roleRef",
            new.get("roleRef").cloned().unwrap_or_default(),
            "cannot change roleRef",
        )]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::NAME,
            Column::text("Role", "Role that is granted."),
            Column::AGE,
            Column::wide("Users", "Users to whom the role is granted."),
            Column::wide("Groups", "Groups to whose members the role is granted."),
            Column::wide("ServiceAccounts", "Service accounts to which the role is granted."),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let subjects = |kind: &str| -> Value {
            field::list(object, "/subjects")
                .iter()
                .filter(|subject| field::text(subject, "/kind") == kind)
                .map(|subject| {
                    match (kind, field::text(subject, "/namespace"), field::text(subject, "/name")) {
                        ("ServiceAccount", namespace, name) if !namespace.is_empty() => {
                            format!("{namespace}/{name}")
                        }
                        (_, _, name) => name.to_owned(),
                    }
                })
                .collect::<Vec<_>>()
                .join(", ")
                .into()
        };
        vec![
            cell::name(object),
            format!("{}/{}", field::text(object, "/roleRef/kind"), field::text(object, "/roleRef/name"))
                .into(),
            cell::age(object, now),
            subjects("User"),
            subjects("Group"),
            subjects("ServiceAccount"),
        ]
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

fn validate_role_ref(object: &Value, namespaced: bool, errors: &mut Vec<FieldError>) {
    let group = field::text(object, "/roleRef/apiGroup");
    if group != GROUP {
        errors.push(FieldError::not_supported("roleRef.apiGroup", group, &[GROUP]));
    }
    let kind = field::text(object, "/roleRef/kind");
    let supported: &[&str] = if namespaced { &["ClusterRole", "Role"] } else { &["ClusterRole"] };
    if !supported.contains(&kind) {
        errors.push(FieldError::not_supported("roleRef.kind", kind, supported));
    }
    match field::text(object, "/roleRef/name") {
        "" => errors.push(FieldError::required("roleRef.name", "")),
        name => metadata::invalid(errors, "roleRef.name", name, super::names::path_segment(name)),
    }
}

fn validate_subject(subject: &Value, path: &str, namespaced: bool, errors: &mut Vec<FieldError>) {
    let name = field::text(subject, "/name");
    if name.is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    }
    let group = field::text(subject, "/apiGroup");
    match field::text(subject, "/kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                metadata::invalid(errors, &format!("{path}.name"), name, super::names::dns_subdomain(name));
            }
            if !group.is_empty() {
                errors.push(FieldError::not_supported(format!("{path}.apiGroup"), group, &[""]));
            }
            if !namespaced && field::text(subject, "/namespace").is_empty() {
                errors.push(FieldError::required(format!("{path}.namespace"), ""));
            }
        }
        "User" | "Group" if group == GROUP => {}
        "User" | "Group" => {
            errors.push(FieldError::not_supported(format!("{path}.apiGroup"), group, &[GROUP]));
        }
        kind => errors.push(FieldError::not_supported(
            format!("{path}.kind"),
            kind,
            &["ServiceAccount", "User", "Group"],
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(errors: &[FieldError], expected: &[&str]) {
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn rules_name_verbs_groups_and_resources() {
        let role = Role { namespaced: true };
        check(
            &role.validate(&json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]})),
            &[],
        );
        check(
            &role.validate(&json!({"rules": [{}, {"verbs": ["get"], "nonResourceURLs": ["/x"]}]})),
            &[
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
                "rules[1].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
            ],
        );
        check(
            &Role { namespaced: false }
                .validate(&json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]})),
            &[],
        );
    }

    #[test]
    fn a_binding_names_its_role_for_ever() {
        let binding = Binding { namespaced: false };
        let mut object = json!({
            "metadata": {"name": "b"},
            "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}],
        });
        binding.default(&mut object);
        assert_eq!(object["roleRef"]["apiGroup"], GROUP);
        assert_eq!(object["subjects"][0]["apiGroup"], GROUP);
        check(&binding.validate(&object), &[]);
        let mut changed = object.clone();
        changed["roleRef"]["name"] = json!("edit");
        check(
            &binding.validate_transition(&changed, &object),
            &[
                r#"roleRef: Invalid value: {"kind":"ClusterRole","name":"edit","apiGroup":"rbac.authorization.k8s.io"}: cannot change roleRef"#,
            ],
        );
        let row = binding.cells(&object, "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(row, ["b", "ClusterRole/view", "<unknown>", "u", "", "n/s"].map(Value::from));
    }

    #[test]
    fn subjects_are_of_known_kinds() {
        check(
            &Binding { namespaced: false }.validate(&json!({
                "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "r"},
                "subjects": [{"kind": "Robot", "name": "x"}, {"kind": "ServiceAccount", "name": "s"}],
            })),
            &[
                r#"roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole""#,
                r#"subjects[0].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group""#,
                "subjects[1].namespace: Required value",
            ],
        );
    }
}
