//! The one body type that requests and responses have inside the server, whatever carried them.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};

/// Any error of a transport.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A boxed body: from a socket, from an in-process client, or made here.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A request inside the server.
pub type Request = http::Request<Body>;

/// A response inside the server.
pub type Response = http::Response<Body>;

/// A body of bytes at hand.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body of nothing.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}
