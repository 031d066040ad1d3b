//! `/portForward`: TCP connections into a pod over one SPDY connection, plain or inside a WebSocket. Each is a pair of
//! streams, data and error, told apart by `streamType` and joined by `requestID`; `port` says where to.
//!
//! Streams share the connection without windows (see `spdy::session`): a pod that does not read stops all of them.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use network::Netns;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::route::PodTarget;
use super::spdy::headers::Headers;
use super::spdy::session::{self, Event, Writer};
use super::upgrade::{self, Transport};
use super::{Body, Context, text, tunnel};
use crate::pods::state::{host_network, uid};
use crate::sandbox::namespaces::Pins;

/// The protocol inside SPDY.
const PROTOCOL: &str = "portforward.k8s.io";
/// The subprotocol of a WebSocket that carries SPDY with that inside.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// The second stream of a pair must come within this time.
const PAIRING: Duration = Duration::from_secs(30);
/// Who listens on the loopback answers at once, unless its queue is full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pieces that may wait for a pod to read them.
const BACKLOG: usize = 16;
/// Read size.
const CHUNK: usize = 32 * 1024;

/// Where connections lead.
#[derive(Clone)]
struct Destination {
    netns: Arc<Netns>,
    pod: String,
    uid: String,
}

/// Forwards connections into a pod.
pub async fn serve(
    context: &Context,
    target: &PodTarget,
    request: Request<hyper::body::Incoming>,
) -> Response<Body> {
    let destination = match destination(context, target) {
        Ok(destination) => destination,
        Err(response) => return *response,
    };
    match Transport::wanted(request.headers()) {
        Some(Transport::Spdy) => {
            upgrade::spdy(request, PROTOCOL, move |connection| forward(connection, destination))
        }
        Some(Transport::WebSocket) => {
            let offered = upgrade::subprotocols(request.headers());
            if !offered.split(',').any(|name| name.trim() == TUNNEL) {
                let message = format!("Sec-WebSocket-Protocol must offer {TUNNEL}");
                return text(StatusCode::BAD_REQUEST, &message);
            }
            upgrade::websocket(request, Some(TUNNEL), move |socket| {
                forward(tunnel::bytes_of(socket), destination)
            })
        }
        None => upgrade::needed(),
    }
}

fn destination(context: &Context, target: &PodTarget) -> Result<Destination, Box<Response<Body>>> {
    let name = format!("{}/{}", target.namespace, target.pod);
    let fail = |status, message: String| Box::new(text(status, &message));
    let view = context.workers.find(&target.namespace, &target.pod);
    let view = view.map(|view| view.borrow().clone());
    let view = view
        .filter(|view| target.uid.as_deref().is_none_or(|wanted| wanted == uid(&view.pod)))
        .ok_or_else(|| fail(StatusCode::NOT_FOUND, format!("pod not found (\"{name}\")")))?;
    let unable = |error: &dyn std::fmt::Display| {
        let message = format!("unable to forward ports of pod \"{name}\": {error}");
        fail(StatusCode::INTERNAL_SERVER_ERROR, message)
    };
    if view.running.is_empty() {
        return Err(unable(&"no container is running"));
    }
    let uid = uid(&view.pod).to_owned();
    let netns = if host_network(&view.pod) {
        Netns::current()
    } else {
        Netns::open(&Pins::new(context.host.config.pins_dir(&uid)).net())
    };
    let netns = Arc::new(netns.map_err(|error| unable(&error))?);
    Ok(Destination { netns, pod: name, uid })
}

/// The streams of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    data: u32,
    error: u32,
    port: u16,
}

/// A stream that waits for the other of its pair.
struct Half {
    is_data: bool,
    stream: u32,
    port: u16,
    since: Instant,
}

/// Finds pairs.
#[derive(Default)]
struct Pairing(HashMap<String, Half>);

impl Pairing {
    /// Notes an opened stream. `Some`: its pair is complete; an error says why it is refused.
    fn opened(&mut self, stream: u32, headers: &Headers, now: Instant) -> Result<Option<Pair>, &'static str> {
        let is_data = match headers.get("streamType") {
            Some("data") => true,
            Some("error") => false,
            _ => return Err("streamType is neither data nor error"),
        };
        let port = headers.get("port").and_then(|port| port.parse::<u16>().ok());
        let port = port.filter(|port| *port != 0).ok_or("port is not a number from 1 to 65535")?;
        // Clients before 1.1 give no id; they open the error stream, then the data stream.
        let id = headers.get("requestID").map_or_else(
            || (if is_data { stream.saturating_sub(2) } else { stream }).to_string(),
            str::to_owned,
        );
        match self.0.remove(&id) {
            None => {
                self.0.insert(id, Half { is_data, stream, port, since: now });
                Ok(None)
            }
            Some(other) if other.is_data == is_data || other.port != port => {
                self.0.insert(id, other);
                Err("requestID is in use")
            }
            Some(other) if is_data => Ok(Some(Pair { data: stream, error: other.stream, port })),
            Some(other) => Ok(Some(Pair { data: other.stream, error: stream, port })),
        }
    }

    /// Streams that have waited too long, which are forgotten.
    fn overdue(&mut self, now: Instant) -> Vec<u32> {
        let late = self.0.extract_if(|_, half| now.duration_since(half.since) >= PAIRING);
        late.map(|(_, half)| half.stream).collect()
    }
}

/// Something for the pod. The channel's end without [`Piece::End`]: the client gave up.
enum Piece {
    Data(Bytes),
    End,
}

async fn forward<S>(connection: S, destination: Destination)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let Ok((mut events, writer)) = session::serve(connection) else { return };
    let mut pairing = Pairing::default();
    let mut connections: HashMap<u32, mpsc::Sender<Piece>> = HashMap::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Opened { stream, headers, fin } => {
                let now = Instant::now();
                connections.retain(|_, sender| !sender.is_closed());
                for late in pairing.overdue(now) {
                    writer.reset(late).await;
                }
                match pairing.opened(stream, &headers, now) {
                    Ok(None) => {}
                    Ok(Some(pair)) => {
                        let (sender, pieces) = mpsc::channel(BACKLOG);
                        tokio::spawn(connect(pair, destination.clone(), writer.clone(), pieces));
                        if fin && stream == pair.data {
                            let _ = sender.send(Piece::End).await;
                        }
                        connections.insert(pair.data, sender);
                    }
                    Err(reason) => {
                        tracing::debug!(stream, reason, "stream of a port forwarding is refused");
                        writer.reset(stream).await;
                    }
                }
            }
            Event::Data { stream, data, fin } => {
                let Some(sender) = connections.get(&stream) else { continue };
                // A connection that has ended takes no more.
                if !data.is_empty() {
                    let _ = sender.send(Piece::Data(data)).await;
                }
                if fin {
                    let _ = sender.send(Piece::End).await;
                }
            }
            Event::Reset { stream } => drop(connections.remove(&stream)),
        }
    }
}

/// Serves one connection, then ends its streams.
async fn connect(pair: Pair, destination: Destination, writer: Writer, pieces: mpsc::Receiver<Piece>) {
    let Pair { data, error, port } = pair;
    match dial(destination.netns.clone(), port).await {
        Ok(stream) => copy(stream, data, &writer, pieces).await,
        Err(cause) => {
            let Destination { pod, uid, .. } = destination;
            let message = format!("error forwarding port {port} to pod {pod}, uid {uid}: {cause}");
            writer.data(error, message.as_bytes()).await;
        }
    }
    writer.end(data).await;
    writer.end(error).await;
}

async fn dial(netns: Arc<Netns>, port: u16) -> Result<TcpStream, String> {
    let dialled = tokio::task::spawn_blocking(move || netns.run(|| dial_here(port)));
    let stream = match dialled.await {
        Ok(Ok(stream)) => stream?,
        Ok(Err(error)) => return Err(format!("enter the pod's network namespace: {error}")),
        Err(error) => return Err(error.to_string()),
    };
    // Terminals feel slow without it; a socket that refuses still works.
    let _ = stream.set_nodelay(true);
    let nonblocking = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
    nonblocking.map_err(|error| error.to_string())
}

/// Connects to the loopback of the calling thread's network namespace, IPv4 first.
fn dial_here(port: u16) -> Result<std::net::TcpStream, String> {
    let mut causes = Vec::new();
    let addresses = [
        ("tcp4", SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        ("tcp6", (Ipv6Addr::LOCALHOST, port).into()),
    ];
    for (network, address) in addresses {
        match std::net::TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => causes.push(format!("dial {network} {address}: connect: {}", words(&error))),
        }
    }
    Err(format!("failed to connect to localhost:{port} inside the pod: {}", causes.join(", ")))
}

/// An error in the words that clients of upstream look for.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

/// Moves bytes both ways until the pod has said all, or the client has given up.
async fn copy(stream: TcpStream, data: u32, writer: &Writer, mut pieces: mpsc::Receiver<Piece>) {
    let (mut from_pod, mut to_pod) = stream.into_split();
    let up = async {
        while let Some(piece) = pieces.recv().await {
            // A pod that reads no more may still have something to say.
            let _ = match piece {
                Piece::Data(data) => to_pod.write_all(&data).await,
                Piece::End => to_pod.shutdown().await,
            };
        }
    };
    let down = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length) = from_pod.read(&mut buffer).await
            && length > 0
            && writer.data(data, &buffer[..length]).await
        {}
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

#[cfg(test)]
mod tests;
