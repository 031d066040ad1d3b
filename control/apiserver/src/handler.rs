//! The filters around every request, in upstream's order: panic, Audit-Id, request info, time limit, authentication,
//! impersonation, authorization; then the resource or document that the path names.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::ApiError;
use api::status::{Details, Reason};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::CACHE_CONTROL;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::json;

use crate::attributes::{Attributes, UserInfo};
use crate::auth::{self, Decision};
use crate::body::{Request, Response};
use crate::core::Core;
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::rest::{self, Call};
use crate::{discovery, health, openapi, respond};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Limit for everything that is not long-running (upstream's `--request-timeout`).
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where a request came from.
pub(crate) enum Origin {
    /// A connection, with the client's certificate (DER) if it showed one.
    Connection {
        /// The leaf certificate.
        certificate: Option<Arc<[u8]>>,
    },
    /// This process, on behalf of one of its roles.
    InProcess(UserInfo),
}

/// Serves one request; never fails, never panics.
pub(crate) async fn handle(core: Arc<Core>, request: Request, origin: Origin) -> Response {
    let started = Instant::now();
    let audit_id = request
        .headers()
        .get(AUDIT_ID)
        .cloned()
        .or_else(|| HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok());
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
    let _counted = core.metrics.in_flight(&info);

    let served: BoxFuture<'_, _> = Box::pin(serve(core.clone(), request, origin, &info, &query));
    let served = AssertUnwindSafe(served).catch_unwind();
    let served = async {
        served.await.unwrap_or_else(|_| {
            tracing::error!(verb = info.verb, path = info.path, "a request handler panicked");
            Err(ApiError::internal("this request caused the server to panic"))
        })
    };
    let result = match info.is_long_running() {
        true => served.await,
        false => tokio::time::timeout(time_limit(&query), served).await.unwrap_or_else(|_| {
            Err(ApiError::timeout("request did not complete within the allotted timeout", 0))
        }),
    };
    let mut response = result.unwrap_or_else(|error| respond::error(&error));
    core.metrics.request(&info, response.status().as_u16(), started.elapsed());
    tracing::debug!(verb = info.verb, path = info.path, code = response.status().as_u16(), took = ?started.elapsed(), "served");
    if let Some(audit_id) = audit_id {
        response.headers_mut().insert(AUDIT_ID, audit_id);
    }
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    response
}

/// `timeout=10s` may shorten the limit.
fn time_limit(query: &Query) -> Duration {
    let seconds = query.text("timeout").trim_end_matches('s').parse::<u64>().ok().filter(|it| *it > 0);
    seconds.map_or(TIMEOUT, |it| Duration::from_secs(it).min(TIMEOUT))
}

async fn serve(
    core: Arc<Core>,
    request: Request,
    origin: Origin,
    info: &RequestInfo,
    query: &Query,
) -> Result<Response, ApiError> {
    if !core.is_started() {
        // Nothing can be decided before the objects are there; health can be told all the same.
        return health::serve(&core, &info.path, query).ok_or_else(starting);
    }
    let (parts, body) = request.into_parts();
    let user = match &origin {
        Origin::InProcess(user) => user.clone(),
        Origin::Connection { certificate } => {
            let authenticated: BoxFuture<'_, _> =
                Box::pin(core.auth.authenticator.authenticate(&parts, certificate.as_deref()));
            authenticated.await?.unwrap_or_else(UserInfo::anonymous)
        }
    };
    let user =
        auth::impersonation::apply(&parts.headers, user, |asked| core.auth.authorizer.authorize(asked))?;
    let attributes = attributes(user, info);
    if let Decision::Deny { reason, .. } = core.auth.authorizer.authorize(&attributes) {
        return Err(auth::forbidden(&attributes, &reason));
    }
    if info.resource_request {
        let attributes = Attributes { verb: info.verb.clone(), ..attributes };
        let call = Call::new(core, attributes, query.clone(), &parts.headers)?;
        let served: BoxFuture<'_, _> = Box::pin(rest::serve(call, Request::from_parts(parts, body)));
        return served.await;
    }
    let made: BoxFuture<'_, _> = Box::pin(document(&core, &parts, info, query));
    made.await
}

fn starting() -> ApiError {
    let details = Details { retry_after_seconds: 1, ..Details::default() };
    ApiError::new(
        Reason::ServiceUnavailable,
        "the server is starting: its objects have not been loaded from etcd yet",
    )
    .with_details(details)
}

fn attributes(user: UserInfo, info: &RequestInfo) -> Attributes {
    // Opening a stream is an act, whatever method carries it.
    let stream = matches!(info.subresource.as_str(), "exec" | "attach" | "portforward");
    let verb = if stream && info.verb == "get" { "create" } else { &info.verb };
    Attributes {
        user,
        verb: verb.to_owned(),
        group: info.group.clone(),
        version: info.version.clone(),
        resource: info.resource.clone(),
        subresource: info.subresource.clone(),
        namespace: info.namespace.clone(),
        name: info.name.clone(),
        path: info.path.clone(),
        resource_request: info.resource_request,
    }
}

/// What is not a resource.
async fn document(
    core: &Core,
    request: &Parts,
    info: &RequestInfo,
    query: &Query,
) -> Result<Response, ApiError> {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(ApiError::no_such_path());
    }
    if let Some(response) = health::serve(core, &info.path, query) {
        return Ok(response);
    }
    if let Some(response) = discovery::serve(&info.path, &request.headers, &core.address) {
        return response;
    }
    match info.path.as_str() {
        "/version" | "/version/" => Ok(respond::json(StatusCode::OK, &version())),
        "/metrics" => {
            let page = crate::body::full(core.metrics.page(core));
            Ok(respond::typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page))
        }
        "/.well-known/openid-configuration" => {
            Ok(respond::json(StatusCode::OK, &core.auth.openid_configuration()))
        }
        "/openid/v1/jwks" => {
            let keys = crate::body::full(core.auth.jwks().to_string());
            Ok(respond::typed(StatusCode::OK, "application/jwk-set+json", keys))
        }
        path if path.starts_with("/openapi/") => openapi::serve(path, query, &request.headers).await,
        "/" => Ok(respond::json(StatusCode::OK, &json!({"paths": PATHS}))),
        _ => Err(ApiError::no_such_path()),
    }
}

/// What `/` lists.
const PATHS: &[&str] = &[
    "/.well-known/openid-configuration",
    "/api",
    "/api/v1",
    "/apis",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/readyz",
    "/version",
];

/// The API version that is announced, and with it what clients expect.
fn version() -> serde_json::Value {
    let version = api::openapi::KUBERNETES_VERSION;
    let mut numbers = version.trim_start_matches('v').split('.');
    json!({
        "major": numbers.next(),
        "minor": numbers.next(),
        "gitVersion": format!("{version}+beeline"),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
    })
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
