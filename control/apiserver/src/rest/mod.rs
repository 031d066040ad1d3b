//! The generic verbs: one implementation of each for every registered resource.
//!
//! What a kind does differently is behind its `Strategy`; what the server adds to every object (uid, times, names,
//! finalizers) is here. Nothing here authenticates or authorizes: the handler has done so.

mod binding;
mod create;
mod delete;
mod deletion;
mod eviction;
mod finalize;
mod input;
mod list;
mod modify;
mod options;
mod patch;
mod scale;
mod update;
mod watch;

use std::sync::Arc;

use api::ApiError;
use api::registry::Resource;
use futures::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::admission::{AdmissionRequest, Operation};
use crate::attributes::Attributes;
use crate::body::{Request, Response};
use crate::core::Core;
use crate::negotiate::{self, Accepted};
use crate::object::Object;
use crate::query::Query;
use crate::render::{Include, View};
use crate::respond::{self, Delivery};
use modify::Part;
use options::WriteOptions;

pub use input::BODY_MAX;

/// One request to a resource, authorized.
pub(crate) struct Call {
    pub(crate) core: Arc<Core>,
    pub(crate) attributes: Attributes,
    pub(crate) resource: &'static Resource,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) accepted: Accepted,
    pub(crate) write: WriteOptions,
}

/// What a handler found, before it is put into a representation.
pub(crate) enum Answer {
    /// An object as stored.
    Stored(StatusCode, Arc<Object>),
    /// An object, or another document, as a tree.
    Tree(StatusCode, Value),
    /// A response already made.
    Made(Response),
}

impl Call {
    /// Reads what the URL and headers say of the request.
    pub(crate) fn new(
        core: Arc<Core>,
        attributes: Attributes,
        query: Query,
        headers: &HeaderMap,
    ) -> Result<Self, ApiError> {
        let resource = api::registry::lookup(&attributes.group, &attributes.version, &attributes.resource)
            .ok_or_else(ApiError::no_such_path)?;
        let headers = headers.clone();
        let accepted = negotiate::accepted(&headers)?;
        let write = WriteOptions::parse(&query)?;
        Ok(Self { core, attributes, resource, query, headers, accepted, write })
    }

    pub(crate) fn view(&self) -> View {
        let include = match self.query.text("includeObject") {
            "None" => Include::None,
            "Object" => Include::Object,
            _ => Include::Metadata,
        };
        View { resource: self.resource, form: self.accepted.form, include }
    }

    pub(crate) fn delivery(&self) -> Delivery {
        Delivery::new(self.accepted.media, &self.headers)
    }

    pub(crate) fn namespace(&self) -> &str {
        if self.resource.namespaced { &self.attributes.namespace } else { "" }
    }

    pub(crate) fn name(&self) -> &str {
        &self.attributes.name
    }

    /// This request as admission sees it.
    pub(crate) fn admission(
        &self,
        operation: Operation,
        object: Option<Value>,
        old: Option<Arc<Object>>,
    ) -> AdmissionRequest<'_> {
        AdmissionRequest {
            attributes: &self.attributes,
            resource: self.resource,
            operation,
            object,
            old,
            dry_run: self.write.dry_run,
            options: &self.write.as_object,
            warnings: Vec::new(),
        }
    }
}

/// Kinds of core whose every use is answered with a warning (upstream's `APILifecycleDeprecated`).
const DEPRECATED: &[(&str, &str)] =
    &[("Endpoints", "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")];

/// Serves a request to a resource.
pub(crate) async fn serve(call: Call, request: Request) -> Result<Response, ApiError> {
    if call.resource.namespaced && call.namespace().is_empty() && needs_namespace(&call) {
        return Err(ApiError::no_such_path());
    }
    let deprecated =
        DEPRECATED.iter().filter(|(kind, _)| call.resource.group.is_empty() && call.resource.kind == *kind);
    let mut warnings: Vec<String> = deprecated.map(|(_, text)| (*text).to_owned()).collect();
    let answer = dispatch(&call, request, &mut warnings).await?;
    let mut response = match answer {
        Answer::Stored(status, object) => {
            let body = call.view().object(&object.body);
            respond::pieces(status, vec![body], call.delivery()).await
        }
        Answer::Tree(status, value) => {
            // Tables are of objects of the resource; a Status or a Scale stays what it is.
            let own = value.get("kind").and_then(Value::as_str) == Some(call.resource.kind);
            let body = if own { call.view().value(&value) } else { value.to_string().into() };
            respond::pieces(status, vec![body], call.delivery()).await
        }
        Answer::Made(response) => response,
    };
    respond::warn(&mut response, &warnings);
    Ok(response)
}

async fn dispatch(call: &Call, request: Request, warnings: &mut Vec<String>) -> Result<Answer, ApiError> {
    let verb = call.attributes.verb.as_str();
    let subresource = call.attributes.subresource.as_str();
    if subresource.is_empty() && !call.resource.serves(verb) {
        return Err(ApiError::method_not_supported(call.resource, verb));
    }
    if !subresource.is_empty()
        && !call.resource.subresource(subresource).is_some_and(|it| it.verbs.contains(&verb))
    {
        return Err(ApiError::no_such_path());
    }
    // Boxed one by one: a request's future is then as large as its own verb's, not as the largest.
    let answer: BoxFuture<'_, Result<Answer, ApiError>> =
        match (subresource, verb) {
            ("", "list") => Box::pin(list::list(call)),
            ("", "watch") => Box::pin(watch::watch(call)),
            ("" | "status", "get") => Box::pin(get(call)),
            ("", "create") => Box::pin(create::create(call, request, warnings)),
            ("", "update") => Box::pin(update::update(call, request, Part::Object, warnings)),
            ("", "patch") => Box::pin(patch::patch(call, request, Part::Object, warnings)),
            ("", "delete") => Box::pin(delete::delete(call, request)),
            ("", "deletecollection") => Box::pin(delete::delete_collection(call, request)),
            ("status", "update") => Box::pin(update::update(call, request, Part::Status, warnings)),
            ("status", "patch") => Box::pin(patch::patch(call, request, Part::Status, warnings)),
            ("finalize", "update") => Box::pin(update::update(call, request, Part::Finalizers, warnings)),
            ("scale", "get") => Box::pin(scale::get(call)),
            ("scale", "update") => Box::pin(scale::update(call, request, warnings)),
            ("scale", "patch") => Box::pin(scale::patch(call, request, warnings)),
            ("binding", "create") => Box::pin(binding::create(call, request)),
            ("eviction", "create") => Box::pin(eviction::create(call, request)),
            ("token", "create") => Box::pin(create::token(call, request)),
            ("log" | "exec" | "attach" | "portforward" | "proxy", _) => Box::pin(async move {
                Ok(Answer::Made(call.core.streaming.serve(request, &call.attributes).await))
            }),
            _ => return Err(ApiError::no_such_path()),
        };
    answer.await
}

/// Collections can be read across namespaces; everything else names one.
fn needs_namespace(call: &Call) -> bool {
    !matches!(call.attributes.verb.as_str(), "list" | "watch")
}

async fn get(call: &Call) -> Result<Answer, ApiError> {
    let registry = &call.core.registry;
    let object = match call.query.text("resourceVersion") {
        "" => registry.get(call.resource, call.namespace(), call.name()).await?,
        text => {
            let revision = text
                .parse()
                .map_err(|_| ApiError::bad_request(format!("invalid resource version \"{text}\"")))?;
            let store = registry.store();
            store
                .reach(revision)
                .await
                .map_err(|it| crate::registry_access::from_store(it, call.resource, call.name()))?;
            registry
                .cached(call.resource, call.namespace(), call.name())
                .ok_or_else(|| ApiError::not_found(call.resource, call.name()))?
        }
    };
    Ok(Answer::Stored(StatusCode::OK, object))
}
