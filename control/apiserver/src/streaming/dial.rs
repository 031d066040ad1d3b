//! Connections to kubelets (TLS, with the server's client certificate) and to pods (plain): HTTP/1.1, one request each.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use api::status::{ApiError, Reason};
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::location::{Location, Transport};
use super::upgrade;
use crate::body::{BoxError, Request, Response};
use crate::pki::{Pki, PkiError, tls};

/// Who does not accept within this time counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls kubelets and pods.
#[derive(Clone)]
pub struct Dialer {
    tls: TlsConnector,
}

impl Dialer {
    /// Uses the certificates of `pki`.
    pub fn new(pki: &Pki) -> Result<Self, PkiError> {
        Ok(Self { tls: TlsConnector::from(Arc::new(tls::kubelet_client_config(pki)?)) })
    }

    /// Sends a request to `location`; method, headers and body are those of `request`, credentials are ours.
    ///
    /// The response's body arrives as the other side sends it; dropping it ends the connection.
    pub async fn send(&self, location: &Location, mut request: Request) -> Result<Response, ApiError> {
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(location.address))
            .await
            .map_err(|_| unreachable(location, &"i/o timeout"))?
            .map_err(|error| unreachable(location, &dial_error(&error)))?;
        // Keystrokes are small packets.
        let _ = stream.set_nodelay(true);
        prepare(&mut request, location)?;
        match location.transport {
            Transport::Plain => exchange(stream, location, request).await,
            Transport::Kubelet => {
                let name = ServerName::from(location.address.ip());
                let stream =
                    self.tls.connect(name, stream).await.map_err(|error| unreachable(location, &error))?;
                exchange(stream, location, request).await
            }
        }
    }
}

async fn exchange<S>(stream: S, location: &Location, request: Request) -> Result<Response, ApiError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(location, &error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a backend ended");
        }
    });
    // Boxed: as part of a larger future the compiler cannot prove it `Send` (lifetimes of the body's error are erased).
    let sent: BoxFuture<'static, _> = Box::pin(async move { sender.send_request(request).await });
    let response = sent.await.map_err(|error| unreachable(location, &error))?;
    Ok(response.map(|body| body.map_err(|error| -> BoxError { Box::new(error) }).boxed_unsync()))
}

fn unreachable(location: &Location, error: &dyn std::fmt::Display) -> ApiError {
    let message = format!("error dialing backend: dial tcp {}: {error}", location.address);
    ApiError::new(Reason::InternalError, message)
}

/// A failed connect in the words that clients of upstream look for.
fn dial_error(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => format!("connect: {error}"),
    }
}

/// Turns a client's request into ours.
fn prepare(request: &mut Request, location: &Location) -> Result<(), ApiError> {
    *request.uri_mut() = location.path.parse().map_err(ApiError::internal)?;
    *request.version_mut() = http::Version::HTTP_11;
    let headers = request.headers_mut();
    let wanted = upgrade::wanted(headers);
    upgrade::strip_hop_headers(headers);
    headers.remove(AUTHORIZATION);
    let impersonation: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in impersonation {
        headers.remove(name);
    }
    if let Some(protocol) = wanted {
        upgrade::ask(headers, protocol);
    }
    let host = HeaderValue::from_str(&location.address.to_string()).map_err(ApiError::internal)?;
    headers.insert(HOST, host);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_clients_credentials_stay_here_and_its_upgrade_goes_on() {
        let mut request = Request::new(crate::body::empty());
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("impersonate-user", "root"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "k"),
            ("sec-websocket-protocol", "v5.channel.k8s.io"),
            ("host", "api"),
        ] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        // A SPDY client names each protocol that it knows in a header of its own.
        let protocols = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
        for protocol in protocols {
            request.headers_mut().append("x-stream-protocol-version", HeaderValue::from_static(protocol));
        }
        let location = Location {
            address: "[fd30::11]:10250".parse().unwrap(),
            path: "/exec/a/b/c?tty=1".into(),
            transport: Transport::Kubelet,
        };
        prepare(&mut request, &location).unwrap();
        assert_eq!(request.uri(), "/exec/a/b/c?tty=1");
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("authorization"), None);
        assert_eq!(header("impersonate-user"), None);
        assert_eq!(header("host"), Some("[fd30::11]:10250"));
        assert_eq!((header("connection"), header("upgrade")), (Some("Upgrade"), Some("websocket")));
        assert_eq!(header("sec-websocket-protocol"), Some("v5.channel.k8s.io"));
        assert!(request.headers().get_all("x-stream-protocol-version").iter().eq(protocols));
    }
}
