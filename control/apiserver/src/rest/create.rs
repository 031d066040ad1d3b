//! CREATE: a new object under a given or generated name, and the resources that are answered instead of stored.

use std::sync::Arc;
use std::time::Duration;

use api::ApiError;
use api::registry::Resource;
use futures::future::BoxFuture;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;

use super::{Answer, Call, binding, input};
use crate::admission::Operation;
use crate::body::Request;
use crate::object::{Object, as_stored, metadata_mut, metadata_text, shown_as};
use crate::registry_access::stamp;

/// Names generated before giving up (upstream's `maxNameGenerationCreateAttempts`).
const NAME_TRIES: usize = 8;

pub(crate) async fn create(
    call: &Call,
    request: Request,
    warnings: &mut Vec<String>,
) -> Result<Answer, ApiError> {
    let object = input::object(call, request, warnings).await?;
    if call.resource.is_stored() {
        return store(call, object, warnings).await;
    }
    if call.resource.kind == "Binding" {
        let pod = metadata_text(&object, "name").to_owned();
        return binding::bind(call, &pod, object).await;
    }
    let reviewed: BoxFuture<'_, _> = Box::pin(call.core.auth.create_review(&call.attributes, object));
    let review = reviewed.await?;
    Ok(Answer::Tree(StatusCode::CREATED, review))
}

/// `serviceaccounts/x/token`.
pub(crate) async fn token(call: &Call, request: Request) -> Result<Answer, ApiError> {
    let request = input::subresource(call, request, &mut Vec::new()).await?;
    let request = admit_subresource(call, request).await?;
    let made: BoxFuture<'_, _> = Box::pin(call.core.auth.create_token(&call.attributes, request));
    let token = made.await?;
    Ok(Answer::Tree(StatusCode::CREATED, token))
}

/// Runs what is posted to a subresource through admission; gives it back, mutated or not.
pub(crate) async fn admit_subresource(call: &Call, posted: Value) -> Result<Value, ApiError> {
    let mut admission = call.admission(Operation::Create, Some(posted), None);
    call.core.admission.admit(&mut admission).await?;
    call.core.admission.validate(&admission)?;
    Ok(admission.object.unwrap_or_default())
}

/// Stores a decoded object as a new one.
pub(crate) async fn store(
    call: &Call,
    mut object: Value,
    warnings: &mut Vec<String>,
) -> Result<Answer, ApiError> {
    let strategy = call.resource.strategy;
    if !metadata_text(&object, "resourceVersion").is_empty() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    place(call, &mut object)?;
    stamp(&mut object, Timestamp::now());
    let generated = name(&mut object);
    strategy.default(&mut object);
    strategy.prepare_create(&mut object);

    let mut admission = call.admission(Operation::Create, Some(object), None);
    call.core.admission.admit(&mut admission).await?;
    let mut allocation = None;
    if let Some(object) = &mut admission.object {
        strategy.default(object);
        if is_service(call.resource) {
            // Before validation, as upstream: what is allocated is validated with the rest.
            allocation = Some(call.core.allocator.before_create(object, call.write.dry_run).await?);
        }
        let errors = strategy.validate_create(object);
        if !errors.is_empty() {
            return Err(ApiError::invalid(call.resource, metadata_text(object, "name"), errors));
        }
    }
    call.core.admission.validate(&admission)?;
    let mut object = admission.object.take().unwrap_or_default();
    warnings.append(&mut admission.warnings);
    warnings.extend(strategy.warnings(&object, None));

    if call.write.dry_run {
        absent(call, &object).await?;
        return Ok(Answer::Tree(StatusCode::CREATED, object));
    }
    let stored = insert(call, &mut object, generated.as_deref()).await?;
    if let Some(allocation) = allocation {
        allocation.commit();
    }
    Ok(Answer::Stored(StatusCode::CREATED, Arc::new(stored)))
}

/// Stores under the object's name, under another generated one if that is taken.
async fn insert(call: &Call, object: &mut Value, prefix: Option<&str>) -> Result<Object, ApiError> {
    let ttl = lifetime(call);
    for attempt in 1.. {
        let error =
            match call.core.registry.insert(call.resource, &as_stored(call.resource, object), ttl).await {
                Ok(stored) => return Ok(stored),
                Err(error) => error,
            };
        let taken = error.reason == api::status::Reason::AlreadyExists;
        match prefix {
            Some(prefix) if taken && attempt < NAME_TRIES => set_name(object, &generate(prefix)),
            Some(_) if taken => {
                return Err(ApiError::generate_name_conflict(call.resource, metadata_text(object, "name")));
            }
            _ => return Err(error),
        }
    }
    unreachable!("the loop above has no end")
}

/// A dry run finds out what the store would have: the name is taken.
async fn absent(call: &Call, object: &Value) -> Result<(), ApiError> {
    let name = metadata_text(object, "name");
    match call.core.registry.get(call.resource, metadata_text(object, "namespace"), name).await {
        Ok(_) => Err(ApiError::already_exists(call.resource, name)),
        Err(error) if error.reason == api::status::Reason::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Puts the object into the namespace of the URL.
pub(crate) fn place(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    let wanted = metadata_text(object, "namespace");
    if call.resource.namespaced && !wanted.is_empty() && wanted != call.namespace() {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let Some(metadata) = metadata_mut(object) else {
        return Err(ApiError::bad_request("the object provided is not a JSON object"));
    };
    if call.resource.namespaced {
        metadata.insert("namespace".to_owned(), call.namespace().into());
    } else {
        metadata.shift_remove("namespace");
    }
    Ok(())
}

/// Generates a name if there is none but a prefix; gives the prefix.
fn name(object: &mut Value) -> Option<String> {
    if !metadata_text(object, "name").is_empty() {
        return None;
    }
    let prefix = metadata_text(object, "generateName").to_owned();
    if prefix.is_empty() {
        return None;
    }
    set_name(object, &generate(&prefix));
    Some(prefix)
}

fn generate(prefix: &str) -> String {
    api::name::generate_name(prefix, rand::random())
}

fn set_name(object: &mut Value, name: &str) {
    if let Some(metadata) = metadata_mut(object) {
        metadata.insert("name".to_owned(), name.into());
    }
}

/// How long objects of the resource live by themselves: events an hour, everything else for ever.
pub(crate) fn lifetime(call: &Call) -> Option<Duration> {
    (call.resource.storage_prefix == "/registry/events").then_some(call.core.event_ttl)
}

/// Services take addresses and ports when they are written.
pub(crate) fn is_service(resource: &Resource) -> bool {
    resource.kind == "Service" && resource.group.is_empty()
}

/// The object as the resource shows it.
pub(crate) fn shown(call: &Call, object: &Object) -> Value {
    use crate::object::ToValue as _;
    shown_as(call.resource, object.value())
}
