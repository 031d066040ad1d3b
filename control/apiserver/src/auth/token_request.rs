//! `serviceaccounts/NAME/token`: a token for an account, bound to a pod, secret or node if so asked.
//!
//! Who may ask is decided before (RBAC on `serviceaccounts/token`, and NodeRestriction for kubelets).

use api::status::{ApiError, FieldError, quote};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::tokens::{Bound, Claims, Issuer, Reference, account_user};
use crate::attributes::Attributes;
use crate::bootstrap::rows;
use crate::object::ToValue as _;
use crate::registry_access::Registry;

/// Validity of a token whose request names none, in seconds.
const DEFAULT_EXPIRATION_SECONDS: i64 = 3600;
/// Shortest validity that may be asked for, in seconds.
const MIN_EXPIRATION_SECONDS: i64 = 600;
/// Longest validity that may be asked for, in seconds.
const MAX_EXPIRATION_SECONDS: i64 = 1 << 32;

/// Answers the TokenRequest that was posted to the account `asked.namespace`/`asked.name`.
pub(super) async fn answer(
    registry: &Registry,
    issuer: &Issuer,
    default_audiences: &[String],
    asked: &Attributes,
    mut request: Value,
) -> Result<Value, ApiError> {
    let (namespace, name) = (asked.namespace.as_str(), asked.name.as_str());
    let account = registry.get(rows::service_accounts(), namespace, name).await?.value();
    let wanted = Wanted::from_request(&request, default_audiences)?;
    let now = Timestamp::now();
    let bound = bind(registry, namespace, name, &account, &request["spec"]["boundObjectRef"]).await?;
    let expires = now + SignedDuration::from_secs(wanted.expiration_seconds);
    let claims = Claims {
        aud: wanted.audiences.clone(),
        exp: expires.as_second(),
        iat: now.as_second(),
        iss: issuer.url().to_owned(),
        jti: uuid::Uuid::new_v4().to_string(),
        bound,
        nbf: now.as_second(),
        sub: account_user(namespace, name),
    };
    let token = issuer.sign(&claims).map_err(ApiError::internal)?;
    let text = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    request["kind"] = "TokenRequest".into();
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["metadata"] = json!({ "name": name, "namespace": namespace, "creationTimestamp": text(now) });
    request["spec"]["audiences"] = json!(wanted.audiences);
    request["spec"]["expirationSeconds"] = wanted.expiration_seconds.into();
    request["status"] = json!({ "token": token, "expirationTimestamp": text(expires) });
    Ok(request)
}

/// What a TokenRequest's spec asks for, defaults filled in.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    audiences: Vec<String>,
    expiration_seconds: i64,
}

impl Wanted {
    fn from_request(request: &Value, default_audiences: &[String]) -> Result<Self, ApiError> {
        let spec = &request["spec"];
        let listed = spec["audiences"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut audiences: Vec<String> =
            listed.iter().filter_map(|a| a.as_str().map(str::to_owned)).collect();
        if audiences.is_empty() {
            audiences = default_audiences.to_vec();
        }
        let expiration_seconds = spec["expirationSeconds"].as_i64().unwrap_or(DEFAULT_EXPIRATION_SECONDS);
        let refused = match expiration_seconds {
            ..MIN_EXPIRATION_SECONDS => Some("may not specify a duration less than 10 minutes"),
            MIN_EXPIRATION_SECONDS..=MAX_EXPIRATION_SECONDS => None,
            _ => Some("may not specify a duration larger than 2^32 seconds"),
        };
        match refused {
            None => Ok(Self { audiences, expiration_seconds }),
            Some(detail) => {
                let error = FieldError::invalid("spec.expirationSeconds", expiration_seconds, detail);
                Err(ApiError::invalid(("authentication.k8s.io", "TokenRequest"), "", vec![error]))
            }
        }
    }
}

/// The `kubernetes.io` claim: the account, and the object the token shall live with.
async fn bind(
    registry: &Registry,
    namespace: &str,
    account_name: &str,
    account: &Value,
    wanted: &Value,
) -> Result<Bound, ApiError> {
    let mut bound = Bound {
        namespace: namespace.to_owned(),
        node: None,
        pod: None,
        secret: None,
        serviceaccount: reference(account),
    };
    if wanted.is_null() {
        return Ok(bound);
    }
    let kind = wanted["kind"].as_str().unwrap_or_default();
    let name = wanted["name"].as_str().unwrap_or_default();
    let (row, object_namespace) = match (wanted["apiVersion"].as_str(), kind) {
        (Some("v1"), "Pod") => (rows::pods(), namespace),
        (Some("v1"), "Secret") => (rows::secrets(), namespace),
        (Some("v1"), "Node") => (rows::nodes(), ""),
        (version, _) => {
            let version = version.unwrap_or_default();
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {version}, Kind={kind}"
            )));
        }
    };
    let object = registry.get(row, object_namespace, name).await?.value();
    let found = reference(&object);
    let uid = wanted["uid"].as_str().unwrap_or_default();
    if !uid.is_empty() && uid != found.uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict(row, name, why));
    }
    match kind {
        "Pod" => {
            let runs_as = object["spec"]["serviceAccountName"].as_str().unwrap_or_default();
            if runs_as != account_name {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
                    quote(account_name)
                )));
            }
            bound.node = node_of(registry, &object).await;
            bound.pod = Some(found);
        }
        "Secret" => bound.secret = Some(found),
        _ => bound.node = Some(found),
    }
    Ok(bound)
}

/// The node a pod runs on, as its token names it.
async fn node_of(registry: &Registry, pod: &Value) -> Option<Reference> {
    let name = pod["spec"]["nodeName"].as_str().filter(|name| !name.is_empty())?;
    registry.get(rows::nodes(), "", name).await.ok().map(|node| reference(&node.value()))
}

fn reference(object: &Value) -> Reference {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Reference { name: text(&object["metadata"]["name"]), uid: text(&object["metadata"]["uid"]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_has_bounds_and_a_default() {
        let wanted = |seconds: Value| {
            Wanted::from_request(&json!({"spec": {"expirationSeconds": seconds}}), &["api".to_owned()])
                .map(|wanted| wanted.expiration_seconds)
                .map_err(|error| error.message)
        };
        assert_eq!(wanted(Value::Null), Ok(3600));
        assert_eq!(wanted(json!(600)), Ok(600));
        let refused = |value: i64, detail: &str| {
            Err(format!(
                r#"TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: {value}: {detail}"#
            ))
        };
        assert_eq!(wanted(json!(599)), refused(599, "may not specify a duration less than 10 minutes"));
        assert_eq!(
            wanted(json!((1_i64 << 32) + 1)),
            refused((1 << 32) + 1, "may not specify a duration larger than 2^32 seconds")
        );
    }

    #[test]
    fn audiences_default_to_the_servers_own() {
        let defaults = ["api".to_owned()];
        let audiences =
            |spec: Value| Wanted::from_request(&json!({ "spec": spec }), &defaults).map(|w| w.audiences);
        assert_eq!(audiences(json!({})), Ok(vec!["api".to_owned()]));
        assert_eq!(audiences(json!({"audiences": ["vault"]})), Ok(vec!["vault".to_owned()]));
    }
}
