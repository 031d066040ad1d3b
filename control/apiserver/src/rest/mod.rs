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
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::attributes::Attributes;
use crate::body::{Request, Response};
use crate::core::Core;
use crate::negotiate::{self, Accepted};
use crate::object::Object;
use crate::query::Query;
use crate::render::{Include, View};
use crate::respond;
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

    pub(crate) fn namespace(&self) -> &str {
        if self.resource.namespaced { &self.attributes.namespace } else { "" }
    }

    pub(crate) fn name(&self) -> &str {
        &self.attributes.name
    }
}

/// Serves a request to a resource.
pub(crate) async fn serve(call: Call, request: Request) -> Result<Response, ApiError> {
    if call.resource.namespaced && call.namespace().is_empty() && needs_namespace(&call) {
        return Err(ApiError::no_such_path());
    }
    let mut warnings = Vec::new();
    let answer = dispatch(&call, request, &mut warnings).await?;
    let mut response = match answer {
        Answer::Stored(status, object) => {
            let body = call.view().object(&object.body);
            respond::pieces(status, vec![body], call.accepted.media, &call.headers).await
        }
        Answer::Tree(status, value) => {
            // Tables are of objects of the resource; a Status or a Scale stays what it is.
            let own = value.get("kind").and_then(Value::as_str) == Some(call.resource.kind);
            let body = if own { call.view().value(&value) } else { value.to_string().into() };
            respond::pieces(status, vec![body], call.accepted.media, &call.headers).await
        }
        Answer::Made(response) => response,
    };
    respond::warn(&mut response, &warnings);
    Ok(response)
}

async fn dispatch(call: &Call, request: Request, warnings: &mut Vec<String>) -> Result<Answer, ApiError> {
    let verb = call.attributes.verb.as_str();
    match (call.attributes.subresource.as_str(), verb) {
        ("", _) if !call.resource.serves(verb) => Err(ApiError::method_not_supported(call.resource, verb)),
        ("", "list") => list::list(call).await,
        ("", "watch") => watch::watch(call).await,
        ("" | "status", "get") => get(call).await,
        ("", "create") => create::create(call, request, warnings).await,
        ("", "delete") => delete::delete(call, request).await,
        ("", "deletecollection") => delete::delete_collection(call, request).await,
        (subresource, _) if !serves_subresource(call, subresource, verb) => Err(ApiError::no_such_path()),
        ("", "update") => update::update(call, request, modify::Part::Object, warnings).await,
        ("", "patch") => patch::patch(call, request, modify::Part::Object, warnings).await,
        ("status", "update") => update::update(call, request, modify::Part::Status, warnings).await,
        ("status", "patch") => patch::patch(call, request, modify::Part::Status, warnings).await,
        ("finalize", "update") => update::update(call, request, modify::Part::Finalizers, warnings).await,
        ("scale", "get") => scale::get(call).await,
        ("scale", "update") => scale::update(call, request, warnings).await,
        ("scale", "patch") => scale::patch(call, request, warnings).await,
        ("binding", "create") => binding::create(call, request).await,
        ("eviction", "create") => eviction::create(call, request).await,
        ("token", "create") => create::token(call, request).await,
        ("log" | "exec" | "attach" | "portforward" | "proxy", _) => {
            Ok(Answer::Made(call.core.streaming.serve(request, &call.attributes).await))
        }
        _ => Err(ApiError::no_such_path()),
    }
}

fn serves_subresource(call: &Call, subresource: &str, verb: &str) -> bool {
    subresource.is_empty() || call.resource.subresource(subresource).is_some_and(|it| it.verbs.contains(&verb))
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
            let revision = text.parse().map_err(|_| ApiError::bad_request(format!("invalid resource version \"{text}\"")))?;
            let store = registry.store();
            store.reach(revision).await.map_err(|it| crate::registry_access::from_store(it, call.resource, call.name()))?;
            registry
                .cached(call.resource, call.namespace(), call.name())
                .ok_or_else(|| ApiError::not_found(call.resource, call.name()))?
        }
    };
    Ok(Answer::Stored(StatusCode::OK, object))
}
