//! Running another process in a container: for `kubectl exec`, and with collected output for probes and hooks.

use std::time::Duration;

use containerd_client::services::v1::{
    CloseIoRequest, DeleteProcessRequest, ExecProcessRequest, KillRequest, StartRequest, WaitRequest,
};
use prost_types::Any;
use tokio::net::unix::pipe;

use super::client::{Containerd, RuntimeError, at, on};
use super::io::{Fifos, open_reader, open_writer, read_rest};
use crate::oci::spec::exec_process;

const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const SIGKILL: u32 = 9;

/// Output of a probe or hook that is kept, in bytes.
pub const KEPT_OUTPUT: usize = 10 * 1024;

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// Words of the command.
    pub args: Vec<String>,
    /// With a terminal; its output is all standard output.
    pub terminal: bool,
    /// With standard input.
    pub stdin: bool,
}

/// A process in a container that has been started.
pub struct Exec {
    /// Runtime id of the container.
    pub container: String,
    /// Its own id.
    pub exec_id: String,
    /// Where to write its input.
    pub stdin: Option<pipe::Sender>,
    /// Where to read its output. Ends never: stop when the process has ended and nothing is left.
    pub stdout: pipe::Receiver,
    /// Its error output; a terminal has none.
    pub stderr: Option<pipe::Receiver>,
    fifos: Fifos,
}

/// Result of a collected exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit code.
    pub code: i32,
    /// Both outputs, the first [`KEPT_OUTPUT`] bytes.
    pub output: String,
}

impl Containerd {
    /// Starts a process in a running container.
    pub async fn exec(&self, container: &str, request: &ExecRequest) -> Result<Exec, RuntimeError> {
        let spec = self.spec(container).await?;
        let exec_id = uuid::Uuid::new_v4().simple().to_string();
        let fifos =
            Fifos::new(&self.run_dir, &format!("{container}-{exec_id}"), request.stdin, request.terminal);
        fifos.create().map_err(on(&self.run_dir))?;
        let stdout = open_reader(&fifos.stdout).map_err(on(&fifos.stdout))?;
        let stderr = fifos.stderr.as_deref().map(open_reader).transpose().map_err(on(&self.run_dir))?;
        let stdin = fifos.stdin.as_deref().map(open_writer).transpose().map_err(on(&self.run_dir))?;
        let process = exec_process(&spec, &request.args, request.terminal);
        let message = ExecProcessRequest {
            container_id: container.to_owned(),
            stdin: Fifos::uri(fifos.stdin.as_deref()),
            stdout: Fifos::uri(Some(&fifos.stdout)),
            stderr: Fifos::uri(fifos.stderr.as_deref()),
            terminal: request.terminal,
            spec: Some(Any { type_url: PROCESS_TYPE.into(), value: process.to_string().into_bytes() }),
            exec_id: exec_id.clone(),
        };
        let exec = Exec { container: container.to_owned(), exec_id, stdin, stdout, stderr, fifos };
        let added = self.tasks().exec(self.request(message)).await.map_err(at("exec"));
        let started = match added {
            Ok(_) => {
                let start =
                    StartRequest { container_id: exec.container.clone(), exec_id: exec.exec_id.clone() };
                self.tasks().start(self.request(start)).await.map_err(at("start exec")).map(|_| ())
            }
            Err(error) => Err(error),
        };
        match started {
            Ok(()) => Ok(exec),
            Err(error) => {
                self.end_exec(&exec).await;
                Err(error)
            }
        }
    }

    /// Waits for the end of a container (empty `exec_id`) or of a process in it; gives the exit code.
    pub async fn wait(&self, container: &str, exec_id: &str) -> Result<i32, RuntimeError> {
        let request = WaitRequest { container_id: container.to_owned(), exec_id: exec_id.to_owned() };
        let answer = self.tasks().wait(self.endless(request)).await.map_err(at("wait"))?.into_inner();
        Ok(answer.exit_status.try_into().unwrap_or(i32::MAX))
    }

    /// No more input will come.
    pub async fn close_stdin(&self, container: &str, exec_id: &str) -> Result<(), RuntimeError> {
        let request = CloseIoRequest { container_id: container.into(), exec_id: exec_id.into(), stdin: true };
        self.tasks().close_io(self.request(request)).await.map_err(at("close stdin"))?;
        Ok(())
    }

    /// Kills a process started by [`Self::exec`].
    pub async fn kill_exec(&self, exec: &Exec) -> Result<(), RuntimeError> {
        let request = KillRequest {
            container_id: exec.container.clone(),
            exec_id: exec.exec_id.clone(),
            signal: SIGKILL,
            all: false,
        };
        match self.tasks().kill(self.request(request)).await.map_err(at("kill exec")) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Forgets an ended process; after this all of its output is in the FIFOs.
    pub async fn reap_exec(&self, exec: &Exec) {
        let request =
            DeleteProcessRequest { container_id: exec.container.clone(), exec_id: exec.exec_id.clone() };
        let outcome = self.tasks().delete_process(self.request(request)).await.map_err(at("delete exec"));
        match outcome {
            Err(error) if !error.is_not_found() => tracing::debug!(%error, "exec not deleted"),
            _ => {}
        }
    }

    /// Forgets an ended process and its FIFOs.
    pub async fn end_exec(&self, exec: &Exec) {
        self.reap_exec(exec).await;
        if let Err(error) = exec.fifos.remove() {
            tracing::debug!(%error, "FIFOs of an exec not removed");
        }
    }

    /// Runs a command and collects its output; kills it after `limit`.
    pub async fn exec_collect(
        &self,
        container: &str,
        args: &[String],
        limit: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        let request = ExecRequest { args: args.to_vec(), ..ExecRequest::default() };
        let exec = self.exec(container, &request).await?;
        let mut output = Vec::new();
        let wait = self.wait(container, &exec.exec_id);
        tokio::pin!(wait);
        let deadline = tokio::time::sleep(limit);
        tokio::pin!(deadline);
        let outcome = loop {
            tokio::select! {
                code = &mut wait => break code,
                () = &mut deadline => {
                    self.kill_exec(&exec).await?;
                    break Err(RuntimeError::Timeout { command: args.to_vec(), seconds: limit.as_secs() });
                }
                () = readable(&exec) => drain(&exec, &mut output),
            }
        };
        self.reap_exec(&exec).await;
        drain_rest(&exec, &mut output);
        self.end_exec(&exec).await;
        Ok(ExecOutput { code: outcome?, output: String::from_utf8_lossy(&output).into_owned() })
    }
}

async fn readable(exec: &Exec) {
    let stderr = async {
        match &exec.stderr {
            Some(stderr) => drop(stderr.readable().await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = exec.stdout.readable() => {}
        () = stderr => {}
    }
}

/// Reads what is there; keeps the first [`KEPT_OUTPUT`] bytes.
fn drain(exec: &Exec, output: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    for receiver in [Some(&exec.stdout), exec.stderr.as_ref()].into_iter().flatten() {
        while let Ok(length) = receiver.try_read(&mut buffer)
            && length > 0
        {
            keep(output, &buffer[..length]);
        }
    }
}

/// What is left after the end.
fn drain_rest(exec: &Exec, output: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    for receiver in [Some(&exec.stdout), exec.stderr.as_ref()].into_iter().flatten() {
        loop {
            let length = read_rest(receiver, &mut buffer);
            if length == 0 {
                break;
            }
            keep(output, &buffer[..length]);
        }
    }
}

fn keep(output: &mut Vec<u8>, chunk: &[u8]) {
    output.extend_from_slice(chunk);
    output.truncate(KEPT_OUTPUT);
}
