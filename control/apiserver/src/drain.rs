//! A request body that is read to its end even when its handler has lost interest: refused, or too large.
//!
//! A client that is still sending when its stream is reset never sees the answer. The rest is thrown away, up to a limit.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// Bytes that are thrown away at most; who sends more is cut off.
const DRAIN_MAX: usize = 16 << 20;
/// Time that a client has to send them.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// A body from a connection.
pub(crate) struct Drained {
    rest: Option<Incoming>,
}

impl Drained {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { rest: Some(body) }
    }
}

impl Body for Drained {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.rest.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        let Some(rest) = self.rest.take().filter(|it| !it.is_end_stream()) else { return };
        // Outside a runtime there is no connection left to care for.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(DRAIN_TIME, drain(rest)));
        }
    }
}

async fn drain(mut rest: Incoming) {
    let mut total = 0_usize;
    while let Some(Ok(frame)) = rest.frame().await {
        total += frame.data_ref().map_or(0, Bytes::len);
        if total > DRAIN_MAX {
            return;
        }
    }
}
