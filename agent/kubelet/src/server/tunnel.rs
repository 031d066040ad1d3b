//! A WebSocket whose binary messages carry a byte stream, as kubectl tunnels SPDY for port-forward
//! (`SPDY/3.1+portforward.k8s.io`). Borders of messages mean nothing.

use std::time::Duration;

use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Bytes on the way in each direction.
const WINDOW: usize = 64 * 1024;
/// A client has this long to answer the close.
const FAREWELL: Duration = Duration::from_secs(5);

/// The byte stream inside a WebSocket. The WebSocket closes with it.
pub fn bytes_of<S>(socket: WebSocketStream<S>) -> DuplexStream
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (near, far) = tokio::io::duplex(WINDOW);
    tokio::spawn(carry(socket, far));
    near
}

async fn carry<S>(socket: WebSocketStream<S>, bytes: DuplexStream)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sink, mut source) = socket.split();
    let (mut read, mut write) = tokio::io::split(bytes);
    let up = async {
        while let Some(Ok(message)) = source.next().await {
            match message {
                // After the other side has ended, what still comes is dropped, up to the client's close.
                Message::Binary(data) => drop(write.write_all(&data).await),
                Message::Close(_) => break,
                _ => {}
            }
        }
        let _ = write.shutdown().await;
    };
    let down = async {
        let mut buffer = BytesMut::with_capacity(WINDOW);
        while let Ok(length) = read.read_buf(&mut buffer).await
            && length > 0
        {
            if sink.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                return;
            }
            buffer.reserve(WINDOW);
        }
        let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let _ = sink.send(Message::Close(Some(normal))).await;
    };
    tokio::pin!(up, down);
    tokio::select! {
        () = &mut up => down.await,
        () = &mut down => {
            // A client that stays is left.
            let _ = tokio::time::timeout(FAREWELL, up).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    #[tokio::test]
    async fn bytes_pass_both_ways_and_the_close_follows_them() {
        let (client, server) = tokio::io::duplex(1 << 16);
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let mut bytes = bytes_of(WebSocketStream::from_raw_socket(server, Role::Server, None).await);
        for piece in ["one ", "two"] {
            client.send(Message::binary(piece)).await.unwrap();
        }
        let mut got = [0; 7];
        bytes.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"one two");
        bytes.write_all(b"answer").await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::binary("answer"));
        drop(bytes);
        assert!(client.next().await.unwrap().unwrap().is_close());
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_the_bytes() {
        let (client, server) = tokio::io::duplex(1 << 16);
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let mut bytes = bytes_of(WebSocketStream::from_raw_socket(server, Role::Server, None).await);
        client.send(Message::binary("last")).await.unwrap();
        drop(client);
        let mut got = Vec::new();
        bytes.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"last");
    }
}
