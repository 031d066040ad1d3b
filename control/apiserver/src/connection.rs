//! Connections: TLS with an optional client certificate, then HTTP/1.1 or HTTP/2.

use std::convert::Infallible;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::body::Request;
use crate::core::Core;
use crate::drain::Drained;
use crate::handler::{Origin, handle};

/// A client must finish its TLS handshake in this time.
const HELLO: Duration = Duration::from_secs(10);
/// An HTTP/1.1 connection may wait this long for its next request (upstream's idle timeout).
const IDLE: Duration = Duration::from_secs(180);
/// Requests in progress may take this long to finish after shutdown began.
const DRAIN: Duration = Duration::from_secs(10);
/// Streams a client may have open on one HTTP/2 connection (upstream's default).
const STREAMS_MAX: u32 = 250;

/// Turns sockets into requests.
#[derive(Clone)]
pub(crate) struct Acceptor {
    tls: TlsAcceptor,
}

impl Acceptor {
    pub(crate) fn new(config: rustls::ServerConfig) -> Self {
        Self { tls: TlsAcceptor::from(Arc::new(config)) }
    }

    pub(crate) async fn serve(&self, core: Arc<Core>, listener: StdListener) -> std::io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let connections = TaskTracker::new();
        while let Some(accepted) = core.shutdown.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, _)) => {
                    let (core, tls) = (core.clone(), self.tls.clone());
                    connections.spawn(async move { connection(core, tls, stream).await });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: others must close before one more can be taken.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        connections.close();
        // Whoever has not finished by then is cut off.
        let _ = tokio::time::timeout(DRAIN, connections.wait()).await;
        Ok(())
    }
}

async fn connection(core: Arc<Core>, tls: TlsAcceptor, stream: TcpStream) {
    // Watch events are small and wanted at once; a socket that cannot be told so still works.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HELLO, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake timed out"),
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate: Option<Arc<[u8]>> =
        certificates.and_then(|it| it.first()).map(|it| Arc::from(it.as_ref()));
    let shutdown = core.shutdown.clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (core, certificate) = (core.clone(), certificate.clone());
        async move {
            let request: Request = request.map(|body| Drained::new(body).map_err(Into::into).boxed_unsync());
            Ok::<_, Infallible>(handle(core, request, Origin::Connection { certificate }).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}
