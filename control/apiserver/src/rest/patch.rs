//! PATCH: JSON patch, merge patch, strategic merge patch. Server-side apply is refused with 415 until field managers exist.

use api::ApiError;
use api::decode::{Target, essence};
use api::patch::Kind;
use api::status::Reason;
use bytes::Bytes;
use serde_json::Value;
use std::sync::Mutex;

use super::modify::{Change, Part, modify};
use super::update::{answer, same_place};
use super::{Answer, Call, input};
use crate::body::Request;

/// The media types that a client may send.
const ACCEPTED: &str =
    "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json";

/// The kind of patch that the Content-Type names.
pub(crate) fn kind(call: &Call) -> Result<Kind, ApiError> {
    let content_type = input::content_type(call);
    if essence(content_type) == "application/apply-patch+yaml" {
        let why = format!(
            "server-side apply is not supported by this server yet - accepted media types include: {ACCEPTED}"
        );
        return Err(ApiError::new(Reason::UnsupportedMediaType, why));
    }
    Kind::of(content_type)
}

struct Patched<'a> {
    call: &'a Call,
    kind: Kind,
    body: Bytes,
    warnings: Mutex<Vec<String>>,
}

impl Change for Patched<'_> {
    fn make(&self, old: &Value) -> Result<Value, ApiError> {
        let target = Target::of(self.call.resource);
        let decoded = api::patch::apply(old, &self.body, self.kind, &target, self.call.write.validation)?;
        let mut object = decoded.object;
        same_place(self.call, &mut object)?;
        if let Ok(mut warnings) = self.warnings.lock() {
            *warnings = decoded.warnings;
        }
        Ok(object)
    }

    fn repeatable(&self) -> bool {
        // A patch that names a version makes an object of another version: that is an error, not a conflict of the write.
        true
    }
}

pub(crate) async fn patch(
    call: &Call,
    request: Request,
    part: Part,
    warnings: &mut Vec<String>,
) -> Result<Answer, ApiError> {
    let kind = kind(call)?;
    let patched = Patched { call, kind, body: input::read(request).await?, warnings: Mutex::default() };
    let outcome = modify(call, call.name(), part, &patched, warnings).await?;
    warnings.extend(patched.warnings.into_inner().unwrap_or_default());
    Ok(answer(outcome))
}
