//! DELETE of one object or of all that a selector means.

use std::sync::Arc;

use api::ApiError;
use api::status::Status;
use http::StatusCode;
use serde_json::{Value, json};

use super::deletion::{self, Deletion};
use super::options::{DeleteOptions, Propagation};
use super::{Answer, Call, create, input, modify};
use crate::admission::{AdmissionRequest, Operation};
use crate::body::Request;
use crate::filter::Filter;
use crate::object::{Object, as_stored, encode, metadata_text, stored_as};
use crate::query::ListOptions;
use crate::registry_access::from_store;
use crate::render::ListMeta;
use crate::respond;

/// Attempts against versions that change meanwhile.
const TRIES: usize = 6;

/// Kinds whose DELETE answers with the object itself even when it is gone (upstream's `ReturnDeletedObject`).
const RETURN_OBJECT: &[&str] = &["Pod", "Service", "ServiceAccount"];

pub(crate) async fn delete(call: &Call, request: Request) -> Result<Answer, ApiError> {
    let body = input::delete_options(call, request).await?;
    let mut options = DeleteOptions::parse(&call.query, body.as_ref())?;
    options.dry_run |= call.write.dry_run;
    one(call, call.name(), &options).await.map(Deleted::answer)
}

/// What became of an object.
pub(crate) struct Deleted {
    resource: &'static api::registry::Resource,
    foreground: bool,
    /// Its last state.
    pub(crate) object: Arc<Object>,
    gone: bool,
    dry: Option<Value>,
}

impl Deleted {
    fn answer(self) -> Answer {
        if let Some(dry) = self.dry {
            return Answer::Tree(StatusCode::OK, dry);
        }
        if self.gone && !RETURN_OBJECT.contains(&self.resource.kind) {
            let meta = &self.object.meta;
            return Answer::Tree(StatusCode::OK, Status::success(self.resource, &meta.name, &meta.uid));
        }
        let status = if !self.gone && self.foreground { StatusCode::ACCEPTED } else { StatusCode::OK };
        Answer::Stored(status, self.object)
    }
}

/// Deletes, marks, or leaves alone one object, by name.
pub(crate) async fn one(call: &Call, name: &str, options: &DeleteOptions) -> Result<Deleted, ApiError> {
    let registry = &call.core.registry;
    let mut fresh = false;
    for _ in 0..TRIES {
        let object = registry.version(call.resource, call.namespace(), name, fresh).await?;
        let result = attempt(call, name, &object, options).await;
        // As for updates: an error found on the copy in memory is believed after a look at etcd.
        let believed = std::mem::replace(&mut fresh, true);
        match result {
            Ok(Some(deleted)) => return Ok(deleted),
            Err(error) if believed => return Err(error),
            Ok(None) | Err(_) => {}
        }
    }
    Err(ApiError::modified(call.resource, name))
}

/// One try; `None` when the object changed meanwhile.
async fn attempt(
    call: &Call,
    name: &str,
    object: &Arc<Object>,
    options: &DeleteOptions,
) -> Result<Option<Deleted>, ApiError> {
    preconditions(call, name, object, options)?;
    let mut admission = AdmissionRequest {
        dry_run: options.dry_run,
        ..call.admission(Operation::Delete, None, Some(object.clone()))
    };
    call.core.admission.admit(&mut admission).await?;
    call.core.admission.validate(&admission)?;

    let shown = create::shown(call, object);
    let foreground = options.propagation == Some(Propagation::Foreground);
    let done =
        |object, gone, dry| Ok(Some(Deleted { resource: call.resource, foreground, object, gone, dry }));
    let store = call.core.registry.store();
    match deletion::plan(call.resource, &shown, options, modify::now()) {
        Deletion::Wait => done(object.clone(), false, None),
        Deletion::Mark(marked) if options.dry_run => done(object.clone(), false, Some(marked)),
        Deletion::Remove if options.dry_run => done(object.clone(), true, None),
        Deletion::Mark(marked) => {
            let bytes = encode(&as_stored(call.resource, &marked), stored_as(call.resource));
            match store.update(object, &bytes, create::lifetime(call)).await {
                Ok(marked) => done(Arc::new(marked), false, None),
                Err(store::Error::Conflict) => Ok(None),
                Err(error) => Err(from_store(error, call.resource, name)),
            }
        }
        Deletion::Remove => match store.delete(object).await {
            Ok(_) => {
                if create::is_service(call.resource) {
                    call.core.allocator.after_delete(&shown).await;
                }
                done(object.clone(), true, None)
            }
            Err(store::Error::Conflict) => Ok(None),
            Err(error) => Err(from_store(error, call.resource, name)),
        },
    }
}

fn preconditions(call: &Call, name: &str, object: &Object, options: &DeleteOptions) -> Result<(), ApiError> {
    let version = object.revision.to_string();
    for (what, label, wanted, is) in [
        ("UID", "UID", &options.uid, &*object.meta.uid),
        ("ResourceVersion", "ResourceVersion", &options.resource_version, version.as_str()),
    ] {
        if let Some(wanted) = wanted
            && wanted != is
        {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {label} in object meta: {is}"
            );
            return Err(ApiError::conflict(call.resource, name, why));
        }
    }
    Ok(())
}

pub(crate) async fn delete_collection(call: &Call, request: Request) -> Result<Answer, ApiError> {
    let body = input::delete_options(call, request).await?;
    let mut options = DeleteOptions::parse(&call.query, body.as_ref())?;
    options.dry_run |= call.write.dry_run;
    let list_options = ListOptions::parse(&call.query, false)?;
    let filter = Filter::parse(&call.query, call.resource, call.namespace())?;
    let objects = call.core.registry.list(call.resource, call.namespace()).await?;
    let limit = if list_options.limit == 0 { usize::MAX } else { list_options.limit };
    let mut bodies = Vec::new();
    for object in objects.into_iter().filter(|it| filter.matches(&it.meta)).take(limit) {
        match one(call, &object.meta.name, &options).await {
            Ok(deleted) => bodies.push(deleted.object.body.clone()),
            // Somebody else was faster.
            Err(error) if error.reason == api::status::Reason::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let meta = ListMeta { revision: call.core.registry.store().revision(), ..ListMeta::default() };
    let pieces = call.view().list(&meta, bodies.iter());
    Ok(Answer::Made(respond::pieces(StatusCode::OK, pieces, call.delivery()).await))
}

/// The options as they stand in an eviction.
pub(crate) fn options_of(eviction: &Value) -> Result<DeleteOptions, ApiError> {
    let empty = json!({});
    DeleteOptions::parse(
        &crate::query::Query::default(),
        Some(eviction.get("deleteOptions").unwrap_or(&empty)),
    )
}

/// The name that an eviction gives must be the URL's.
pub(crate) fn names(object: &Value, name: &str) -> bool {
    let given = metadata_text(object, "name");
    given.is_empty() || given == name
}
