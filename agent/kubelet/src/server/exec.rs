//! `/exec` and `/attach`: input, output, terminal size and exit code between a client and a process.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use super::channels::{Incoming, STDERR, STDOUT};
use super::client::{self, Input, Output};
use super::route::Target;
use super::{Body, Context, Query, text};
use crate::containerd::exec::{Exec, ExecRequest};
use crate::containerd::io::read_rest;
use crate::logs::format::Stream;
use crate::pods::state::{container, uid};

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
    client::accept(request, query, move |mut input, mut output| async move {
        let end = match context.host.containerd.exec(&id, &exec).await {
            Ok(process) => run_exec(&context, process, &mut input, &mut output).await,
            Err(error) => Err(format!("error executing command in container: {error}")),
        };
        output.finish(input, &end).await;
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
    client::accept(request, query, move |mut input, mut output| async move {
        let end = run_attach(&context, &id, wants_input, stdin_once, &mut input, &mut output).await;
        output.finish(input, &end).await;
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

async fn run_exec(
    context: &Context,
    mut process: Exec,
    input: &mut Input,
    output: &mut Output,
) -> Result<i32, String> {
    let containerd = &context.host.containerd;
    let (container, exec_id) = (process.container.clone(), process.exec_id.clone());
    let mut stdin = process.stdin.take();
    let listen = async {
        loop {
            match input.next().await {
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
                Incoming::Gone => break,
                Incoming::Nothing => {}
            }
        }
        // Upstream lets the command go on without its client; its input ends.
        let _ = containerd.close_stdin(&container, &exec_id).await;
        std::future::pending().await
    };
    let ended = CancellationToken::new();
    let wait = async {
        let code = containerd.wait(&container, &exec_id).await;
        ended.cancel();
        code.map_err(|error| error.to_string())
    };
    let end = {
        let done = async { tokio::join!(wait, copy(&process, output, &ended)).0 };
        tokio::select! {
            end = done => end,
            never = listen => never,
        }
    };
    containerd.reap_exec(&process).await;
    drain_rest(&process, output).await;
    containerd.end_exec(&process).await;
    end
}

/// Sends output as it comes until the process has ended, and never leaves a piece half sent. Output is read even when
/// nobody listens, so that the process does not wait for ever.
async fn copy(process: &Exec, output: &mut Output, ended: &CancellationToken) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let stderr = async {
            match &process.stderr {
                Some(stderr) => drop(stderr.readable().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ended.cancelled() => return,
            _ = process.stdout.readable() => {}
            () = stderr => {}
        }
        for (channel, receiver) in outputs(process) {
            if let Ok(length) = receiver.try_read(&mut buffer) {
                output.send(channel, &buffer[..length]).await;
            }
        }
    }
}

/// Sends what is left after the end.
async fn drain_rest(process: &Exec, output: &mut Output) {
    let mut buffer = vec![0; CHUNK];
    for (channel, receiver) in outputs(process) {
        loop {
            let length = read_rest(receiver, &mut buffer);
            if length == 0 {
                break;
            }
            output.send(channel, &buffer[..length]).await;
        }
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
    input: &mut Input,
    client: &mut Output,
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
                    if !client.send(channel, &data).await {
                        break Ok(0);
                    }
                }
                Err(tokio::sync::broadcast::error::RecvError::Lagged(lost)) => {
                    tracing::debug!(lost, "an attached client is too slow");
                }
                Err(tokio::sync::broadcast::error::RecvError::Closed) => break Ok(0),
            },
            incoming = input.next() => match incoming {
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
        if !client.send(channel, &data).await {
            break;
        }
    }
    if stdin_once && stdin.take().is_some() {
        let _ = containerd.close_stdin(id, "").await;
    }
    end
}
