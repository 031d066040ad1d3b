//! The ports of kube-proxy: /healthz and /livez on 10256, /metrics, /healthz and /proxyMode on 10249. What they say is decided in
//! [`crate::progress`] and [`crate::metrics`].

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use datapath::Dataplane;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::metrics;
use crate::progress::Progress;

/// Which of the two ports a request came to.
#[derive(Clone, Copy)]
pub enum Port {
    /// 10256.
    Health,
    /// 10249.
    Metrics,
}

/// Serves one of the ports until the process ends.
pub async fn serve(
    address: SocketAddr,
    port: Port,
    progress: Arc<Progress>,
    dataplane: Arc<Dataplane>,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (progress, dataplane) = (Arc::clone(&progress), Arc::clone(&dataplane));
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let response = respond(port, &request, &progress, &dataplane);
                async { Ok::<_, Infallible>(response) }
            });
            // A client that hangs up early is its own affair.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

fn respond(
    port: Port,
    request: &Request<Incoming>,
    progress: &Progress,
    dataplane: &Dataplane,
) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (port, request.uri().path()) {
        (Port::Health, "/healthz") => with_kind(progress.health(true), "application/json"),
        (Port::Health, "/livez") => with_kind(progress.health(false), "application/json"),
        (Port::Metrics, "/metrics") => {
            (StatusCode::OK, "text/plain; version=0.0.4", metrics::text(progress, dataplane))
        }
        (Port::Metrics, "/healthz") => (StatusCode::OK, "text/plain", "ok".to_owned()),
        (Port::Metrics, "/proxyMode") => (StatusCode::OK, "text/plain", "ebpf".to_owned()),
        _ => (StatusCode::NOT_FOUND, "text/plain", "404 page not found\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn with_kind((status, body): (StatusCode, String), kind: &'static str) -> (StatusCode, &'static str, String) {
    (status, kind, body)
}
