//! `/exec` and `/attach` over WebSocket: input, output, terminal size and exit code between a client and a process.
//! SPDY is not spoken; a client that asks for it is told so.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::channels::{Incoming, Protocol, STDERR, STDOUT, negotiate};
use super::route::Target;
use super::{Body, Context, Query, body, text};
use crate::containerd::exec::{Exec, ExecRequest};
use crate::containerd::io::read_rest;
use crate::logs::format::Stream;
use crate::pods::state::{container, uid};

type Socket = WebSocketStream<TokioIo<Upgraded>>;
type Sink = SplitSink<Socket, Message>;
type Source = SplitStream<Socket>;

/// Longest piece of output in one message.
const CHUNK: usize = 32 * 1024;

/// Runs a command in a container.
pub async fn serve_exec(
    context: Arc<Context>,
    target: Target,
    query: &Query,
    request: Request<hyper::body::Incoming>,
) -> Response<Body> {
    let id = match running(&context, &target) {
        Ok((id, _)) => id,
        Err(response) => return *response,
    };
    let exec =
        ExecRequest { args: query.all("command"), terminal: query.flag("tty"), stdin: query.flag("input") };
    if exec.args.is_empty() {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 command to execute");
    }
    upgrade(request, move |socket, protocol| async move {
        let (mut sink, source) = socket.split();
        let end = match context.host.containerd.exec(&id, &exec).await {
            Ok(process) => run_exec(&context, process, &mut sink, source, protocol).await,
            Err(error) => Err(format!("error executing command in container: {error}")),
        };
        finish(sink, protocol, &end).await;
    })
}

/// Joins the first process of a container.
pub async fn serve_attach(
    context: Arc<Context>,
    target: Target,
    query: &Query,
    request: Request<hyper::body::Incoming>,
) -> Response<Body> {
    let (id, stdin_once) = match running(&context, &target) {
        Ok(found) => found,
        Err(response) => return *response,
    };
    let wants_input = query.flag("input");
    upgrade(request, move |socket, protocol| async move {
        let (mut sink, source) = socket.split();
        let end = run_attach(&context, &id, wants_input, stdin_once, &mut sink, source, protocol).await;
        finish(sink, protocol, &end).await;
    })
}

/// Runtime id of the running container, and whether its input ends with the first client's.
fn running(context: &Context, target: &Target) -> Result<(String, bool), Box<Response<Body>>> {
    let fail = |status, message: String| Box::new(text(status, &message));
    let view = context.workers.find(&target.namespace, &target.pod);
    let view = view.map(|view| view.borrow().clone());
    let view =
        view.filter(|view| target.uid.as_deref().is_none_or(|wanted| wanted == uid(&view.pod))).ok_or_else(
            || fail(StatusCode::NOT_FOUND, format!("pod \"{}/{}\" not found", target.namespace, target.pod)),
        )?;
    let once =
        container(&view.pod, &target.container).is_some_and(|container| container.stdin_once == Some(true));
    match view.running.get(&target.container) {
        Some(id) => Ok((id.clone(), once)),
        None => Err(fail(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("container not found (\"{}\")", target.container),
        )),
    }
}

/// Answers 101 and runs `session` on the WebSocket that follows.
fn upgrade<F>(
    mut request: Request<hyper::body::Incoming>,
    session: impl FnOnce(Socket, Protocol) -> F + Send + 'static,
) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    let header =
        |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !header("upgrade").eq_ignore_ascii_case("websocket") {
        return text(
            StatusCode::BAD_REQUEST,
            "this node streams over WebSocket only: Upgrade: websocket is needed",
        );
    }
    let Some(protocol) = negotiate(header("sec-websocket-protocol")) else {
        return text(StatusCode::BAD_REQUEST, "no subprotocol of Sec-WebSocket-Protocol is supported");
    };
    let accept = derive_accept_key(header("sec-websocket-key").as_bytes());
    let offered = !header("sec-websocket-protocol").is_empty();
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(upgraded) => {
                let socket =
                    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
                session(socket, protocol).await;
            }
            Err(error) => tracing::debug!(%error, "upgrade did not happen"),
        }
    });
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("upgrade", "websocket")
        .header("connection", "Upgrade")
        .header("sec-websocket-accept", accept);
    if offered {
        response = response.header("sec-websocket-protocol", protocol.name);
    }
    response
        .body(body(Bytes::new()))
        .unwrap_or_else(|_| text(StatusCode::BAD_REQUEST, "malformed WebSocket request"))
}

async fn finish(mut sink: Sink, protocol: Protocol, end: &Result<i32, String>) {
    // The client may have left before.
    if let Some(status) = protocol.status(end) {
        let _ = sink.send(status).await;
    }
    // Clients take an end without a code for a broken connection.
    let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let _ = sink.send(Message::Close(Some(normal))).await;
    let _ = sink.close().await;
}

async fn run_exec(
    context: &Context,
    mut process: Exec,
    sink: &mut Sink,
    mut source: Source,
    protocol: Protocol,
) -> Result<i32, String> {
    let containerd = &context.host.containerd;
    let (container, exec_id) = (process.container.clone(), process.exec_id.clone());
    let mut stdin = process.stdin.take();
    let input = async {
        loop {
            match next(&mut source, protocol).await {
                Incoming::Input(data) => {
                    if let Some(stdin) = stdin.as_mut() {
                        // A process that has closed its input ignores the rest.
                        let _ = stdin.write_all(&data).await;
                    }
                }
                Incoming::EndOfInput => {
                    stdin = None;
                    let _ = containerd.close_stdin(&container, &exec_id).await;
                }
                Incoming::Resize(width, height) => {
                    let _ = containerd.resize(&container, &exec_id, width.into(), height.into()).await;
                }
                Incoming::Gone => return,
                Incoming::Nothing => {}
            }
        }
    };
    let wait = containerd.wait(&container, &exec_id);
    let end = {
        let mut output = Output { sink, protocol };
        tokio::pin!(input, wait);
        let mut client_here = true;
        loop {
            tokio::select! {
                code = &mut wait => break code.map_err(|error| error.to_string()),
                () = &mut input, if client_here => {
                    client_here = false;
                    // Upstream lets the command go on without its client; its input ends.
                    let _ = containerd.close_stdin(&container, &exec_id).await;
                }
                more = output.copy(&process) => if !more { client_here = false },
            }
        }
    };
    containerd.reap_exec(&process).await;
    Output { sink, protocol }.drain_rest(&process).await;
    containerd.end_exec(&process).await;
    end
}

async fn next(source: &mut Source, protocol: Protocol) -> Incoming {
    match source.next().await {
        Some(Ok(message)) => protocol.decode(message),
        Some(Err(_)) | None => Incoming::Gone,
    }
}

struct Output<'a> {
    sink: &'a mut Sink,
    protocol: Protocol,
}

impl Output<'_> {
    /// Waits for output and sends it; false when the client is gone.
    async fn copy(&mut self, process: &Exec) -> bool {
        let stderr = async {
            match &process.stderr {
                Some(stderr) => drop(stderr.readable().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = process.stdout.readable() => {}
            () = stderr => {}
        }
        self.drain(process).await
    }

    /// Sends what is there. Output is read even when nobody listens, so that the process does not wait for ever.
    async fn drain(&mut self, process: &Exec) -> bool {
        let mut buffer = vec![0; CHUNK];
        let mut here = true;
        for (channel, receiver) in outputs(process) {
            while let Ok(length) = receiver.try_read(&mut buffer)
                && length > 0
            {
                here = self.send(channel, &buffer[..length]).await;
            }
        }
        here
    }

    /// Sends what is left after the end.
    async fn drain_rest(&mut self, process: &Exec) {
        let mut buffer = vec![0; CHUNK];
        for (channel, receiver) in outputs(process) {
            loop {
                let length = read_rest(receiver, &mut buffer);
                if length == 0 {
                    break;
                }
                self.send(channel, &buffer[..length]).await;
            }
        }
    }

    async fn send(&mut self, channel: u8, data: &[u8]) -> bool {
        self.sink.send(self.protocol.encode(channel, data)).await.is_ok()
    }
}

fn outputs(process: &Exec) -> impl Iterator<Item = (u8, &pipe::Receiver)> {
    [(STDOUT, Some(&process.stdout)), (STDERR, process.stderr.as_ref())]
        .into_iter()
        .filter_map(|(channel, receiver)| Some((channel, receiver?)))
}

async fn run_attach(
    context: &Context,
    id: &str,
    wants_input: bool,
    stdin_once: bool,
    sink: &mut Sink,
    mut source: Source,
    protocol: Protocol,
) -> Result<i32, String> {
    let containerd = &context.host.containerd;
    let io = containerd.io(id).ok_or("the container's output has ended")?;
    let mut output = io.subscribe();
    let ended = io.ended();
    let mut stdin = if wants_input { io.stdin().map_err(|error| error.to_string())? } else { None };
    let end = loop {
        tokio::select! {
            chunk = output.recv() => match chunk {
                Ok((stream, data)) => {
                    let channel = if stream == Stream::Stdout { STDOUT } else { STDERR };
                    if sink.send(protocol.encode(channel, &data)).await.is_err() {
                        break Ok(0);
                    }
                }
                Err(tokio::sync::broadcast::error::RecvError::Lagged(lost)) => {
                    tracing::debug!(lost, "an attached client is too slow");
                }
                Err(tokio::sync::broadcast::error::RecvError::Closed) => break Ok(0),
            },
            incoming = next(&mut source, protocol) => match incoming {
                Incoming::Input(data) => if let Some(stdin) = stdin.as_mut() {
                    let _ = stdin.write_all(&data).await;
                },
                Incoming::EndOfInput => {
                    stdin = None;
                    if stdin_once {
                        let _ = containerd.close_stdin(id, "").await;
                    }
                }
                Incoming::Resize(width, height) => {
                    let _ = containerd.resize(id, "", width.into(), height.into()).await;
                }
                Incoming::Gone => break Ok(0),
                Incoming::Nothing => {}
            },
            () = ended.cancelled() => break Ok(0),
        }
    };
    // What came between the end and now.
    while let Ok((stream, data)) = output.try_recv() {
        let channel = if stream == Stream::Stdout { STDOUT } else { STDERR };
        if sink.send(protocol.encode(channel, &data)).await.is_err() {
            break;
        }
    }
    if stdin_once && stdin.take().is_some() {
        let _ = containerd.close_stdin(id, "").await;
    }
    end
}
