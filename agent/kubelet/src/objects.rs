//! ConfigMaps, Secrets, service-account tokens and services, as pods need them. The last known content of an object
//! answers when the API cannot, so that containers restart while the control plane is down.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest, TokenRequestSpec, TokenRequestStatus,
};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use kube::runtime::reflector::Store;

use crate::pods::state::{name, namespace, spec, uid};

/// Upstream's default lifetime of a projected token: an hour and a bit.
pub const TOKEN_SECONDS: i64 = 3607;

/// Key-value content of a ConfigMap or Secret; `None`: it does not exist.
pub type Content = Option<BTreeMap<String, Vec<u8>>>;

/// Why an object could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{kind} \"{name}\": {source}")]
pub struct ObjectError {
    kind: &'static str,
    name: String,
    source: kube::Error,
}

/// The API objects that pods of this node use.
pub struct Objects {
    client: kube::Client,
    services: Store<Service>,
    /// By (kind, namespace, name).
    known: Mutex<HashMap<(&'static str, String, String), Content>>,
    /// By (pod uid, audience, lifetime).
    tokens: Mutex<HashMap<(String, String, i64), Token>>,
}

#[derive(Clone)]
struct Token {
    text: String,
    refresh_at: Timestamp,
}

impl Objects {
    /// Reads through `client`; `services` is kept fresh by somebody else.
    pub fn new(client: kube::Client, services: Store<Service>) -> Self {
        Self { client, services, known: Mutex::default(), tokens: Mutex::default() }
    }

    /// All services known now.
    pub fn services(&self) -> Vec<std::sync::Arc<Service>> {
        self.services.state()
    }

    /// Waits until services have been listed once, but not for ever: a node whose API is down must go on.
    pub async fn services_synced(&self, limit: Duration) {
        if tokio::time::timeout(limit, self.services.wait_until_ready()).await.is_err() {
            tracing::warn!("services are not known yet: service variables may be incomplete");
        }
    }

    /// Content of a ConfigMap.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Content, ObjectError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let content = api.get_opt(name).await.map(|found| {
            found.map(|object| {
                let text = object.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
                let binary = object.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
                text.chain(binary).collect()
            })
        });
        self.remember("configmap", namespace, name, content)
    }

    /// Content of a Secret.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Content, ObjectError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let content = api.get_opt(name).await.map(|found| {
            found.map(|object| object.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect())
        });
        self.remember("secret", namespace, name, content)
    }

    fn remember(
        &self,
        kind: &'static str,
        namespace: &str,
        name: &str,
        content: Result<Content, kube::Error>,
    ) -> Result<Content, ObjectError> {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let key = (kind, namespace.to_owned(), name.to_owned());
        match content {
            Ok(content) => {
                known.insert(key, content.clone());
                Ok(content)
            }
            // Refused is an answer; only an API that cannot be reached is stood in for.
            Err(source @ kube::Error::Api(_)) => Err(ObjectError { kind, name: name.to_owned(), source }),
            Err(source) => match known.get(&key) {
                Some(content) => Ok(content.clone()),
                None => Err(ObjectError { kind, name: name.to_owned(), source }),
            },
        }
    }

    /// A token for the pod's service account, bound to the pod; renewed after 80 % of its life, or a day.
    pub async fn token(
        &self,
        pod: &Pod,
        audience: Option<&str>,
        seconds: i64,
        now: Timestamp,
    ) -> Result<String, ObjectError> {
        let key = (uid(pod).to_owned(), audience.unwrap_or_default().to_owned(), seconds);
        let lock = || self.tokens.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = lock().get(&key).cloned();
        if let Some(token) = known.as_ref().filter(|token| now < token.refresh_at) {
            return Ok(token.text.clone());
        }
        match self.request_token(pod, audience, seconds).await {
            Ok(status) => {
                let text = status.token.clone();
                lock().insert(
                    key,
                    Token { text: status.token, refresh_at: refresh_at(now, status.expiration_timestamp.0) },
                );
                Ok(text)
            }
            Err(source) => match known {
                Some(token) => Ok(token.text),
                None => {
                    Err(ObjectError { kind: "token of serviceaccount", name: account(pod).into(), source })
                }
            },
        }
    }

    async fn request_token(
        &self,
        pod: &Pod,
        audience: Option<&str>,
        seconds: i64,
    ) -> Result<TokenRequestStatus, kube::Error> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace(pod));
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: audience.map(str::to_owned).into_iter().collect(),
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(name(pod).into()),
                    uid: Some(uid(pod).into()),
                }),
            },
            ..TokenRequest::default()
        };
        let answer = api.create_token_request(account(pod), &PostParams::default(), &request).await?;
        Ok(answer.status.unwrap_or(TokenRequestStatus {
            expiration_timestamp: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now()),
            token: String::new(),
        }))
    }

    /// Forgets what was kept for a pod.
    pub fn forget(&self, uid: &str) {
        self.tokens
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .retain(|(pod, ..), _| pod != uid);
    }
}

fn account(pod: &Pod) -> &str {
    spec(pod).service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default")
}

/// 80 % of the life, at most a day.
fn refresh_at(now: Timestamp, expires: Timestamp) -> Timestamp {
    let life = expires.duration_since(now);
    let wait = (life * 4 / 5).min(jiff::SignedDuration::from_hours(24));
    now.checked_add(wait).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens_are_renewed_at_four_fifths_of_their_life() {
        let now = Timestamp::UNIX_EPOCH;
        let after = |seconds| refresh_at(now, Timestamp::from_second(seconds).unwrap()).as_second();
        assert_eq!(after(3600), 2880);
        assert_eq!(after(100 * 24 * 3600), 24 * 3600);
    }
}
