//! PUT: a whole new version of an object, of its status, or of a namespace's finalizers.

use api::ApiError;
use api::status::Reason;
use http::StatusCode;
use serde_json::Value;

use super::modify::{Change, Outcome, Part, modify};
use super::{Answer, Call, create, input};
use crate::auth::Decision;
use crate::body::Request;
use crate::object::{metadata_mut, metadata_text};

/// A version given by the client.
struct Given(Value);

impl Change for Given {
    fn make(&self, _old: &Value) -> Result<Value, ApiError> {
        Ok(self.0.clone())
    }

    fn repeatable(&self) -> bool {
        metadata_text(&self.0, "resourceVersion").is_empty()
    }
}

pub(crate) async fn update(
    call: &Call,
    request: Request,
    part: Part,
    warnings: &mut Vec<String>,
) -> Result<Answer, ApiError> {
    let mut object = input::object(call, request, warnings).await?;
    same_place(call, &mut object)?;
    let given = Given(object);
    match modify(call, call.name(), part, &given, warnings).await {
        Ok(outcome) => Ok(answer(outcome)),
        Err(error) if creates(call, part, &error, &given.0) => {
            let mut allowed = call.attributes.clone();
            allowed.verb = "create".to_owned();
            if let Decision::Deny { reason, .. } = call.core.auth.authorizer.authorize(&allowed) {
                return Err(crate::auth::forbidden(&allowed, &reason));
            }
            create::store(call, given.0, warnings).await
        }
        Err(error) => Err(error),
    }
}

/// A PUT to a name that is not there creates, for the kinds that allow it.
fn creates(call: &Call, part: Part, error: &ApiError, object: &Value) -> bool {
    part == Part::Object
        && error.reason == Reason::NotFound
        && call.resource.strategy.allow_create_on_update()
        && metadata_text(object, "uid").is_empty()
        && metadata_text(object, "resourceVersion").is_empty()
}

/// What a write is answered with.
pub(crate) fn answer(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Stored(object) => Answer::Stored(StatusCode::OK, object),
        Outcome::Removed(value) | Outcome::DryRun(value) => Answer::Tree(StatusCode::OK, value),
    }
}

/// The object's name and namespace are those of the URL, or absent.
pub(crate) fn same_place(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    for (field, wanted, place) in [("name", call.name(), "URL"), ("namespace", call.namespace(), "request")] {
        let given = metadata_text(object, field);
        if given.is_empty() && field == "name" {
            return Err(ApiError::bad_request("name is required"));
        }
        // What a cluster-scoped object says of a namespace is dropped below.
        let counts = field == "name" || call.resource.namespaced;
        if counts && !given.is_empty() && given != wanted {
            return Err(ApiError::bad_request(format!(
                "the {field} of the object ({given}) does not match the {field} on the {place} ({wanted})"
            )));
        }
    }
    let Some(metadata) = metadata_mut(object) else { return Ok(()) };
    if call.resource.namespaced {
        metadata.insert("namespace".to_owned(), call.namespace().into());
    } else {
        metadata.shift_remove("namespace");
    }
    Ok(())
}
