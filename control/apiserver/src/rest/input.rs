//! Request bodies: read up to a limit, decoded by content type against the schema of what is expected.

use api::ApiError;
use api::decode::{self, Decoded, MediaType, Target};
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::Call;
use crate::body::Request;

/// Largest request body, in bytes (upstream's `MaxRequestBodyBytes`).
pub const BODY_MAX: usize = 3 << 20;

/// The whole body. What is left of one that is too large is the connection's to throw away.
pub(crate) async fn read(request: Request) -> Result<Bytes, ApiError> {
    let mut body = request.into_body();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|it| ApiError::bad_request(format!("cannot read the request body: {it}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > BODY_MAX {
            return Err(ApiError::too_large(BODY_MAX));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// The body as an object of the resource; `warnings` takes what a lenient decoding let pass.
pub(crate) async fn object(
    call: &Call,
    request: Request,
    warnings: &mut Vec<String>,
) -> Result<Value, ApiError> {
    decoded(call, request, &Target::of(call.resource), warnings).await
}

/// The body as what the subresource takes.
pub(crate) async fn subresource(
    call: &Call,
    request: Request,
    warnings: &mut Vec<String>,
) -> Result<Value, ApiError> {
    let subresource =
        call.resource.subresource(&call.attributes.subresource).ok_or_else(ApiError::no_such_path)?;
    decoded(call, request, &Target::subresource(subresource), warnings).await
}

/// The body as `DeleteOptions`; clients may leave it out.
pub(crate) async fn delete_options(call: &Call, request: Request) -> Result<Option<Value>, ApiError> {
    let bytes = read(request).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let media = media_type(call)?;
    Ok(Some(decode::body(&bytes, media, &Target::DELETE_OPTIONS, decode::FieldValidation::Ignore)?.object))
}

async fn decoded(
    call: &Call,
    request: Request,
    target: &Target,
    warnings: &mut Vec<String>,
) -> Result<Value, ApiError> {
    let media = media_type(call)?;
    let bytes = read(request).await?;
    let Decoded { object, warnings: found } = decode::body(&bytes, media, target, call.write.validation)?;
    warnings.extend(found);
    Ok(object)
}

fn media_type(call: &Call) -> Result<MediaType, ApiError> {
    MediaType::of(content_type(call))
}

/// The Content-Type header.
pub(crate) fn content_type(call: &Call) -> Option<&str> {
    call.headers.get(CONTENT_TYPE)?.to_str().ok()
}
