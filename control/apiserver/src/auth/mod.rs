//! Who asks (authentication), and whether he may (RBAC), with the reviews and tokens by which others ask the same.
//!
//! Decisions are pure (`rules`, `policy`, `node`, `tokens`, `impersonation`, `denial`); `authenticator` and `authorizer`
//! join them with the objects in the store. Not here: OIDC, webhooks, bootstrap tokens.

pub mod authenticator;
pub mod authorizer;
mod certificates;
mod denial;
pub mod impersonation;
pub mod node;
pub mod policy;
mod reviews;
pub mod rules;
mod token_request;
pub mod tokens;

use std::sync::Arc;

use api::status::ApiError;
use serde_json::Value;

pub use authenticator::Authenticator;
pub use authorizer::Authorizer;
pub use denial::forbidden;
pub use policy::Decision;

use crate::attributes::Attributes;
use crate::pki::Pki;
use crate::registry_access::Registry;
use tokens::{Issuer, TokenError};

/// Settings of authentication.
#[derive(Debug, Clone)]
pub struct AuthOptions {
    /// URL of this cluster as a token issuer, the `iss` claim.
    pub issuer: String,
    /// Audiences that the API server answers to; the first one is given to tokens that ask for none.
    pub audiences: Vec<String>,
}

impl Default for AuthOptions {
    /// Upstream's (kubeadm's) issuer for the domain `cluster.local`.
    fn default() -> Self {
        let issuer = "https://kubernetes.default.svc.cluster.local".to_owned();
        Self { audiences: vec![issuer.clone()], issuer }
    }
}

/// Authentication, authorization, and the API of both.
pub struct Auth {
    /// Tells who asks.
    pub authenticator: Authenticator,
    /// Tells whether he may.
    pub authorizer: Arc<Authorizer>,
    registry: Registry,
    issuer: Arc<Issuer>,
}

impl Auth {
    /// Sets up authentication with the keys of `pki` and authorization from the roles in `registry`.
    pub fn new(registry: Registry, pki: &Pki, options: AuthOptions) -> Result<Arc<Self>, TokenError> {
        let issuer = Arc::new(Issuer::new(pki.service_account.serialized_der(), &options.issuer)?);
        Ok(Arc::new(Self {
            authenticator: Authenticator::new(registry.clone(), issuer.clone(), options.audiences),
            authorizer: Arc::new(Authorizer::new(registry.clone())),
            registry,
            issuer,
        }))
    }

    /// Answers a review (`tokenreviews`, `subjectaccessreviews`, ..): the posted object with its status filled in.
    pub async fn create_review(&self, asked: &Attributes, review: Value) -> Result<Value, ApiError> {
        reviews::answer(self, asked, review).await
    }

    /// Answers `serviceaccounts/NAME/token`: the posted TokenRequest with a token in its status.
    pub async fn create_token(&self, asked: &Attributes, request: Value) -> Result<Value, ApiError> {
        token_request::answer(&self.registry, &self.issuer, self.authenticator.audiences(), asked, request)
            .await
    }

    /// `/.well-known/openid-configuration`.
    pub fn openid_configuration(&self) -> Value {
        self.issuer.openid_configuration(&format!("{}/openid/v1/jwks", self.issuer.url()))
    }

    /// `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        self.issuer.jwks()
    }
}
