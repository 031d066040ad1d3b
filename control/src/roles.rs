//! Puts each role together from the crates that do the work, and takes it down in order.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use apiserver::pki::{self, NodeIdentity, Pki, ServingNames};
use apiserver::{Server, ServerOptions, UserInfo};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::config::{ClientArgs, ControllersArgs, IssueNodeArgs, ServerArgs};
use crate::driving::{self, ControllersConfig};
use crate::etcd::LocalEtcd;
use crate::scheduling::{self, SchedulerConfig};
use crate::supervise::supervise;

/// Time for roles to give up their leases and finish what they do.
const ROLES_END: Duration = Duration::from_secs(5);

/// The API server, with the other roles beside it if `all`.
pub async fn server(args: &ServerArgs, all: bool) -> Result<()> {
    let cidrs = service_cidrs(args)?;
    let service_addresses: Vec<_> = cidrs.iter().map(apiserver::allocate::Cidr::first).collect();
    let names = ServingNames::for_apiserver(&[args.advertised()], &service_addresses, &args.cluster_domain);
    std::fs::create_dir_all(&args.data_dir)
        .with_context(|| format!("--data-dir {}", args.data_dir.display()))?;
    let pki = pki::ensure(&args.data_dir, &names, Timestamp::now()).context("certificates")?;
    let listeners = listeners(args)?;

    let (stop_roles, stop_server, stop_etcd) =
        (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let (etcd_servers, etcd) = etcd(args, &stop_etcd).await?;
    let options = ServerOptions {
        etcd_servers,
        advertise_address: args.advertised(),
        secure_port: args.bind.port(),
        service_cidrs: cidrs,
        event_ttl: Duration::from_secs(args.event_ttl_seconds),
    };
    let server = Server::new(options, &pki, stop_server.clone()).await.context("API server")?;
    let mut serving = JoinSet::new();
    for listener in listeners {
        let server = server.clone();
        serving.spawn(async move { server.serve(listener).await });
    }
    let renewed = tokio::spawn(pki.keep_renewed(args.data_dir.clone(), names));
    let ended = ended()?;
    tokio::pin!(ended);
    let mut roles = JoinSet::new();
    let started = tokio::select! {
        () = server.start() => true,
        () = &mut ended => false,
    };
    if started {
        pki.write_kubeconfig(&args.admin_path(), &args.admin_url(), &pki.admin)
            .context("administrator's kubeconfig")?;
        write_role_kubeconfigs(args, &pki)?;
        if all {
            start_roles(&mut roles, &server, args, &pki, &stop_roles)?;
        }
        ended.await;
    }
    tracing::info!("shutting down");
    renewed.abort();
    stop_roles.cancel();
    // A role that does not end in time is cut off with the process.
    let _ = tokio::time::timeout(ROLES_END, roles.join_all()).await;
    stop_server.cancel();
    while serving.join_next().await.is_some() {}
    stop_etcd.cancel();
    if let Some(etcd) = etcd {
        etcd.await.context("local etcd")?;
    }
    Ok(())
}

/// The URLs of the etcd given, or of a local one that is kept running until `stop`.
async fn etcd(args: &ServerArgs, stop: &CancellationToken) -> Result<(Vec<String>, Option<JoinHandle<()>>)> {
    if !args.etcd_servers.is_empty() {
        return Ok((args.etcd_servers.clone(), None));
    }
    let etcd = LocalEtcd::new(&args.etcd_binary, &args.data_dir).context("local etcd")?;
    let url = etcd.url();
    Ok((vec![url], Some(etcd.start(stop.clone()).await.context("local etcd")?)))
}

fn start_roles(
    roles: &mut JoinSet<()>,
    server: &Server,
    args: &ServerArgs,
    pki: &Pki,
    stop: &CancellationToken,
) -> Result<()> {
    let identity = lasting_identity(&args.data_dir)?;
    // In one process there is nobody to share the work with, but another server may run beside this one.
    let config = ControllersConfig {
        identity: identity.clone(),
        leader_elect: true,
        cluster_cidrs: args.cluster_cidr.clone(),
        root_ca_pem: pki.authority.certificate_pem().to_owned(),
    };
    let client = server.in_process_client(UserInfo::named("system:kube-controller-manager", &[]));
    roles.spawn(keep_controlling(client, config, stop.clone()));
    let config = SchedulerConfig { identity, leader_elect: true, ..SchedulerConfig::default() };
    let client = server.in_process_client(UserInfo::named("system:kube-scheduler", &[]));
    roles.spawn(keep_scheduling(client, config, stop.clone()));
    Ok(())
}

fn keep_controlling(
    client: kube::Client,
    config: ControllersConfig,
    stop: CancellationToken,
) -> impl Future<Output = ()> {
    let ended = stop.clone();
    supervise("controllers", stop, move || driving::run(client.clone(), config.clone(), ended.clone()))
}

fn keep_scheduling(
    client: kube::Client,
    config: SchedulerConfig,
    stop: CancellationToken,
) -> impl Future<Output = ()> {
    let ended = stop.clone();
    supervise("scheduler", stop, move || scheduling::run(client.clone(), config.clone(), ended.clone()))
}

/// The scheduler alone.
pub async fn scheduler(args: &ClientArgs) -> Result<()> {
    let client = client(&args.kubeconfig).await?;
    let config = SchedulerConfig {
        identity: identity(),
        leader_elect: args.leader_elect,
        ..SchedulerConfig::default()
    };
    let stop = CancellationToken::new();
    until_ended(stop.clone(), keep_scheduling(client, config, stop)).await
}

/// The controllers alone.
pub async fn controllers(args: &ControllersArgs) -> Result<()> {
    let client = client(&args.client.kubeconfig).await?;
    let root_ca_pem = match &args.root_ca_file {
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("--root-ca-file {}", path.display()))?
        }
        None => String::new(),
    };
    let config = ControllersConfig {
        identity: identity(),
        leader_elect: args.client.leader_elect,
        cluster_cidrs: args.cluster_cidr.clone(),
        root_ca_pem,
    };
    let stop = CancellationToken::new();
    until_ended(stop.clone(), keep_controlling(client, config, stop)).await
}

/// Writes a node's certificates and kubeconfig.
pub fn issue_node(args: &IssueNodeArgs) -> Result<()> {
    let node = NodeIdentity {
        name: args.name.clone(),
        addresses: args.address.clone(),
        server: args.server.clone(),
    };
    pki::issue_node(&args.data_dir, &node, &args.out, Timestamp::now())
        .with_context(|| format!("certificates of node {}", args.name))
}

/// Files for the roles that run as processes of their own.
fn write_role_kubeconfigs(args: &ServerArgs, pki: &Pki) -> Result<()> {
    for (name, identity) in [("scheduler", &pki.scheduler), ("controllers", &pki.controllers)] {
        let path = args.data_dir.join(format!("{name}.kubeconfig"));
        pki.write_kubeconfig(&path, &args.admin_url(), identity)
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn service_cidrs(args: &ServerArgs) -> Result<Vec<apiserver::allocate::Cidr>> {
    let ranges = args.service_cluster_ip_range.iter();
    ranges
        .map(|it| it.parse().map_err(|error| anyhow::anyhow!("--service-cluster-ip-range {it}: {error}")))
        .collect()
}

/// The socket to bind, and those inherited.
fn listeners(args: &ServerArgs) -> Result<Vec<TcpListener>> {
    let mut listeners = vec![TcpListener::bind(args.bind).with_context(|| format!("--bind {}", args.bind))?];
    let mut inherited = listenfd::ListenFd::from_env();
    for at in 0..inherited.len() {
        let listener =
            inherited.take_tcp_listener(at).with_context(|| format!("LISTEN_FDS: descriptor {}", 3 + at))?;
        listeners.extend(listener);
    }
    Ok(listeners)
}

async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let what = || format!("--kubeconfig {}", kubeconfig.display());
    let file = kube::config::Kubeconfig::read_from(kubeconfig).with_context(what)?;
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(file, &options).await.with_context(what)?;
    kube::Client::try_from(config).with_context(what)
}

/// This process among those that compete for a lease.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}", host.trim(), uuid::Uuid::new_v4())
}

/// The identity of a data folder's server: the same after a restart, so that a server that was killed holds its leases again at
/// once instead of waiting for them to run out.
fn lasting_identity(data_dir: &Path) -> Result<String> {
    let path = data_dir.join("identity");
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        _ => {}
    }
    let fresh = identity();
    std::fs::write(&path, &fresh).with_context(|| path.display().to_string())?;
    Ok(fresh)
}

/// Returns at SIGTERM or SIGINT.
fn ended() -> Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn until_ended(stop: CancellationToken, role: impl Future<Output = ()>) -> Result<()> {
    let ended = ended()?;
    tokio::pin!(role);
    tokio::select! {
        () = &mut role => return Ok(()),
        () = ended => {}
    }
    stop.cancel();
    let _ = tokio::time::timeout(ROLES_END, role).await;
    Ok(())
}
