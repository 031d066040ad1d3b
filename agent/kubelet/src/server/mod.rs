//! The kubelet's HTTPS port: logs, exec, attach, port-forward, pods, stats, health. `route` reads paths, `auth` says
//! who may, `tls` holds the certificates. The API server is the only usual client.

pub mod auth;
pub mod channels;
pub mod client;
pub mod exec;
pub mod logs;
pub mod port_forward;
pub mod route;
pub mod spdy;
pub mod stats;
pub mod tls;
pub mod tunnel;
pub mod upgrade;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use crate::CancellationToken;
use crate::host::Host;
use crate::pods::workers::Workers;
use auth::{Auth, Denied};
use route::Route;

/// Body of every answer.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// A TLS handshake may take this long.
const HANDSHAKE: std::time::Duration = std::time::Duration::from_secs(10);

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

/// What requests are answered from.
pub struct Context {
    pub(crate) host: Arc<Host>,
    pub(crate) workers: Arc<Workers>,
    auth: Auth,
}

/// Bound, not serving yet.
pub struct Server {
    context: Arc<Context>,
    secure: Vec<TcpListener>,
    health: TcpListener,
    tls: tokio_rustls::TlsAcceptor,
}

/// Binds the HTTPS port on every address of the node, and the plain health endpoint on the loopback.
pub async fn bind(host: Arc<Host>, workers: Arc<Workers>) -> Result<Server, ServerError> {
    let config = &host.config;
    let tls = tls::acceptor(&config.serving_cert, &config.serving_key, &config.client_ca)?;
    let mut secure = Vec::new();
    for ip in &config.node_ips {
        secure.push(listen(SocketAddr::new(*ip, config.port)).await?);
    }
    let health = listen((Ipv4Addr::LOCALHOST, config.healthz_port).into()).await?;
    let auth = Auth::new(host.client.clone(), config.node_name.clone());
    Ok(Server { context: Arc::new(Context { host, workers, auth }), secure, health, tls })
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })
}

impl Server {
    /// Serves until `shutdown`.
    pub async fn serve(self, shutdown: CancellationToken) {
        let mut tasks = tokio::task::JoinSet::new();
        for listener in self.secure {
            tasks.spawn(accept_secure(listener, self.tls.clone(), self.context.clone()));
        }
        tasks.spawn(accept_health(self.health));
        shutdown.cancelled().await;
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Terminals feel slow without it; a socket that refuses still works.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            // Out of descriptors, or a client that left: neither ends the server.
            Err(error) => {
                tracing::debug!(%error, "connection not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn accept_secure(listener: TcpListener, tls: tokio_rustls::TlsAcceptor, context: Arc<Context>) {
    loop {
        let stream = accept(&listener).await;
        let (tls, context) = (tls.clone(), context.clone());
        tokio::spawn(async move {
            let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await else { return };
            let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
            let service = service_fn(move |request| {
                let (context, certificate) = (context.clone(), certificate.clone());
                async move { Ok::<_, Infallible>(answer(context, certificate.as_deref(), request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
}

async fn accept_health(listener: TcpListener) {
    loop {
        let stream = accept(&listener).await;
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| async move {
                let known = matches!(Route::parse(request.uri().path()), Some(Route::Healthz));
                Ok::<_, Infallible>(if known { text(StatusCode::OK, "ok") } else { not_found() })
            });
            // A broken health check is the checker's loss.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    context: Arc<Context>,
    certificate: Option<&[u8]>,
    request: Request<Incoming>,
) -> Response<Body> {
    let Some(route) = Route::parse(request.uri().path()) else { return not_found() };
    let bearer = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    let verb = if request.method() == Method::GET { "get" } else { "create" };
    match context.auth.check(certificate, bearer, verb, route.subresource()).await {
        Ok(()) => {}
        Err(Denied::Unauthorized) => return text(StatusCode::UNAUTHORIZED, "Unauthorized"),
        Err(Denied::Forbidden(message)) => return text(StatusCode::FORBIDDEN, &message),
        Err(Denied::Unknown(message)) => return text(StatusCode::INTERNAL_SERVER_ERROR, &message),
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    match route {
        Route::Healthz => text(StatusCode::OK, "ok"),
        Route::Pods => stats::pods(&context),
        Route::Summary => stats::summary(&context),
        Route::Metrics => stats::metrics(&context),
        Route::ContainerLogs(target) => logs::serve(&context, &target, &query).await,
        Route::Exec(target) => exec::serve_exec(context, target, &query, request).await,
        Route::Attach(target) => exec::serve_attach(context, target, &query, request).await,
        Route::PortForward(target) => port_forward::serve(&context, &target, request).await,
    }
}

/// Parameters of a request.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes `a=b&c=d`.
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(k, v)| (decode(k), decode(v)))
                .collect(),
        )
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of a name.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    /// Whether a switch is on, as Go's ParseBool reads it.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
    }
}

/// Percent and plus decoding; what is no escape stays.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escape = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let value = escape.filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, value) {
            (_, Some(value)) => {
                bytes.push(value);
                rest = &tail[2..];
            }
            (b'+', None) => {
                bytes.push(b' ');
                rest = tail;
            }
            (byte, None) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

pub(crate) fn respond(status: StatusCode, content_type: &str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body(bytes));
    *response.status_mut() = status;
    if let Ok(value) = content_type.parse() {
        response.headers_mut().insert("content-type", value);
    }
    response
}

pub(crate) fn text(status: StatusCode, message: &str) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", message.to_owned())
}

fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("command=sh&command=-c&command=echo+%22a%26b%22+100%&tty=1&x");
        assert_eq!(query.all("command"), ["sh", "-c", "echo \"a&b\" 100%"]);
        assert!(query.flag("tty") && !query.flag("input") && !query.flag("x"));
    }
}
