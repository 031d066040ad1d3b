//! `/openapi/v3` with its hashed links, and `/openapi/v2`: documents made once from the registry.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use api::ApiError;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::body::{Response, empty};
use crate::negotiate::Media;
use crate::query::Query;
use crate::respond::{self, Delivery};

/// Until `api::openapi` is there.
mod pending {
    use serde_json::{Value, json};
    pub(super) fn v3_document(_: &str, _: &str) -> Value { json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.35.0"}, "paths": {}}) }
    pub(super) fn v2_document() -> Value { json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.35.0"}, "paths": {}}) }
}

/// One document and the hash of its bytes.
struct Document {
    body: Bytes,
    hash: String,
}

impl Document {
    fn of(value: &Value) -> Self {
        let body = Bytes::from(value.to_string());
        let hash = hash(&body);
        Self { body, hash }
    }
}

/// The documents, made when first asked for.
#[derive(Clone, Default)]
pub struct Documents {
    v3: Arc<OnceLock<BTreeMap<String, Document>>>,
    v2: Arc<OnceLock<Document>>,
}

impl Documents {
    /// Makes the v3 documents if nobody did; takes a moment.
    pub fn warm(&self) {
        let _ = self.v3();
    }

    fn v3(&self) -> &BTreeMap<String, Document> {
        self.v3.get_or_init(|| {
            let versions = api::registry::group_versions().into_iter();
            versions.map(|(group, version)| (path(group, version), Document::of(&pending::v3_document(group, version)))).collect()
        })
    }

    fn v2(&self) -> &Document {
        self.v2.get_or_init(|| Document::of(&pending::v2_document()))
    }

    /// The answer to a path below `/openapi`.
    pub(crate) async fn serve(&self, path: &str, query: &Query, headers: &HeaderMap) -> Result<Response, ApiError> {
        let this = self.clone();
        let below = path.trim_start_matches("/openapi/").to_owned();
        let delivery = Delivery::new(Media::Json, headers);
        let (query, headers) = (query.clone(), headers.clone());
        // The first request of all makes the documents: not on a thread that others' sockets wait for.
        let made = tokio::task::spawn_blocking(move || this.find(&below, &query, &headers)).await;
        match made.map_err(|it| ApiError::internal(format!("making the document failed: {it}")))?? {
            Found::Made(response) => Ok(response),
            Found::Bytes { body, hash, immutable } => {
                let mut response = respond::pieces(StatusCode::OK, vec![body], delivery).await;
                tag(&mut response, &hash, immutable);
                Ok(response)
            }
        }
    }

    fn find(&self, below: &str, query: &Query, headers: &HeaderMap) -> Result<Found, ApiError> {
        if below == "v3" {
            let index = Document::of(&self.index());
            return Ok(Found::Bytes { body: index.body, hash: index.hash, immutable: false });
        }
        let document = match below.strip_prefix("v3/") {
            Some(version) => self.v3().get(version).ok_or_else(ApiError::no_such_path)?,
            None if below == "v2" => self.v2(),
            None => return Err(ApiError::no_such_path()),
        };
        let wanted = query.text("hash");
        if !wanted.is_empty() && wanted != document.hash {
            return Ok(Found::Made(redirect(below, &document.hash)));
        }
        if is_current(headers, &document.hash) {
            return Ok(Found::Made(not_modified(&document.hash)));
        }
        Ok(Found::Bytes { body: document.body.clone(), hash: document.hash.clone(), immutable: !wanted.is_empty() })
    }

    fn index(&self) -> Value {
        let link = |(path, document): (&String, &Document)| {
            (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={}", document.hash)}))
        };
        json!({"paths": self.v3().iter().map(link).collect::<Map<_, _>>()})
    }
}

enum Found {
    Made(Response),
    Bytes { body: Bytes, hash: String, immutable: bool },
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

fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}
