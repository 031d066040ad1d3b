//! What a write must pass between authorization and the store, in upstream's order of plugins.
//!
//! Each plugin is one file; its decision is pure where the objects it looks up are arguments. Not here, because their
//! kinds do not exist yet: LimitRanger, ResourceQuota, PriorityClass objects, webhooks, policies.

mod default_toleration_seconds;
mod escalation;
mod namespace_lifecycle;
mod node_restriction;
mod priority;
mod service_account;
mod taint_nodes;

use std::sync::Arc;

use api::registry::Resource;
use api::status::ApiError;
use serde_json::Value;

use crate::attributes::Attributes;
use crate::auth::Authorizer;
use crate::object::Object;
use crate::registry_access::Registry;

/// What is done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// POST, or PUT of an object that does not exist.
    Create,
    /// PUT, PATCH.
    Update,
    /// DELETE, or each object of a deletecollection.
    Delete,
    /// Exec, attach, port-forward, proxy.
    Connect,
}

/// One write on its way to the store.
pub struct AdmissionRequest<'a> {
    /// Who does what.
    pub attributes: &'a Attributes,
    /// The resource; for a subresource, the one it belongs to.
    pub resource: &'static Resource,
    /// What is done.
    pub operation: Operation,
    /// The object as it will be; for a subresource of its own kind (a binding, a token request), that.
    pub object: Option<Value>,
    /// The object as it is.
    pub old: Option<Arc<Object>>,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// CreateOptions, UpdateOptions or DeleteOptions.
    pub options: &'a Value,
    /// Warnings for the client.
    pub warnings: Vec<String>,
}

impl AdmissionRequest<'_> {
    /// 403 that names the object of this request.
    fn forbidden(&self, why: impl std::fmt::Display) -> ApiError {
        let mut name = self.attributes.name.as_str();
        let metadata = self.object.as_ref().map(|object| &object["metadata"]);
        if let (true, Some(metadata)) = (name.is_empty(), metadata) {
            // The name of a generated one is not known yet.
            let of = |field: &str| metadata[field].as_str().filter(|text| !text.is_empty());
            name = of("name").or_else(|| of("generateName")).unwrap_or("Unknown");
        }
        ApiError::forbidden(self.resource, name, why)
    }

    /// The object as it is, parsed.
    fn old_value(&self) -> Option<Value> {
        use crate::object::ToValue as _;
        self.old.as_ref().map(|object| object.value())
    }

    /// Whether this writes `plural` of the core group itself, not a subresource.
    fn is(&self, plural: &str) -> bool {
        self.resource.group.is_empty()
            && self.resource.plural == plural
            && self.attributes.subresource.is_empty()
    }
}

/// The plugins, in order.
#[derive(Clone)]
pub struct Chain {
    registry: Registry,
    authorizer: Arc<Authorizer>,
}

impl Chain {
    /// The default chain.
    pub fn new(registry: Registry, authorizer: Arc<Authorizer>) -> Self {
        Self { registry, authorizer }
    }

    /// First phase: plugins refuse the request or change its object.
    pub async fn admit(&self, request: &mut AdmissionRequest<'_>) -> Result<(), ApiError> {
        namespace_lifecycle::admit(&self.registry, request).await?;
        service_account::admit(&self.registry, request).await?;
        node_restriction::admit(&self.registry, request).await?;
        taint_nodes::admit(request);
        priority::admit(request)?;
        default_toleration_seconds::admit(request);
        Ok(())
    }

    /// Second phase, on the object as it will be stored: plugins refuse, but change nothing.
    pub fn validate(&self, request: &AdmissionRequest<'_>) -> Result<(), ApiError> {
        service_account::validate(request)?;
        escalation::validate(&self.authorizer.policy(), &|asked| self.authorizer.authorize(asked), request)
    }
}

#[cfg(test)]
mod testing;
