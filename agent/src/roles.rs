//! The roles `run` and `proxy`: what is started, in which order, with what.
//!
//! Order: tables and programs first (they adopt what an earlier agent left), then the watches that keep them, then the kubelet.

use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use datapath::{Dataplane, NodeConfig, Options, Uplink};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kubelet::KubeletConfig;
use network::{PodNetwork, Unwired, Wiring};
use service::Learned;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::alarms::{self, Herald};
use crate::cluster::{Cluster, FromPods};
use crate::config::{DataPlane, Proxy, Run, Tunnels};
use crate::dead_sockets::DeadSockets;
use crate::health::{self, Port};
use crate::health_checks::HealthChecks;
use crate::pods::{Pods, Served, pair};
use crate::progress::Progress;
use crate::segment::{ForeignNetwork, OwnNetwork, Segment, existing_tunnel};
use crate::state;
use crate::unserved;

/// When idle flows are looked for again after a failure.
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
    match flags.data_plane {
        DataPlane::On => run_served(flags).await,
        DataPlane::Off => run_unserved(flags).await,
    }
}

/// A node whose services another proxy serves.
async fn run_unserved(flags: Run) -> Result<()> {
    unserved::ensure_free(&flags.proxy.bpf_dir)?;
    let main = uplinks(&flags.proxy)?.into_iter().next().context("--uplink")?;
    let network = pod_network(&flags, &main, Arc::new(Unwired))?;
    let segment = OwnNetwork::open(&main.name, main.mtu, tunnel_end(&flags), None, network.clone())
        .context("routes and neighbours")?;
    let (told, pods) = unbounded_channel();
    let kubelets_network = Pods::new(network, None, flags.root_dir.clone(), told);
    let client = client(&flags.proxy.kubeconfig).await?;
    let following = unserved::follow(&flags.proxy.node_name, client.clone(), segment, pods);
    tracing::info!(node = %flags.proxy.node_name, uplink = %main.name, "node agent started; services are another proxy's");
    with_kubelet(&flags, client, kubelets_network, following).await
}

/// The kubelet, beside what follows the cluster, until a signal.
async fn with_kubelet(
    flags: &Run,
    client: kube::Client,
    network: Pods,
    following: impl Future<Output = Result<()>>,
) -> Result<()> {
    let stop = CancellationToken::new();
    let kubelet = kubelet::run(kubelet_config(flags), client, Arc::new(network), stop.clone());
    tokio::select! {
        result = following => result,
        result = kubelet => result.context("kubelet"),
        result = ended() => {
            stop.cancel();
            result
        }
    }
}

/// The networks of this node's pods, with the podCIDRs of its last run.
fn pod_network(flags: &Run, uplink: &Uplink, wiring: Arc<dyn Wiring>) -> Result<PodNetwork> {
    let config = network::Config { state_dir: flags.root_dir.join("network"), uplink: uplink.name.clone() };
    let network = PodNetwork::new(config, wiring).context("pod network")?;
    network.set_pod_cidrs(&state::load(&flags.root_dir)).context("pod network")?;
    Ok(network)
}

/// A node that Beeline's data plane serves.
async fn run_served(flags: Run) -> Result<()> {
    let known_cidrs = state::load(&flags.root_dir);
    let node = NodeConfig {
        pod_cidrs: known_cidrs.iter().map(pair).collect(),
        spoof_check: true,
        masquerade: true,
        vxlan: existing_tunnel(),
        ..node_config(&flags.proxy)
    };
    let uplinks = uplinks(&flags.proxy)?;
    let main = uplinks.first().cloned().context("--uplink")?;
    let (dataplane, learned) = open(&flags.proxy, node, uplinks.clone())?;
    let network = pod_network(&flags, &main, Arc::new(Served(Arc::clone(&dataplane))))?;
    let (told, pods) = unbounded_channel();
    let segment =
        OwnNetwork::open(&main.name, main.mtu, tunnel_end(&flags), Some(&dataplane), network.clone())
            .context("routes and neighbours")?;
    let kubelets_network = Pods::new(network, Some(Arc::clone(&dataplane)), flags.root_dir.clone(), told);
    let client = client(&flags.proxy.kubeconfig).await?;
    let following =
        follow(&flags.proxy, client.clone(), dataplane, learned, Box::new(segment), Some(pods), &uplinks);
    tracing::info!(node = %flags.proxy.node_name, uplink = %main.name, "node agent started");
    with_kubelet(&flags, client, kubelets_network, following).await
}

/// The data plane alone.
pub async fn proxy(flags: Proxy) -> Result<()> {
    let uplinks = uplinks(&flags)?;
    let (dataplane, learned) = open(&flags, node_config(&flags), uplinks.clone())?;
    let client = client(&flags.kubeconfig).await?;
    tracing::info!(node = %flags.node_name, "data plane started");
    let following = follow(&flags, client, dataplane, learned, Box::new(ForeignNetwork), None, &uplinks);
    tokio::select! {
        result = following => result,
        result = ended() => result,
    }
}

/// Where tunnels to this node end.
fn tunnel_end(flags: &Run) -> Option<std::net::Ipv4Addr> {
    let addresses = flags.proxy.node_ip.iter().filter(|_| flags.tunnels == Tunnels::Auto);
    addresses.copied().find_map(|address| match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    })
}

fn uplinks(flags: &Proxy) -> Result<Vec<Uplink>> {
    let find = |name: &String| -> Result<Uplink> {
        let device = network::device::find(name).context("uplink")?;
        Ok(Uplink {
            name: name.clone(),
            ifindex: device.index,
            mac: device.mac,
            mtu: device.mtu,
            veth: device.veth,
        })
    };
    flags.uplink.iter().map(find).collect()
}

fn open(flags: &Proxy, node: NodeConfig, uplinks: Vec<Uplink>) -> Result<(Arc<Dataplane>, Learned)> {
    let options = Options {
        bpf_dir: flags.bpf_dir.clone(),
        cgroup: flags.cgroup_root.clone(),
        uplinks,
        xdp: flags.xdp.into(),
        node_port_addresses: flags.node_port_addresses().map_err(anyhow::Error::msg)?,
        flow_entries: flags.flow_entries,
        flow_entries_limit: flags.flow_entries_limit,
        snat_ports: flags.snat_ports.clone(),
        layout_salt: flags.layout_salt,
    };
    let (dataplane, learned) = Dataplane::open(options, node).context("data plane")?;
    tracing::info!(
        xdp = dataplane.xdp().unwrap_or("off"),
        services = learned.services.len(),
        "data plane is attached"
    );
    Ok((Arc::new(dataplane), learned))
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
    pods: Option<UnboundedReceiver<FromPods>>,
    uplinks: &[Uplink],
) -> Result<()> {
    let progress = Arc::new(Progress::default());
    let serve = |address, port| health::serve(address, port, Arc::clone(&progress), Arc::clone(&dataplane));
    let health = serve(flags.healthz_bind_address, Port::Health);
    let metrics = serve(flags.metrics_bind_address, Port::Metrics);
    for absent in dataplane.absent() {
        progress.missing(absent.program, &absent.reason);
    }
    let recorder = runtime::Recorder::new(client.clone(), "beeline-agent", Some(flags.node_name.clone()));
    let herald = Herald::new(recorder.clone(), &flags.node_name);
    let collector = collect_flows(herald.clone(), Arc::clone(&dataplane), Arc::clone(&progress));
    let alarms = alarms::watch(herald, Arc::clone(&dataplane), Arc::clone(&progress));
    let dead_sockets =
        DeadSockets::start(Arc::clone(&dataplane), Arc::clone(&progress)).context("starting a thread")?;
    let cluster = Cluster {
        node_name: flags.node_name.clone(),
        node_ips: flags.node_ip.clone(),
        uplinks: uplinks.iter().map(|uplink| uplink.ifindex).collect(),
        node_ports: flags.node_port_addresses().map_err(anyhow::Error::msg)?,
        dataplane: Arc::clone(&dataplane),
        segment,
        progress: Arc::clone(&progress),
        pods,
        checks: HealthChecks::new(Arc::clone(&progress), Some(recorder)),
        dead_sockets,
    };
    tokio::select! {
        () = cluster.follow(client, learned) => anyhow::bail!("the watches ended"),
        () = collector => anyhow::bail!("the flow collector ended"),
        () = alarms => anyhow::bail!("the watch over drops ended"),
        result = health => result.with_context(|| format!("health on {}", flags.healthz_bind_address)),
        result = metrics => result.with_context(|| format!("metrics on {}", flags.metrics_bind_address)),
    }
}

/// Deletes idle flows and lets the flow tables grow, once the tables follow the API. The data plane says when the next pass is worth while.
async fn collect_flows(herald: Herald, dataplane: Arc<Dataplane>, progress: Arc<Progress>) {
    while !progress.is_synced() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    loop {
        let mut pause = FLOW_INTERVAL;
        let collecting = Arc::clone(&dataplane);
        match tokio::task::spawn_blocking(move || collecting.collect_flows()).await {
            Ok(Ok(count)) => {
                pause = count.pause;
                progress.flows(count);
                herald.pass_on(dataplane.events(), &progress);
            }
            Ok(Err(error)) => tracing::warn!(%error, "idle flows"),
            Err(error) => tracing::error!(%error, "idle flows"),
        }
        tokio::time::sleep(pause).await;
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
