//! What a URL asks for: resource, name, subresource, verb. The grammar is upstream's `RequestInfoFactory`.
//!
//! Pure: reads method, path and query, not headers or bodies.

use http::Method;

use crate::query::Query;

/// A request as its method and URL tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// The path names an API resource.
    pub resource_request: bool,
    /// See [`crate::attributes::Attributes::verb`].
    pub verb: String,
    /// API group; empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Empty if none is named.
    pub namespace: String,
    /// Plural.
    pub resource: String,
    /// Empty for the object itself.
    pub subresource: String,
    /// Empty for collections.
    pub name: String,
    /// What follows the subresource: the path that `proxy` passes on.
    pub rest: String,
    /// The path as it came.
    pub path: String,
}

impl RequestInfo {
    /// Reads a request's method, path and query.
    #[must_use]
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let plain =
            Self { verb: method.as_str().to_ascii_lowercase(), path: path.to_owned(), ..Self::default() };
        let decoded: Vec<String> = path.split('/').filter(|it| !it.is_empty()).map(percent_decode).collect();
        let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let (group, version, parts) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return plain,
        };
        // The deprecated spelling /api/v1/watch/pods.
        let (watch, parts) = match parts {
            ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
            _ => (false, parts),
        };
        let (namespace, parts) = in_namespace(parts);
        let at = |index: usize| parts.get(index).copied().unwrap_or_default().to_owned();
        let mut info = Self {
            resource_request: true,
            group: group.to_owned(),
            version: version.to_owned(),
            namespace: namespace.to_owned(),
            resource: at(0),
            name: at(1),
            subresource: at(2),
            rest: parts.get(3..).unwrap_or_default().join("/"),
            ..plain
        };
        info.verb = verb(method, &info, query, watch).to_owned();
        if info.name.is_empty() && matches!(info.verb.as_str(), "list" | "watch" | "deletecollection") {
            info.name = selected_name(query).unwrap_or_default();
        }
        info
    }

    /// A connection that lives until one side ends it: no time limit, not counted as in flight.
    #[must_use]
    pub fn is_long_running(&self) -> bool {
        self.verb == "watch"
            || matches!(self.subresource.as_str(), "proxy" | "attach" | "exec" | "log" | "portforward")
    }
}

/// `namespaces/x/pods/..` -> (x, `pods/..`); a namespace itself is named by both.
fn in_namespace<'a>(parts: &'a [&'a str]) -> (&'a str, &'a [&'a str]) {
    match parts {
        ["namespaces", namespace] => (namespace, parts),
        ["namespaces", namespace, "status" | "finalize", ..] => (namespace, parts),
        ["namespaces", namespace, rest @ ..] => (namespace, rest),
        _ => ("", parts),
    }
}

fn verb(method: &Method, info: &RequestInfo, query: &Query, watch: bool) -> &'static str {
    let collection = info.name.is_empty();
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if collection => "deletecollection",
        Method::DELETE => "delete",
        Method::GET | Method::HEAD if watch || (collection && query.flag("watch")) => "watch",
        Method::GET | Method::HEAD if collection => "list",
        Method::GET | Method::HEAD => "get",
        _ => "",
    }
}

/// The name in `fieldSelector=metadata.name=x`, so that a role for one object allows to watch it.
fn selected_name(query: &Query) -> Option<String> {
    let selector = query.get("fieldSelector")?;
    let exact = selector.split(',').find_map(|it| it.strip_prefix("metadata.name="))?;
    let name = exact.strip_prefix('=').unwrap_or(exact);
    (!name.is_empty() && !name.contains('/')).then(|| name.to_owned())
}

/// Decodes `%xx`; what is no valid escape stays as it is.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |index: usize| bytes.get(index).and_then(|it| char::from(*it).to_digit(16));
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(request: &str, expected: &str) {
        let (method, url) = request.split_once(' ').unwrap_or(("GET", request));
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let Ok(method) = method.parse::<Method>() else { panic!("{request}: bad method") };
        let it = RequestInfo::parse(&method, path, &Query::parse(query));
        let seen = if it.resource_request {
            format!(
                "{} {}/{} ns={} {}/{}/{} {}",
                it.verb, it.group, it.version, it.namespace, it.resource, it.name, it.subresource, it.rest
            )
        } else {
            format!("{} plain", it.verb)
        };
        assert_eq!(seen.trim_end(), expected, "{request}");
    }

    #[test]
    fn urls_are_read_as_upstream_reads_them() {
        check("GET /api/v1/pods", "list /v1 ns= pods//");
        check("GET /api/v1/pods?watch=true", "watch /v1 ns= pods//");
        check("GET /api/v1/watch/namespaces/a/pods", "watch /v1 ns=a pods//");
        check("GET /api/v1/namespaces/a/pods/b", "get /v1 ns=a pods/b/");
        check("POST /api/v1/namespaces/a/pods/b/binding", "create /v1 ns=a pods/b/binding");
        check("PUT /api/v1/namespaces/a/finalize", "update /v1 ns=a namespaces/a/finalize");
        check("GET /api/v1/namespaces", "list /v1 ns= namespaces//");
        check("DELETE /api/v1/namespaces/a", "delete /v1 ns=a namespaces/a/");
        check("DELETE /apis/apps/v1/namespaces/a/deployments", "deletecollection apps/v1 ns=a deployments//");
        check("GET /api/v1/nodes/n/proxy/logs/x", "get /v1 ns= nodes/n/proxy logs/x");
        check("GET /api/v1/pods?watch=1&fieldSelector=metadata.name%3Dx", "watch /v1 ns= pods/x/");
        check(
            "GET /apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            "get rbac.authorization.k8s.io/v1 ns= clusterroles/system:node/",
        );
    }

    #[test]
    fn other_paths_are_no_resources() {
        for path in
            ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/openapi/v3/api/v1"]
        {
            check(&format!("GET {path}"), "get plain");
        }
        check("POST /version", "post plain");
    }
}
