//! `/api`, `/apis` and below: what the server serves, in the form that the client asks for.

use api::discovery::{self, Root};
use api::{ApiError, Value};
use http::{HeaderMap, StatusCode};

use crate::body::Response;
use crate::negotiate::clauses;
use crate::openapi::{hash, is_current, not_modified, tag};
use crate::respond;

/// The answer to a discovery path; `None` if the path is none.
pub(crate) fn serve(path: &str, headers: &HeaderMap, address: &str) -> Option<Result<Response, ApiError>> {
    let parts: Vec<&str> = path.split('/').filter(|it| !it.is_empty()).collect();
    let found = match parts.as_slice() {
        ["api"] if wants_aggregated(headers) => return Some(Ok(aggregated(Root::Core, headers))),
        ["apis"] if wants_aggregated(headers) => return Some(Ok(aggregated(Root::Groups, headers))),
        ["api"] => Some(discovery::api_versions(address)),
        ["apis"] => Some(discovery::api_group_list()),
        ["api", version] => discovery::api_resource_list("", version),
        ["apis", group] => discovery::api_group(group),
        ["apis", group, version] => discovery::api_resource_list(group, version),
        _ => return None,
    };
    Some(found.map(|it| respond::json(StatusCode::OK, &it)).ok_or_else(ApiError::no_such_path))
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The first clause that can be served decides: aggregated v2, or plain JSON.
fn wants_aggregated(headers: &HeaderMap) -> bool {
    let served =
        clauses(headers).into_iter().find_map(|it| match (it.media, it.parameter("as"), it.parameter("v")) {
            ("application/json", "APIGroupDiscoveryList", "v2") => Some(true),
            ("application/json" | "*/*" | "application/*", "", _) => Some(false),
            _ => None,
        });
    served.unwrap_or(false)
}

fn aggregated(root: Root, headers: &HeaderMap) -> Response {
    let document: Value = discovery::aggregated(root);
    let text = document.to_string();
    let hash = hash(text.as_bytes());
    if is_current(headers, &hash) {
        return not_modified(&hash);
    }
    let mut response = respond::typed(StatusCode::OK, AGGREGATED, crate::body::full(text));
    tag(&mut response, &hash, false);
    response
}
