//! A client of exec or attach, whichever way it streams: what it says, and where output and the final status go.

use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::channels::{Incoming, Protocol, negotiate};
use super::spdy::remote_command::{self, Wanted};
use super::upgrade::{self, Socket, Transport};
use super::{Body, Query, text};

/// A client has this long to leave after the end. Closing at once, with words of its unread, would make the kernel
/// throw away what it has not read yet.
const FAREWELL: Duration = Duration::from_secs(5);

/// What the client says.
pub enum Input {
    /// Messages.
    WebSocket(SplitStream<Socket>, Protocol),
    /// Streams.
    Spdy(Box<remote_command::Input>),
}

/// What the client is told.
pub enum Output {
    /// Messages.
    WebSocket(SplitSink<Socket, Message>, Protocol),
    /// Streams.
    Spdy(remote_command::Output),
}

/// Answers the upgrade that a client asks for, and runs `session` with it.
pub fn accept<F>(
    request: Request<hyper::body::Incoming>,
    query: &Query,
    session: impl FnOnce(Input, Output) -> F + Send + 'static,
) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    match Transport::wanted(request.headers()) {
        Some(Transport::WebSocket) => {
            let offered = upgrade::subprotocols(request.headers());
            let Some(protocol) = negotiate(offered) else {
                return text(
                    StatusCode::BAD_REQUEST,
                    "no subprotocol of Sec-WebSocket-Protocol is supported",
                );
            };
            let subprotocol = (!offered.is_empty()).then_some(protocol.name);
            upgrade::websocket(request, subprotocol, move |socket| {
                let (sink, source) = socket.split();
                session(Input::WebSocket(source, protocol), Output::WebSocket(sink, protocol))
            })
        }
        Some(Transport::Spdy) => {
            let wanted = Wanted::of(query);
            upgrade::spdy(request, remote_command::PROTOCOL, move |connection| async move {
                match remote_command::accept(connection, wanted).await {
                    Ok((input, output)) => session(Input::Spdy(Box::new(input)), Output::Spdy(output)).await,
                    Err(error) => tracing::debug!(%error, "streams were not opened"),
                }
            })
        }
        None => upgrade::needed(),
    }
}

impl Input {
    /// The next thing the client says. May be dropped before it is ready and called again.
    pub async fn next(&mut self) -> Incoming {
        match self {
            Self::WebSocket(source, protocol) => match source.next().await {
                Some(Ok(message)) => protocol.decode(message),
                Some(Err(_)) | None => Incoming::Gone,
            },
            Self::Spdy(input) => input.next().await,
        }
    }
}

impl Output {
    /// Sends output on a channel; false when the client is gone.
    pub async fn send(&mut self, channel: u8, data: &[u8]) -> bool {
        match self {
            Self::WebSocket(sink, protocol) => sink.send(protocol.encode(channel, data)).await.is_ok(),
            Self::Spdy(output) => output.send(channel, data).await,
        }
    }

    /// Tells how it ended, then closes.
    pub async fn finish(self, mut input: Input, end: &Result<i32, String>) {
        match self {
            // Whoever is told here may have left before.
            Self::WebSocket(mut sink, protocol) => {
                if let Some(status) = protocol.status(end) {
                    let _ = sink.send(status).await;
                }
                // Clients take an end without a code for a broken connection.
                let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                let _ = sink.send(Message::Close(Some(normal))).await;
                let _ = sink.close().await;
            }
            Self::Spdy(output) => output.finish(end).await,
        }
        let gone = async { while input.next().await != Incoming::Gone {} };
        // A client that stays is left.
        let _ = tokio::time::timeout(FAREWELL, gone).await;
    }
}
