//! A refusal in upstream's words.

use api::status::{ApiError, GroupResource, quote};

use crate::attributes::Attributes;

/// 403 for what was asked; `reason` says more than "no rule matches", and is usually empty.
pub fn forbidden(asked: &Attributes, reason: &str) -> ApiError {
    let mut why = sentence(asked);
    if !reason.is_empty() {
        why.push_str(": ");
        why.push_str(reason);
    }
    let resource = GroupResource { group: asked.group.clone(), resource: asked.resource.clone() };
    let name = if asked.resource_request { asked.name.as_str() } else { "" };
    ApiError::forbidden(resource, name, why)
}

/// `User "jane" cannot list resource "pods" in API group "" in the namespace "default"`.
fn sentence(asked: &Attributes) -> String {
    let (user, verb) = (quote(&asked.user.name), &asked.verb);
    if !asked.resource_request {
        return format!("User {user} cannot {verb} path {}", quote(&asked.path));
    }
    let resource = match asked.subresource.as_str() {
        "" => quote(&asked.resource),
        subresource => quote(&format!("{}/{subresource}", asked.resource)),
    };
    let place = match asked.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {}", quote(namespace)),
    };
    format!("User {user} cannot {verb} resource {resource} in API group {} {place}", quote(&asked.group))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::UserInfo;

    #[track_caller]
    fn check(change: impl Fn(&mut Attributes), reason: &str, expected: &str) {
        let mut asked = Attributes {
            user: UserInfo::named("jane", &[]),
            verb: "list".into(),
            resource: "pods".into(),
            namespace: "default".into(),
            resource_request: true,
            ..Attributes::default()
        };
        change(&mut asked);
        let error = forbidden(&asked, reason);
        assert_eq!((error.code(), error.message.as_str()), (403, expected));
    }

    #[test]
    fn refusals_are_in_upstreams_words() {
        check(
            |_| {},
            "",
            r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default""#,
        );
        check(
            |a| {
                (a.verb, a.group, a.resource, a.subresource, a.name) =
                    ("patch".into(), "apps".into(), "deployments".into(), "scale".into(), "web".into());
            },
            "",
            r#"deployments.apps "web" is forbidden: User "jane" cannot patch resource "deployments/scale" in API group "apps" in the namespace "default""#,
        );
        check(
            |a| (a.resource, a.namespace) = ("nodes".into(), String::new()),
            r#"RBAC: clusterrole.rbac.authorization.k8s.io "x" not found"#,
            r#"nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope: RBAC: clusterrole.rbac.authorization.k8s.io "x" not found"#,
        );
        check(
            |a| {
                *a = Attributes {
                    user: a.user.clone(),
                    verb: "get".into(),
                    path: "/metrics".into(),
                    ..Attributes::default()
                };
            },
            "",
            r#"forbidden: User "jane" cannot get path "/metrics""#,
        );
    }
}
