//! Container records and their tasks: create, start, signal, reap, remove, list.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{PrepareSnapshotRequest, RemoveSnapshotRequest};
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest, DeleteTaskRequest,
    GetContainerRequest, KillRequest, ListContainersRequest, ListTasksRequest, ResizePtyRequest,
    StartRequest,
};
use containerd_client::types::v1::{Process, Status};
use jiff::Timestamp;
use prost::Message;
use prost_types::Any;
use serde_json::Value;

use super::client::{Containerd, RuntimeError, at, on};
use super::images::{Image, SNAPSHOTTER, lock};
use super::io::{ContainerIo, Fifos};
use super::labels::{Identity, POD_UID};

const RUNTIME: &str = "io.containerd.runc.v2";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// `containerd.runc.v1.Options`, the fields that are set (runtime/v2/runc/options/oci.proto).
#[derive(Clone, PartialEq, Message)]
struct RuncOptions {
    /// Where runc keeps its state; its default is shared by all containerds of a machine.
    #[prost(string, tag = "7")]
    root: String,
}

/// A container to make.
pub struct NewContainer<'a> {
    /// Id, labels and log path.
    pub identity: &'a Identity,
    /// What it starts from.
    pub image: &'a Image,
    /// OCI runtime specification.
    pub spec: &'a Value,
}

/// A container found at containerd.
#[derive(Debug, Clone)]
pub struct Found {
    /// Runtime id.
    pub id: String,
    /// What its labels say.
    pub identity: Identity,
    /// Its task, if it has one.
    pub task: Task,
}

/// State of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// There is none: never created, or lost with the machine's last boot.
    Missing,
    /// Created, not started.
    Created,
    /// Running (or paused).
    Running,
    /// Ended and not reaped.
    Stopped {
        /// Exit code; 128 + signal for a signal.
        code: i32,
        /// When.
        at: Option<Timestamp>,
    },
}

impl Containerd {
    /// Record, snapshot, output and task of a container, not started yet. What is left of an earlier try with the
    /// same id is replaced.
    pub async fn create(&self, new: &NewContainer<'_>) -> Result<(), RuntimeError> {
        let id = new.identity.id();
        match self.create_once(&id, new).await {
            Err(error) if error.is_already_exists() => {
                self.remove(&id).await?;
                self.create_once(&id, new).await
            }
            outcome => outcome,
        }
    }

    async fn create_once(&self, id: &str, new: &NewContainer<'_>) -> Result<(), RuntimeError> {
        let request = CreateContainerRequest { container: Some(self.record(id, new)) };
        let mut containers = ContainersClient::new(self.channel.clone());
        containers.create(self.request(request)).await.map_err(at("create container"))?;
        let outcome = self.create_task(id, new).await;
        if outcome.is_err()
            && let Err(error) = self.remove(id).await
        {
            tracing::warn!(id, %error, "container not removed after a failed start");
        }
        outcome
    }

    fn record(&self, id: &str, new: &NewContainer<'_>) -> Container {
        let options = RuncOptions { root: self.run_dir.join("runc").display().to_string() };
        let options = Any { type_url: "containerd.runc.v1.Options".into(), value: options.encode_to_vec() };
        Container {
            id: id.to_owned(),
            labels: new.identity.to_labels(),
            image: new.image.name.clone(),
            runtime: Some(Runtime { name: RUNTIME.into(), options: Some(options) }),
            spec: Some(Any { type_url: SPEC_TYPE.into(), value: new.spec.to_string().into_bytes() }),
            snapshotter: SNAPSHOTTER.into(),
            snapshot_key: id.to_owned(),
            ..Container::default()
        }
    }

    async fn create_task(&self, id: &str, new: &NewContainer<'_>) -> Result<(), RuntimeError> {
        let prepare = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.into(),
            key: id.to_owned(),
            parent: new.image.chain_id.clone(),
            ..PrepareSnapshotRequest::default()
        };
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        let rootfs = snapshots
            .prepare(self.request(prepare))
            .await
            .map_err(at("prepare snapshot"))?
            .into_inner()
            .mounts;
        let identity = new.identity;
        let fifos = self.open_io(id, identity)?;
        let request = CreateTaskRequest {
            container_id: id.to_owned(),
            rootfs,
            stdin: Fifos::uri(fifos.stdin.as_deref()),
            stdout: Fifos::uri(Some(&fifos.stdout)),
            stderr: Fifos::uri(fifos.stderr.as_deref()),
            terminal: identity.terminal,
            ..CreateTaskRequest::default()
        };
        self.tasks().create(self.request(request)).await.map_err(at("create task"))?;
        Ok(())
    }

    /// Begins (or, after a restart of the agent, goes on) to copy a container's output.
    pub fn open_io(&self, id: &str, identity: &Identity) -> Result<Fifos, RuntimeError> {
        let fifos = Fifos::new(&self.run_dir, id, identity.stdin, identity.terminal);
        let log_path = Path::new(&identity.log_path);
        let io = ContainerIo::start(fifos.clone(), log_path, self.rotation).map_err(on(log_path))?;
        lock(&self.ios).insert(id.to_owned(), io);
        Ok(fifos)
    }

    /// Output of a running container.
    pub fn io(&self, id: &str) -> Option<Arc<ContainerIo>> {
        lock(&self.ios).get(id).cloned()
    }

    /// Starts the created task; gives the process id of its first process.
    pub async fn start(&self, id: &str) -> Result<u32, RuntimeError> {
        let request = StartRequest { container_id: id.to_owned(), exec_id: String::new() };
        Ok(self.tasks().start(self.request(request)).await.map_err(at("start task"))?.into_inner().pid)
    }

    /// Signals the first process, or all. A process that is gone is a success.
    pub async fn signal(&self, id: &str, signal: u32, all: bool) -> Result<(), RuntimeError> {
        let request = KillRequest { container_id: id.to_owned(), exec_id: String::new(), signal, all };
        match self.tasks().kill(self.request(request)).await.map_err(at("signal task")) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Sets the size of a terminal, in characters.
    pub async fn resize(&self, id: &str, exec_id: &str, width: u32, height: u32) -> Result<(), RuntimeError> {
        let request = ResizePtyRequest { container_id: id.into(), exec_id: exec_id.into(), width, height };
        self.tasks().resize_pty(self.request(request)).await.map_err(at("resize terminal"))?;
        Ok(())
    }

    /// The task as containerd sees it now.
    pub async fn task(&self, id: &str) -> Result<Task, RuntimeError> {
        let request =
            containerd_client::services::v1::GetRequest { container_id: id.into(), exec_id: String::new() };
        match self.tasks().get(self.request(request)).await.map_err(at("get task")) {
            Err(error) if error.is_not_found() => Ok(Task::Missing),
            answer => Ok(answer?.into_inner().process.map_or(Task::Missing, |process| state(&process))),
        }
    }

    /// Takes away an ended task, so that its shim ends, and the rest of its output. The record stays.
    pub async fn reap(&self, id: &str) -> Result<(), RuntimeError> {
        let request = DeleteTaskRequest { container_id: id.to_owned() };
        let outcome = self.tasks().delete(self.request(request)).await.map_err(at("delete task"));
        let io = lock(&self.ios).remove(id);
        if let Some(io) = io {
            io.finish().await;
        }
        match outcome {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes a container in whatever state: task, record, snapshot, FIFOs.
    pub async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        const SIGKILL: u32 = 9;
        if matches!(self.task(id).await?, Task::Running | Task::Created) {
            self.signal(id, SIGKILL, true).await?;
            self.wait(id, "").await?;
        }
        self.reap(id).await?;
        let mut containers = ContainersClient::new(self.channel.clone());
        let request = self.request(DeleteContainerRequest { id: id.to_owned() });
        match containers.delete(request).await.map_err(at("delete container")) {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        let request = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: id.to_owned() };
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        match snapshots.remove(self.request(request)).await.map_err(at("remove snapshot")) {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        Fifos::new(&self.run_dir, id, false, false).remove().map_err(on(&self.run_dir.join("io").join(id)))
    }

    /// The OCI specification in a container's record.
    pub async fn spec(&self, id: &str) -> Result<Value, RuntimeError> {
        let mut containers = ContainersClient::new(self.channel.clone());
        let request = self.request(GetContainerRequest { id: id.to_owned() });
        let answer = containers.get(request).await.map_err(at("get container"))?.into_inner();
        let bytes = answer.container.and_then(|container| container.spec).unwrap_or_default().value;
        serde_json::from_slice(&bytes).map_err(|error| RuntimeError::Malformed {
            what: format!("spec of {id}"),
            message: error.to_string(),
        })
    }

    /// All of this node's containers with their tasks. Costs a round trip to every shim: ask at start only.
    pub async fn list(&self) -> Result<Vec<Found>, RuntimeError> {
        let filters = vec![format!("labels.\"{POD_UID}\"")];
        let mut containers = ContainersClient::new(self.channel.clone());
        let records = containers
            .list(self.request(ListContainersRequest { filters }))
            .await
            .map_err(at("list containers"))?
            .into_inner()
            .containers;
        let request = self.request(ListTasksRequest { filter: String::new() });
        let tasks = self.tasks().list(request).await.map_err(at("list tasks"))?.into_inner().tasks;
        let mut tasks: HashMap<String, Task> =
            tasks.into_iter().map(|process| (process.id.clone(), state(&process))).collect();
        let found = records.into_iter().filter_map(|record| {
            let identity = Identity::from_labels(&record.labels)?;
            let task = tasks.remove(&record.id).unwrap_or(Task::Missing);
            Some(Found { id: record.id, identity, task })
        });
        Ok(found.collect())
    }

    pub(super) fn tasks(&self) -> TasksClient<containerd_client::tonic::transport::Channel> {
        TasksClient::new(self.channel.clone())
    }
}

fn state(process: &Process) -> Task {
    match process.status() {
        Status::Unknown => Task::Missing,
        Status::Created => Task::Created,
        Status::Running | Status::Paused | Status::Pausing => Task::Running,
        Status::Stopped => Task::Stopped {
            code: process.exit_status.try_into().unwrap_or(i32::MAX),
            at: process.exited_at.as_ref().and_then(timestamp),
        },
    }
}

/// A protobuf time.
pub(super) fn timestamp(time: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok().filter(|time| time.as_second() > 0)
}
