//! `/openapi/v3` with its hashed links, and `/openapi/v2`: the HTTP around the registry's documents.

use api::ApiError;
use api::openapi::{Document, v2_document, v3_document, v3_index};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use sha2::{Digest as _, Sha256};

use crate::body::{Response, empty};
use crate::negotiate::{Media, clauses};
use crate::query::Query;
use crate::respond::{self, Delivery};

/// The answer to a path below `/openapi/`.
pub(crate) async fn serve(path: &str, query: &Query, headers: &HeaderMap) -> Result<Response, ApiError> {
    if !accepts_json(headers) {
        return Err(ApiError::not_acceptable(&["application/json"]));
    }
    let below = path.trim_start_matches("/openapi/").trim_end_matches('/').to_owned();
    // The first request of all makes the documents: not on a thread that others' sockets wait for.
    let wanted = below.clone();
    let found = tokio::task::spawn_blocking(move || find(&wanted)).await;
    let document = found.map_err(|it| ApiError::internal(format!("making the document failed: {it}")))?;
    let document = document.ok_or_else(ApiError::no_such_path)?;
    let hash = query.text("hash");
    if !hash.is_empty() && hash != document.hash {
        return Ok(redirect(&below, &document.hash));
    }
    if is_current(headers, &document.hash) {
        return Ok(not_modified(&document.hash));
    }
    let body = vec![Bytes::from_static(&document.bytes)];
    let mut response = respond::pieces(StatusCode::OK, body, Delivery::new(Media::Json, headers)).await;
    tag(&mut response, &document.hash, !hash.is_empty());
    Ok(response)
}

/// Makes the documents if nobody did; takes a moment.
pub(crate) fn warm() {
    let _ = v3_index();
}

fn find(below: &str) -> Option<&'static Document> {
    match below.split_once('/') {
        None if below == "v3" => Some(v3_index()),
        None if below == "v2" => Some(v2_document()),
        Some(("v3", version)) => v3_document(version),
        _ => None,
    }
}

/// Documents exist as JSON alone.
fn accepts_json(headers: &HeaderMap) -> bool {
    let clauses = clauses(headers);
    clauses.is_empty()
        || clauses.iter().any(|it| matches!(it.media, "" | "application/json" | "application/*" | "*/*"))
}

/// SHA-256 in upper-case hexadecimal, as upstream's links have it.
pub(crate) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|it| format!("{it:02X}")).collect()
}

/// The client has the document of that hash.
pub(crate) fn is_current(headers: &HeaderMap, hash: &str) -> bool {
    headers.get(IF_NONE_MATCH).and_then(|it| it.to_str().ok()).is_some_and(|it| it.trim_matches('"') == hash)
}

/// 304.
pub(crate) fn not_modified(hash: &str) -> Response {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    tag(&mut response, hash, false);
    response
}

/// Says how the response may be kept.
pub(crate) fn tag(response: &mut Response, hash: &str, immutable: bool) {
    if let Ok(value) = HeaderValue::from_str(&format!("\"{hash}\"")) {
        response.headers_mut().insert(ETAG, value);
    }
    let cache = if immutable { "public, immutable" } else { "no-cache, private" };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(cache));
}

fn redirect(below: &str, hash: &str) -> Response {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(value) = HeaderValue::from_str(&format!("/openapi/{below}?hash={hash}")) {
        response.headers_mut().insert(LOCATION, value);
    }
    response
}
