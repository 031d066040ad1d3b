//! Who calls the kubelet and whether they may: client certificates of the cluster's CA or bearer tokens (TokenReview),
//! then a SubjectAccessReview on the node's subresource. Answers are kept for a while; a refusal shorter.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use x509_parser::prelude::{FromDer, X509Certificate};

const TOKEN_KEPT: Duration = Duration::from_secs(120);
const ALLOWED_KEPT: Duration = Duration::from_secs(300);
const REFUSED_KEPT: Duration = Duration::from_secs(30);
/// Answers that are kept at most; a full store is emptied.
const KEPT: usize = 1000;

/// The members of this group may do everything: asking would only say so.
const MASTERS: &str = "system:masters";

/// A caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct User {
    /// User name.
    pub name: String,
    /// Groups.
    pub groups: Vec<String>,
}

/// Why a request is not served.
#[derive(Debug)]
pub enum Denied {
    /// Nobody known.
    Unauthorized,
    /// Known, and not allowed.
    Forbidden(String),
    /// The API could not be asked.
    Unknown(String),
}

/// Authentication and authorization of one node's server.
pub struct Auth {
    client: kube::Client,
    node: String,
    tokens: Kept<String, Option<User>>,
    access: Kept<(User, &'static str, &'static str), bool>,
}

impl Auth {
    /// Asks through `client` about `node`.
    pub fn new(client: kube::Client, node: String) -> Self {
        Self { client, node, tokens: Kept::default(), access: Kept::default() }
    }

    /// Whether the caller may `verb` the node's `subresource`.
    pub async fn check(
        &self,
        certificate: Option<&[u8]>,
        authorization: Option<&str>,
        verb: &'static str,
        subresource: &'static str,
    ) -> Result<(), Denied> {
        let user = match certificate.and_then(user_of_certificate) {
            Some(user) => user,
            None => {
                let token = authorization.and_then(|value| value.strip_prefix("Bearer "));
                self.user_of_token(token.ok_or(Denied::Unauthorized)?).await?.ok_or(Denied::Unauthorized)?
            }
        };
        if user.groups.iter().any(|group| group == MASTERS) || self.may(&user, verb, subresource).await? {
            return Ok(());
        }
        Err(Denied::Forbidden(format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{subresource}])",
            user.name
        )))
    }

    async fn user_of_token(&self, token: &str) -> Result<Option<User>, Denied> {
        if let Some(known) = self.tokens.get(&token.to_owned()) {
            return Ok(known);
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: None },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await.map_err(unknown)?;
        let status = answer.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true)).map(|user| User {
            name: user.username.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
        });
        self.tokens.keep(token.to_owned(), user.clone(), TOKEN_KEPT);
        Ok(user)
    }

    async fn may(&self, user: &User, verb: &'static str, subresource: &'static str) -> Result<bool, Denied> {
        let key = (user.clone(), verb, subresource);
        if let Some(known) = self.access.get(&key) {
            return Ok(known);
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                groups: Some(user.groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.into()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some(subresource.into()),
                    name: Some(self.node.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await.map_err(unknown)?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        self.access.keep(key, allowed, if allowed { ALLOWED_KEPT } else { REFUSED_KEPT });
        Ok(allowed)
    }
}

fn unknown(error: kube::Error) -> Denied {
    Denied::Unknown(format!("the API server could not be asked who may do this: {error}"))
}

/// Common name and organisations of a verified certificate. (The chain was verified during the handshake.)
fn user_of_certificate(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups =
        subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect();
    Some(User { name, groups })
}

/// Answers with an end.
struct Kept<K, V>(Mutex<HashMap<K, (V, Instant)>>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Kept<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(key).filter(|(_, until)| Instant::now() < *until).map(|(value, _)| value.clone())
    }

    fn keep(&self, key: K, value: V, time: Duration) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= KEPT {
            map.clear();
        }
        map.insert(key, (value, Instant::now() + time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_forgotten_in_time() {
        let kept = Kept::default();
        kept.keep(1, "a", Duration::from_secs(60));
        kept.keep(2, "b", Duration::ZERO);
        assert_eq!(kept.get(&1), Some("a"));
        assert_eq!(kept.get(&2), None);
    }
}
