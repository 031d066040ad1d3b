//! OpenAPI documents: what kubectl explain, apply and `--validate=strict` read, and generators of clients.
//!
//! One v3 document a group version, an index of them whose links carry content hashes, and one v2 document of everything. They are built
//! together on first use (descriptions and all) and kept as bytes; the server adds the HTTP around them.

mod paths;
mod schemas;

use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::registry;

/// The version of the Kubernetes API that is served.
pub const KUBERNETES_VERSION: &str = "v1.35.4";

/// One encoded document.
#[derive(Debug)]
pub struct Document {
    /// Where clients find it below `/openapi/v3/`: `api/v1`, `apis/apps/v1`; empty for the index and the v2 document.
    pub path: String,
    /// The JSON text.
    pub bytes: Vec<u8>,
    /// Upper-case hex of a hash of the text: for ETag and `?hash=`.
    pub hash: String,
}

impl Document {
    fn new(path: String, value: &Value) -> Self {
        let bytes = value.to_string().into_bytes();
        let hash = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02X}")).collect();
        Self { path, bytes, hash }
    }
}

static V3: LazyLock<Vec<Document>> = LazyLock::new(|| {
    let all = schemas::all();
    registry::group_versions().into_iter().map(|(group, version)| v3(group, version, &all)).collect()
});

static INDEX: LazyLock<Document> = LazyLock::new(|| {
    let link = |document: &Document| {
        let url = format!("/openapi/v3/{}?hash={}", document.path, document.hash);
        (document.path.clone(), json!({ "serverRelativeURL": url }))
    };
    let paths: Map<String, Value> = V3.iter().map(link).collect();
    Document::new(String::new(), &json!({ "paths": paths }))
});

static V2: LazyLock<Document> = LazyLock::new(|| {
    let mut all_paths = Map::new();
    for (group, version) in registry::group_versions() {
        all_paths.extend(paths::v2(group, version));
    }
    let document = json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": KUBERNETES_VERSION },
        "paths": all_paths,
        "definitions": schemas::v2(),
    });
    Document::new(String::new(), &document)
});

/// `GET /openapi/v3`: the paths of all documents, with hashes.
#[must_use]
pub fn v3_index() -> &'static Document {
    &INDEX
}

/// `GET /openapi/v3/{path}`; `path` is `api/v1` or `apis/{group}/{version}`.
#[must_use]
pub fn v3_document(path: &str) -> Option<&'static Document> {
    V3.iter().find(|document| document.path == path)
}

/// `GET /openapi/v2`, JSON only.
#[must_use]
pub fn v2_document() -> &'static Document {
    &V2
}

/// `api/v1`, `apis/apps/v1`.
fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn v3(group: &str, version: &str, all: &Map<String, Value>) -> Document {
    let paths = paths::v3(group, version);
    let document = json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": KUBERNETES_VERSION },
        "components": { "schemas": schemas::reached(&Value::Object(paths.clone()), all) },
        "paths": paths,
    });
    Document::new(root(group, version), &document)
}

#[cfg(test)]
mod tests;
