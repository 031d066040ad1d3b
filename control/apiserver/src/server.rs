//! The server: opens the store, fills a new cluster, serves connections.

use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::admission::Chain;
use crate::allocate::{Allocator, Cidr};
use crate::attributes::UserInfo;
use crate::auth::{Auth, AuthOptions};
use crate::bootstrap::{self, BootstrapOptions};
use crate::connection::Acceptor;
use crate::core::Core;
use crate::metrics::Metrics;
use crate::pki::{self, Pki};
use crate::registry_access::{self, Registry};
use crate::streaming::Streaming;
use crate::{in_process, object, openapi};

/// How a server is set up.
pub struct ServerOptions {
    /// etcd client URLs.
    pub etcd_servers: Vec<String>,
    /// Where others reach this server.
    pub advertise_address: IpAddr,
    /// The port there.
    pub secure_port: u16,
    /// Ranges of cluster IPs, the primary family first.
    pub service_cidrs: Vec<Cidr>,
    /// Lifetime of events.
    pub event_ttl: Duration,
}

/// Why a server could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The etcd endpoints cannot be used.
    #[error("store: {0}")]
    Store(#[from] store::Error),
    /// The serving certificate or the client CA cannot be used.
    #[error("certificates: {0}")]
    Pki(#[from] pki::PkiError),
    /// The key of service-account tokens cannot be used.
    #[error("service-account tokens: {0}")]
    Tokens(#[from] crate::auth::tokens::TokenError),
}

/// An API server. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    core: Arc<Core>,
    acceptor: Acceptor,
    bootstrap: BootstrapOptions,
}

impl Server {
    /// Connects the parts; does not wait for etcd. Requests are refused with 503 until [`Self::start`] is done.
    ///
    /// # Errors
    /// [`ServerError`] for certificates and endpoints that cannot be used.
    pub async fn new(
        options: ServerOptions,
        pki: &Pki,
        shutdown: CancellationToken,
    ) -> Result<Self, ServerError> {
        let metrics = Arc::new(Metrics::default());
        let mut config = store::Config::new(options.etcd_servers, object::prefixes());
        let counted = metrics.clone();
        config.observer =
            Arc::new(move |operation, took, succeeded| counted.etcd(operation, took, succeeded));
        let registry = Registry::new(registry_access::open(config).await?);
        let auth = Auth::new(registry.clone(), pki, AuthOptions::default())?;
        let core = Core {
            admission: Chain::new(registry.clone(), auth.authorizer.clone()),
            allocator: Allocator::new(registry.clone(), options.service_cidrs),
            streaming: Streaming::new(pki, registry.clone())?,
            auth,
            registry,
            metrics,
            address: format!("{}:{}", options.advertise_address, options.secure_port),
            event_ttl: options.event_ttl,
            shutdown,
            started: AtomicBool::new(false),
        };
        let acceptor = Acceptor::new(pki::tls::server_config(pki)?);
        let bootstrap = BootstrapOptions {
            advertise_address: options.advertise_address,
            secure_port: options.secure_port,
        };
        Ok(Self { core: Arc::new(core), acceptor, bootstrap })
    }

    /// Waits for the objects, makes what every cluster holds, and opens the doors. Tries until it succeeds.
    pub async fn start(&self) {
        self.core.registry.store().ready().await;
        let authorizer = self.core.auth.authorizer.clone();
        let shutdown = self.core.shutdown.clone();
        tokio::spawn(async move {
            // A panic on one odd role must not leave the index as it was then for ever.
            while !shutdown.is_cancelled() {
                let (authorizer, shutdown) = (authorizer.clone(), shutdown.clone());
                let followed =
                    tokio::spawn(async move { shutdown.run_until_cancelled(authorizer.follow()).await });
                if let Err(error) = followed.await {
                    tracing::error!(%error, "following roles failed, starting again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        });
        while let Err(error) =
            bootstrap::run(&self.core.registry, &self.core.allocator, &self.bootstrap).await
        {
            tracing::warn!(%error, "filling the cluster failed, trying again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.core.auth.authorizer.refresh();
        self.core.started.store(true, Ordering::Release);
        tokio::task::spawn_blocking(openapi::warm);
        tracing::info!(revision = self.core.registry.store().revision(), "serving");
    }

    /// Serves the connections of a listener until shutdown, then lets those that are there finish.
    pub async fn serve(&self, listener: TcpListener) -> std::io::Result<()> {
        self.acceptor.serve(self.core.clone(), listener).await
    }

    /// A client of this server that needs no socket; what it may do is what `user` may do.
    #[must_use]
    pub fn in_process_client(&self, user: UserInfo) -> kube::Client {
        in_process::client(self.core.clone(), user)
    }

    /// What the handlers share.
    #[must_use]
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }
}
