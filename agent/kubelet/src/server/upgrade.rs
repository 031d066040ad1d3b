//! From a request to a connection of another protocol: the 101 answer of WebSocket (RFC 6455) and SPDY/3.1, each with
//! the protocol inside that both sides know. What is spoken then is the caller's.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Body, body, text};

/// The bytes after the 101.
pub type Connection = TokioIo<Upgraded>;
/// A WebSocket after its handshake.
pub type Socket = WebSocketStream<Connection>;

/// Which protocol inside SPDY is spoken; a header for each that a client knows.
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";

/// What a client wants to go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `Upgrade: websocket`.
    WebSocket,
    /// `Upgrade: SPDY/3.1`.
    Spdy,
}

impl Transport {
    /// Reads the Upgrade header.
    pub fn wanted(headers: &HeaderMap) -> Option<Self> {
        let wanted = headers.get("upgrade")?.to_str().ok()?;
        [("websocket", Self::WebSocket), ("SPDY/3.1", Self::Spdy)]
            .into_iter()
            .find(|(name, _)| wanted.eq_ignore_ascii_case(name))
            .map(|(_, transport)| transport)
    }
}

/// The answer to a client that asks for none of them.
pub fn needed() -> Response<Body> {
    text(StatusCode::BAD_REQUEST, "Upgrade request required: websocket or SPDY/3.1")
}

/// Sec-WebSocket-Protocol as it came.
pub fn subprotocols(headers: &HeaderMap) -> &str {
    headers.get("sec-websocket-protocol").and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Goes on as WebSocket. `subprotocol`: the one chosen, if the client offered any.
pub fn websocket<F>(
    request: Request<Incoming>,
    subprotocol: Option<&str>,
    session: impl FnOnce(Socket) -> F + Send + 'static,
) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    let Some(key) = request.headers().get("sec-websocket-key") else {
        return text(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing");
    };
    let accept = derive_accept_key(key.as_bytes());
    let mut headers = vec![("upgrade", "websocket"), ("sec-websocket-accept", &accept)];
    headers.extend(subprotocol.map(|name| ("sec-websocket-protocol", name)));
    let response = switching(&headers);
    switch(request, move |connection| async move {
        session(WebSocketStream::from_raw_socket(connection, Role::Server, None).await).await;
    });
    response
}

/// Goes on as SPDY/3.1 with `protocol` inside, if the client knows it.
pub fn spdy<F>(
    request: Request<Incoming>,
    protocol: &str,
    session: impl FnOnce(Connection) -> F + Send + 'static,
) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    let known = stream_protocols(request.headers());
    if !known.contains(&protocol) {
        let known = known.join(" ");
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{known}], server accepts [{protocol}]"
        );
        return text(StatusCode::FORBIDDEN, &message);
    }
    let response = switching(&[("upgrade", "SPDY/3.1"), (STREAM_PROTOCOL, protocol)]);
    switch(request, session);
    response
}

fn stream_protocols(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(STREAM_PROTOCOL).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).collect()
}

fn switching(headers: &[(&str, &str)]) -> Response<Body> {
    let mut response =
        Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header("connection", "Upgrade");
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body(Bytes::new())).unwrap_or_else(|_| text(StatusCode::BAD_REQUEST, "malformed request"))
}

fn switch<F>(mut request: Request<Incoming>, session: impl FnOnce(Connection) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(upgraded) => session(TokioIo::new(upgraded)).await,
            Err(error) => tracing::debug!(%error, "upgrade did not happen"),
        }
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_upgrade_header_says_what_is_wanted() {
        let table = [
            (Some("websocket"), Some(Transport::WebSocket)),
            (Some("SPDY/3.1"), Some(Transport::Spdy)),
            (Some("spdy/3.1"), Some(Transport::Spdy)),
            (Some("h2c"), None),
            (None, None),
        ];
        for (value, expected) in table {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert("upgrade", value.parse().unwrap());
            }
            assert_eq!(Transport::wanted(&headers), expected, "{value:?}");
        }
    }

    #[test]
    fn stream_protocols_come_in_several_headers_or_one() {
        let mut headers = HeaderMap::new();
        headers.append("X-Stream-Protocol-Version", "v4.channel.k8s.io".parse().unwrap());
        headers.append("X-Stream-Protocol-Version", "v3.channel.k8s.io, channel.k8s.io".parse().unwrap());
        assert_eq!(stream_protocols(&headers), ["v4.channel.k8s.io", "v3.channel.k8s.io", "channel.k8s.io"]);
    }
}
