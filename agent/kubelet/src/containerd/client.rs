//! The connection to containerd: one channel, one containerd namespace, errors that name the step.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::services::v1::{CreateNamespaceRequest, Namespace};
use containerd_client::tonic::metadata::{Ascii, MetadataValue};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Request, Status};

use super::images::Image;
use super::io::ContainerIo;
use crate::logs::writer::Rotation;
use crate::oci::user::Accounts;

/// Longest time any single call but a wait or a subscription may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A node's share of a containerd daemon.
pub struct Containerd {
    pub(super) channel: Channel,
    namespace: MetadataValue<Ascii>,
    pub(super) namespace_name: String,
    pub(super) run_dir: PathBuf,
    pub(super) rotation: Rotation,
    pub(super) ios: Mutex<HashMap<String, Arc<ContainerIo>>>,
    /// By manifest digest.
    pub(super) image_cache: Mutex<HashMap<String, Arc<Image>>>,
    /// By chain id. Held while an image is read, so that it is read once.
    pub(super) accounts_cache: tokio::sync::Mutex<HashMap<String, Arc<Accounts>>>,
}

/// A failed step at containerd.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// containerd answered with an error.
    #[error("{step}: {}", status.message())]
    Call {
        /// What was asked for.
        step: &'static str,
        /// The answer.
        status: Box<Status>,
    },
    /// The socket could not be reached.
    #[error("containerd at {socket}: {source}")]
    Connect {
        /// Socket path.
        socket: String,
        /// The cause.
        source: containerd_client::tonic::transport::Error,
    },
    /// A file of this node.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Content or a record that cannot be read.
    #[error("{what}: {message}")]
    Malformed {
        /// Which document.
        what: String,
        /// What is wrong with it.
        message: String,
    },
    /// An exec that ran out of time.
    #[error("command {command:?} timed out after {seconds} s")]
    Timeout {
        /// Its words.
        command: Vec<String>,
        /// The limit.
        seconds: u64,
    },
}

impl RuntimeError {
    /// Whether containerd said that the thing does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(Code::NotFound)
    }

    /// Whether containerd said that the thing exists already.
    pub fn is_already_exists(&self) -> bool {
        self.code() == Some(Code::AlreadyExists)
    }

    fn code(&self) -> Option<Code> {
        if let Self::Call { status, .. } = self { Some(status.code()) } else { None }
    }
}

/// Names the step of a failed call: `client.call(..).await.map_err(at("create task"))`.
pub(super) fn at(step: &'static str) -> impl Fn(Status) -> RuntimeError {
    move |status| RuntimeError::Call { step, status: Box::new(status) }
}

/// Names the file of a failed operation.
pub(super) fn on(path: &Path) -> impl Fn(std::io::Error) -> RuntimeError {
    let path = path.to_owned();
    move |source| RuntimeError::File { path: path.clone(), source }
}

impl Containerd {
    /// Connects to `socket` and makes the namespace if it is missing. Later losses of the daemon are healed by the
    /// channel itself.
    pub async fn connect(
        socket: &Path,
        namespace: &str,
        run_dir: &Path,
        rotation: Rotation,
    ) -> Result<Self, RuntimeError> {
        let channel = containerd_client::connect(socket)
            .await
            .map_err(|source| RuntimeError::Connect { socket: socket.display().to_string(), source })?;
        let value = namespace.parse().map_err(|_| RuntimeError::Malformed {
            what: "containerd namespace".into(),
            message: format!("\"{namespace}\" is not plain text"),
        })?;
        let this = Self {
            channel,
            namespace: value,
            namespace_name: namespace.to_owned(),
            run_dir: run_dir.to_owned(),
            rotation,
            ios: Mutex::default(),
            image_cache: Mutex::default(),
            accounts_cache: tokio::sync::Mutex::default(),
        };
        this.ensure_namespace(namespace).await?;
        Ok(this)
    }

    async fn ensure_namespace(&self, name: &str) -> Result<(), RuntimeError> {
        let namespace = Namespace { name: name.to_owned(), ..Namespace::default() };
        let request = CreateNamespaceRequest { namespace: Some(namespace) };
        let created = NamespacesClient::new(self.channel.clone()).create(request).await;
        match created.map_err(at("create namespace")) {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(()),
        }
    }

    /// containerd's version; also the health check of the runtime.
    pub async fn version(&self) -> Result<String, RuntimeError> {
        let mut request = Request::new(());
        request.set_timeout(Duration::from_secs(5));
        let answer =
            VersionClient::new(self.channel.clone()).version(request).await.map_err(at("version"))?;
        Ok(answer.into_inner().version)
    }

    /// A request in this node's namespace that is given up after [`CALL_TIMEOUT`].
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.endless(message);
        request.set_timeout(CALL_TIMEOUT);
        request
    }

    /// A request in this node's namespace that may last for ever: waits and subscriptions.
    pub(super) fn endless<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }
}
