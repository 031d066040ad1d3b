//! The reviews: questions about users and permissions, posted as objects and answered at once, never stored.

use api::status::{ApiError, FieldError};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Auth;
use super::policy::{Decision, Policy};
use super::rules::Rule;
use crate::attributes::{Attributes, UserInfo};

/// How the question of a review is answered: as the same request would be.
type Authorize<'a> = &'a (dyn Fn(&Attributes) -> Decision + Sync);

/// Answers the review that was posted to `asked.resource`.
pub(super) async fn answer(auth: &Auth, asked: &Attributes, mut review: Value) -> Result<Value, ApiError> {
    let authorize = |asked: &Attributes| auth.authorizer.authorize(asked);
    let status = match asked.resource.as_str() {
        "tokenreviews" => token_review(auth, &review).await?,
        "selfsubjectreviews" => json!({ "userInfo": user_json(&asked.user) }),
        "selfsubjectrulesreviews" => rules_review(&auth.authorizer.policy(), &asked.user, &review)?,
        "selfsubjectaccessreviews" => {
            access_review(&authorize, "SelfSubjectAccessReview", asked.user.clone(), &review)?
        }
        "subjectaccessreviews" => {
            access_review(&authorize, "SubjectAccessReview", subject(&review)?, &review)?
        }
        "localsubjectaccessreviews" => local_access_review(&authorize, asked, &mut review)?,
        _ => return Err(ApiError::no_such_path()),
    };
    if asked.resource == "selfsubjectreviews" {
        review["metadata"]["creationTimestamp"] = now_text().into();
    }
    review["status"] = status;
    Ok(review)
}

fn now_text() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

async fn token_review(auth: &Auth, review: &Value) -> Result<Value, ApiError> {
    let spec = &review["spec"];
    let token = spec["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let asked = strings(&spec["audiences"]);
    let audiences = if asked.is_empty() { auth.authenticator.audiences().to_vec() } else { asked };
    Ok(match auth.authenticator.authenticate_token(token, &audiences).await {
        Ok((user, claims)) => {
            let shared: Vec<String> = audiences.into_iter().filter(|a| claims.aud.contains(a)).collect();
            json!({ "authenticated": true, "user": user_json(&user), "audiences": shared })
        }
        Err(error) => json!({ "user": {}, "error": format!("[invalid bearer token, {error}]") }),
    })
}

/// The user a SubjectAccessReview is about.
fn subject(review: &Value) -> Result<UserInfo, ApiError> {
    let spec = &review["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let user = UserInfo {
        name: text(&spec["user"]),
        uid: text(&spec["uid"]),
        groups: strings(&spec["groups"]),
        extra: serde_json::from_value(spec["extra"].clone()).unwrap_or_default(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        let error = FieldError::invalid("spec.user", "", "at least one of user or group must be specified");
        return Err(invalid("SubjectAccessReview", vec![error]));
    }
    Ok(user)
}

fn invalid(kind: &str, errors: Vec<FieldError>) -> ApiError {
    ApiError::invalid(("authorization.k8s.io", kind), "", errors)
}

fn access_review(
    authorize: Authorize<'_>,
    kind: &str,
    user: UserInfo,
    review: &Value,
) -> Result<Value, ApiError> {
    let spec = &review["spec"];
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let error = match (resource.is_null(), path.is_null()) {
        (false, false) => Some(FieldError::invalid(
            "spec.nonResourceAttributes",
            path.clone(),
            "cannot be specified in combination with resourceAttributes",
        )),
        (true, true) => Some(FieldError::invalid(
            "spec.resourceAttributes",
            resource.clone(),
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => None,
    };
    if let Some(error) = error {
        return Err(invalid(kind, vec![error]));
    }
    Ok(match authorize(&question(user, resource, path)) {
        Decision::Allow => json!({ "allowed": true }),
        Decision::Deny { reason } if reason.is_empty() => json!({ "allowed": false }),
        Decision::Deny { reason } => json!({ "allowed": false, "reason": reason }),
    })
}

/// The attributes that a review's spec describes.
fn question(user: UserInfo, resource: &Value, path: &Value) -> Attributes {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if resource.is_null() {
        return Attributes {
            user,
            verb: text(&path["verb"]),
            path: text(&path["path"]),
            ..Attributes::default()
        };
    }
    Attributes {
        user,
        verb: text(&resource["verb"]),
        group: text(&resource["group"]),
        version: text(&resource["version"]),
        resource: text(&resource["resource"]),
        subresource: text(&resource["subresource"]),
        namespace: text(&resource["namespace"]),
        name: text(&resource["name"]),
        path: String::new(),
        resource_request: true,
    }
}

fn local_access_review(
    authorize: Authorize<'_>,
    asked: &Attributes,
    review: &mut Value,
) -> Result<Value, ApiError> {
    const KIND: &str = "LocalSubjectAccessReview";
    let attributes = &review["spec"]["resourceAttributes"];
    if attributes.is_null() {
        let error = FieldError::required("spec.resourceAttributes", "must be specified");
        return Err(invalid(KIND, vec![error]));
    }
    let namespace = attributes["namespace"].as_str().unwrap_or_default().to_owned();
    if namespace != asked.namespace {
        let detail = format!("must match metadata.namespace: {}", asked.namespace);
        return Err(invalid(
            KIND,
            vec![FieldError::invalid("spec.resourceAttributes.namespace", namespace, detail)],
        ));
    }
    review["metadata"]["namespace"] = asked.namespace.as_str().into();
    access_review(authorize, KIND, subject(review)?, review)
}

fn rules_review(policy: &Policy, user: &UserInfo, review: &Value) -> Result<Value, ApiError> {
    let namespace = review["spec"]["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let rules = policy.rules_of(user, namespace);
    let (paths, resources): (Vec<&Rule>, Vec<&Rule>) =
        rules.iter().partition(|rule| !rule.non_resource_urls.is_empty());
    Ok(json!({
        "resourceRules": resources.iter().map(|rule| resource_rule(rule)).collect::<Vec<_>>(),
        "nonResourceRules": paths
            .iter()
            .map(|rule| json!({ "verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls }))
            .collect::<Vec<_>>(),
        "incomplete": false,
    }))
}

fn resource_rule(rule: &Rule) -> Value {
    let mut out = json!({ "verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources });
    if !rule.resource_names.is_empty() {
        out["resourceNames"] = json!(rule.resource_names);
    }
    out
}

/// `authentication.k8s.io/v1` UserInfo.
fn user_json(user: &UserInfo) -> Value {
    let mut out = Map::new();
    out.insert("username".into(), user.name.as_str().into());
    if !user.uid.is_empty() {
        out.insert("uid".into(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        out.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        out.insert("extra".into(), json!(user.extra));
    }
    Value::Object(out)
}

fn strings(list: &Value) -> Vec<String> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::auth::policy::Objects;

    fn policy() -> Policy {
        Policy::compile(&Objects {
            roles: vec![json!({"metadata": {"name": "r", "namespace": "shop"},
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})],
            cluster_roles: vec![json!({"metadata": {"name": "c"},
                "rules": [{"nonResourceURLs": ["/version"], "verbs": ["get"]}]})],
            role_bindings: vec![json!({"metadata": {"name": "b", "namespace": "shop"},
                "subjects": [{"kind": "User", "name": "jane"}], "roleRef": {"kind": "Role", "name": "r"}})],
            cluster_role_bindings: vec![json!({"metadata": {"name": "b"},
                "subjects": [{"kind": "Group", "name": "dev"}], "roleRef": {"kind": "ClusterRole", "name": "c"}})],
        })
    }

    #[track_caller]
    fn check(spec: Value, expected: Result<Value, &str>) {
        let review = json!({ "spec": spec });
        let answer = subject(&review).and_then(|user| {
            access_review(&|asked| policy().authorize(asked), "SubjectAccessReview", user, &review)
        });
        assert_eq!(answer.map_err(|error| error.message), expected.map_err(str::to_owned));
    }

    #[test]
    fn access_reviews_answer_for_the_user_they_name() {
        let pods = json!({"namespace": "shop", "verb": "get", "resource": "pods"});
        check(json!({"user": "jane", "resourceAttributes": pods}), Ok(json!({"allowed": true})));
        check(json!({"user": "joe", "resourceAttributes": pods}), Ok(json!({"allowed": false})));
        check(
            json!({"groups": ["dev"], "nonResourceAttributes": {"path": "/version", "verb": "get"}}),
            Ok(json!({"allowed": true})),
        );
    }

    #[test]
    fn access_reviews_that_ask_nothing_or_two_things_are_invalid() {
        check(
            json!({"user": "jane"}),
            Err(
                r#"SubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"#,
            ),
        );
        check(
            json!({"resourceAttributes": {}}),
            Err(
                r#"SubjectAccessReview.authorization.k8s.io "" is invalid: spec.user: Invalid value: "": at least one of user or group must be specified"#,
            ),
        );
    }

    #[test]
    fn rules_reviews_list_what_the_user_holds_in_the_namespace() {
        let jane = UserInfo { groups: vec!["dev".into()], ..UserInfo::named("jane", &[]) };
        let rules = |namespace: &str| {
            rules_review(&policy(), &jane, &json!({"spec": {"namespace": namespace}})).unwrap()
        };
        assert_eq!(
            rules("shop"),
            json!({
                "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/version"]}],
                "incomplete": false,
            })
        );
        assert_eq!(rules("other")["resourceRules"], json!([]));
    }
}
