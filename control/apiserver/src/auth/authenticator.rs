//! Who a request comes from: a client certificate, a service-account token, or nobody.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::registry::Resource;
use api::status::ApiError;
use http::header::AUTHORIZATION;
use http::request::Parts;
use jiff::Timestamp;
use serde_json::Value;

use super::certificates::{self, CREDENTIAL_ID};
use super::tokens::{self, Claims, Issuer, Reference, TokenError};
use crate::attributes::UserInfo;
use crate::bootstrap::rows;
use crate::object::ToValue as _;
use crate::registry_access::Registry;

/// A token of a pod that is being deleted stays good this long after its deletion time, in seconds (upstream's
/// `invalidIfDeletedBefore`): the pod still has to say good-bye.
const DELETED_LEEWAY_SECONDS: i64 = 60;

/// Group of everybody who authenticated.
const AUTHENTICATED: &str = "system:authenticated";

/// Tells users by the credentials of their requests.
pub struct Authenticator {
    registry: Registry,
    issuer: Arc<Issuer>,
    audiences: Vec<String>,
}

impl Authenticator {
    /// An authenticator that takes tokens of `issuer` meant for one of `audiences`.
    pub fn new(registry: Registry, issuer: Arc<Issuer>, audiences: Vec<String>) -> Self {
        Self { registry, issuer, audiences }
    }

    /// Audiences of the API server itself.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// The user of a request; `None` when it carries no credentials, 401 when they are not good.
    ///
    /// `peer_certificate` is the client's certificate (DER), verified in the TLS handshake.
    pub async fn authenticate(
        &self,
        parts: &Parts,
        peer_certificate: Option<&[u8]>,
    ) -> Result<Option<UserInfo>, ApiError> {
        if let Some(user) = peer_certificate.and_then(certificates::user_of) {
            return Ok(Some(authenticated(user)));
        }
        let Some(header) = parts.headers.get(AUTHORIZATION) else { return Ok(None) };
        let token = header.to_str().ok().and_then(bearer).ok_or_else(ApiError::unauthorized)?;
        match self.authenticate_token(token, &self.audiences).await {
            Ok((user, _)) => Ok(Some(user)),
            Err(error) => {
                tracing::debug!(%error, "bearer token refused");
                Err(ApiError::unauthorized())
            }
        }
    }

    /// The user of a token meant for one of `audiences`, and its claims.
    pub async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<(UserInfo, Claims), TokenError> {
        let now = Timestamp::now().as_second();
        let claims = self.issuer.verify(token, audiences, now)?;
        let bound = &claims.bound;
        let namespace = bound.namespace.as_str();
        let alive = |kind, object: Option<Value>, reference: &Reference| {
            check_alive(kind, object.as_ref(), reference, now)
        };

        let account = self.fetch(rows::service_accounts(), namespace, &bound.serviceaccount).await;
        alive("service account", account, &bound.serviceaccount)?;
        if let Some(pod) = &bound.pod {
            alive("pod", self.fetch(rows::pods(), namespace, pod).await, pod)?;
        }
        if let Some(secret) = &bound.secret {
            alive("secret", self.fetch(rows::secrets(), namespace, secret).await, secret)?;
        }
        // A pod's token names the node it runs on for information; only a token bound to nothing else dies with it.
        if let (Some(node), None) = (&bound.node, &bound.pod) {
            alive("node", self.fetch(rows::nodes(), "", node).await, node)?;
        }
        Ok((authenticated(user_of(&claims)), claims))
    }

    /// The object that `reference` names: from the cache, or from the store when the cache does not know that uid yet.
    async fn fetch(&self, row: &'static Resource, namespace: &str, reference: &Reference) -> Option<Value> {
        match self.registry.cached(row, namespace, &reference.name) {
            Some(object) if *object.meta.uid == *reference.uid => Some(object.value()),
            _ => self.registry.get(row, namespace, &reference.name).await.ok().map(|object| object.value()),
        }
    }
}

/// The token of an `Authorization` header.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn authenticated(mut user: UserInfo) -> UserInfo {
    if !user.groups.iter().any(|group| group == AUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    user
}

/// The user that good claims stand for.
fn user_of(claims: &Claims) -> UserInfo {
    let bound = &claims.bound;
    let mut extra = BTreeMap::from([(CREDENTIAL_ID.to_owned(), vec![format!("JTI={}", claims.jti)])]);
    for (kind, reference) in [("pod", &bound.pod), ("node", &bound.node)] {
        if let Some(reference) = reference {
            extra.insert(format!("authentication.kubernetes.io/{kind}-name"), vec![reference.name.clone()]);
            extra.insert(format!("authentication.kubernetes.io/{kind}-uid"), vec![reference.uid.clone()]);
        }
    }
    UserInfo {
        name: claims.sub.clone(),
        uid: bound.serviceaccount.uid.clone(),
        groups: tokens::account_groups(&bound.namespace),
        extra,
    }
}

/// Whether the object a token is bound to is the one it was made for, and not long deleted.
fn check_alive(kind: &str, object: Option<&Value>, bound: &Reference, now: i64) -> Result<(), TokenError> {
    let name = &bound.name;
    let object = object.ok_or_else(|| TokenError::Unbound(format!("{kind} {name:?} does not exist")))?;
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    if uid != bound.uid {
        return Err(TokenError::Unbound(format!("{kind} UID ({uid}) does not match claim ({})", bound.uid)));
    }
    let deleted: Option<Timestamp> =
        object["metadata"]["deletionTimestamp"].as_str().and_then(|time| time.parse().ok());
    match deleted {
        Some(time) if time.as_second() + DELETED_LEEWAY_SECONDS < now => {
            Err(TokenError::Unbound(format!("{kind} {name:?} has been deleted")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn only_bearer_headers_carry_a_token() {
        for (header, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer", None),
            ("Bearer  ", None),
        ] {
            assert_eq!(bearer(header), token, "{header:?}");
        }
    }

    #[test]
    fn a_token_dies_with_what_it_is_bound_to() {
        let bound = Reference { name: "p".into(), uid: "u1".into() };
        let now: i64 = "2026-11-22T10:00:00Z".parse::<Timestamp>().unwrap().as_second();
        let check = |object: Option<Value>| {
            check_alive("pod", object.as_ref(), &bound, now).map_err(|e| e.to_string())
        };
        let deleted = |time: &str| Some(json!({"metadata": {"uid": "u1", "deletionTimestamp": time}}));
        assert_eq!(check(Some(json!({"metadata": {"uid": "u1"}}))), Ok(()));
        assert_eq!(check(None), Err(r#"pod "p" does not exist"#.into()));
        assert_eq!(
            check(Some(json!({"metadata": {"uid": "u2"}}))),
            Err("pod UID (u2) does not match claim (u1)".into()),
            "created again under its name"
        );
        assert_eq!(check(deleted("2026-11-22T09:59:30Z")), Ok(()), "within the leeway");
        assert_eq!(check(deleted("2026-11-22T09:58:30Z")), Err(r#"pod "p" has been deleted"#.into()));
    }
}
