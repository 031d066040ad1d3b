//! The roles `run` and `proxy`: what is started, in which order, with what.
//!
//! Order: tables and programs first (they adopt what an earlier agent left), then the watches that keep them, then the kubelet.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use datapath::{Dataplane, NodeConfig, Options, Uplink};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kubelet::KubeletConfig;
use network::neighbours::Neighbours;
use network::routes::{NodeRoutes, Via};
use network::{Cidr, PodNetwork};
use service::Learned;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::config::{Proxy, Run};
use crate::health::{self, Port, Progress};
use crate::pods::{Pods, Served, pair};
use crate::state;
use crate::watch::{Cluster, ForeignNetwork, Segment};

/// How often idle flows are looked for; the shortest life of a flow is ten seconds.
const FLOW_INTERVAL: Duration = Duration::from_secs(10);

/// Runs a role on the async runtime, with logging to standard error.
pub fn block_on(role: impl Future<Output = Result<()>>) -> Result<()> {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_client=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(role)
}

/// A node of a Beeline cluster.
pub async fn run(flags: Run) -> Result<()> {
    let known_cidrs = state::load(&flags.root_dir);
    let node = NodeConfig {
        pod_cidrs: known_cidrs.iter().map(pair).collect(),
        spoof_check: true,
        masquerade: true,
        ..node_config(&flags.proxy)
    };
    let (dataplane, learned, uplink) = open(&flags.proxy, node)?;
    let network =
        network::Config { state_dir: flags.root_dir.join("network"), uplink: flags.proxy.uplink.clone() };
    let network =
        PodNetwork::new(network, Arc::new(Served(Arc::clone(&dataplane)))).context("pod network")?;
    network.set_pod_cidrs(&known_cidrs).context("pod network")?;
    let ranges_changed = Arc::new(Notify::new());
    let pods = Pods {
        network,
        dataplane: Arc::clone(&dataplane),
        root: flags.root_dir.clone(),
        ranges_changed: Arc::clone(&ranges_changed),
    };
    let segment = OwnNetwork::open(&flags.proxy.uplink, &dataplane).context("routes and neighbours")?;
    let client = client(&flags.proxy.kubeconfig).await?;
    let stop = CancellationToken::new();
    let following =
        follow(&flags.proxy, client.clone(), dataplane, learned, Box::new(segment), ranges_changed);
    tracing::info!(node = %flags.proxy.node_name, uplink = uplink.ifindex, "node agent started");
    let kubelet = kubelet::run(kubelet_config(&flags), client, Arc::new(pods), stop.clone());
    tokio::select! {
        result = following => result,
        result = kubelet => result.context("kubelet"),
        result = ended() => {
            stop.cancel();
            result
        }
    }
}

/// The data plane alone.
pub async fn proxy(flags: Proxy) -> Result<()> {
    let (dataplane, learned, uplink) = open(&flags, node_config(&flags))?;
    let client = client(&flags.kubeconfig).await?;
    tracing::info!(node = %flags.node_name, uplink = uplink.ifindex, "data plane started");
    let following =
        follow(&flags, client, dataplane, learned, Box::new(ForeignNetwork), Arc::new(Notify::new()));
    tokio::select! {
        result = following => result,
        result = ended() => result,
    }
}

fn open(flags: &Proxy, node: NodeConfig) -> Result<(Arc<Dataplane>, Learned, Uplink)> {
    let device = network::device::find(&flags.uplink).context("uplink")?;
    let uplink = Uplink {
        name: flags.uplink.clone(),
        ifindex: device.index,
        mac: device.mac,
        mtu: device.mtu,
        veth: device.veth,
    };
    let options = Options {
        bpf_dir: flags.bpf_dir.clone(),
        cgroup: flags.cgroup_root.clone(),
        uplinks: vec![uplink.clone()],
        xdp: flags.xdp.into(),
        ..Options::default()
    };
    let (dataplane, learned) = Dataplane::open(options, node).context("data plane")?;
    tracing::info!(
        xdp = dataplane.xdp().unwrap_or("off"),
        services = learned.services.len(),
        "data plane is attached"
    );
    Ok((Arc::new(dataplane), learned, uplink))
}

fn node_config(flags: &Proxy) -> NodeConfig {
    NodeConfig {
        pod_cidrs: Vec::new(),
        cluster_cidrs: flags.cluster_cidr.iter().map(pair).collect(),
        service_cidrs: flags.service_cidr.iter().map(pair).collect(),
        addresses: flags.node_ip.clone(),
        ..NodeConfig::default()
    }
}

/// Watches, health and metrics; ends only with a failure.
async fn follow(
    flags: &Proxy,
    client: kube::Client,
    dataplane: Arc<Dataplane>,
    learned: Learned,
    segment: Box<dyn Segment>,
    ranges_changed: Arc<Notify>,
) -> Result<()> {
    let progress = Arc::new(Progress::default());
    let health = health::serve(
        flags.healthz_bind_address,
        Port::Health,
        Arc::clone(&progress),
        Arc::clone(&dataplane),
    );
    let metrics = health::serve(
        flags.metrics_bind_address,
        Port::Metrics,
        Arc::clone(&progress),
        Arc::clone(&dataplane),
    );
    let collector = collect_flows(Arc::clone(&dataplane), Arc::clone(&progress));
    let node_ips = flags.node_ip.clone();
    let cluster = Cluster {
        node_name: flags.node_name.clone(),
        node_ips,
        dataplane,
        segment,
        progress,
        ranges_changed,
    };
    tokio::select! {
        () = cluster.follow(client, learned) => anyhow::bail!("the watches ended"),
        () = collector => anyhow::bail!("the flow collector ended"),
        result = health => result.with_context(|| format!("health on {}", flags.healthz_bind_address)),
        result = metrics => result.with_context(|| format!("metrics on {}", flags.metrics_bind_address)),
    }
}

/// Deletes idle flows, once the tables follow the API.
async fn collect_flows(dataplane: Arc<Dataplane>, progress: Arc<Progress>) {
    let mut interval = tokio::time::interval(FLOW_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if !progress.is_synced() {
            continue;
        }
        let dataplane = Arc::clone(&dataplane);
        match tokio::task::spawn_blocking(move || dataplane.collect_flows()).await {
            Ok(Ok(count)) => progress.flows(count),
            Ok(Err(error)) => tracing::warn!(%error, "idle flows"),
            Err(error) => tracing::error!(%error, "idle flows"),
        }
    }
}

async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let file =
        Kubeconfig::read_from(kubeconfig).with_context(|| format!("kubeconfig {}", kubeconfig.display()))?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .context("kubeconfig")?;
    kube::Client::try_from(config).context("API client")
}

fn kubelet_config(flags: &Run) -> KubeletConfig {
    KubeletConfig {
        node_ips: flags.proxy.node_ip.clone(),
        containerd_socket: flags.containerd_socket.clone(),
        containerd_namespace: flags.containerd_namespace.clone(),
        cgroup_root: flags.proxy.cgroup_root.clone(),
        serving_cert: flags.serving_cert.clone(),
        serving_key: flags.serving_key.clone(),
        client_ca: flags.client_ca.clone(),
        cluster_dns: flags.cluster_dns.clone(),
        ..KubeletConfig::new(flags.proxy.node_name.clone(), &flags.root_dir, &flags.run_dir)
    }
}

/// Until somebody asks the process to end.
async fn ended() -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Kernel routes and neighbours of a Beeline cluster's segment.
struct OwnNetwork {
    routes: NodeRoutes,
    neighbours: Neighbours,
    /// Neighbours that the kernel was asked to keep resolved.
    managed: BTreeSet<IpAddr>,
}

impl OwnNetwork {
    /// Opens the tables and starts the thread that tells the data plane about neighbours.
    fn open(uplink: &str, dataplane: &Arc<Dataplane>) -> Result<Self> {
        let mut neighbours = Neighbours::open(uplink)?;
        let mut watch = neighbours.watch()?;
        for (address, mac) in neighbours.known()? {
            dataplane.set_neighbour(address, Some(mac));
        }
        let (dataplane, mut again) = (Arc::clone(dataplane), Neighbours::open(uplink)?);
        let follow = move || {
            loop {
                match watch.changes() {
                    Ok(changes) => {
                        changes.iter().for_each(|change| dataplane.set_neighbour(change.address, change.mac));
                    }
                    Err(error) => {
                        // Changes were lost (ENOBUFS): read the table anew.
                        tracing::warn!(%error, "neighbour changes");
                        for (address, mac) in again.known().unwrap_or_default() {
                            dataplane.set_neighbour(address, Some(mac));
                        }
                        std::thread::sleep(Duration::from_millis(100));
                    }
                }
            }
        };
        std::thread::Builder::new().name("neighbours".to_owned()).spawn(follow)?;
        Ok(Self { routes: NodeRoutes::open()?, neighbours, managed: BTreeSet::new() })
    }
}

impl Segment for OwnNetwork {
    fn follow(&mut self, routes: &BTreeMap<Cidr, Via>, neighbours: &[IpAddr]) {
        if let Err(error) = self.routes.sync(routes, None) {
            tracing::error!(%error, "routes to other nodes");
        }
        let wanted: BTreeSet<IpAddr> = neighbours.iter().copied().collect();
        let gone: Vec<IpAddr> = self.managed.difference(&wanted).copied().collect();
        let new: Vec<IpAddr> = wanted.difference(&self.managed).copied().collect();
        let done = self.neighbours.forget(&gone).and_then(|()| self.neighbours.manage(&new));
        match done {
            Ok(()) => self.managed = wanted,
            Err(error) => tracing::warn!(%error, "neighbours"),
        }
    }
}
