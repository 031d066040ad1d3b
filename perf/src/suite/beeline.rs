//! Beeline's data plane on a lane's node, in this process: tables from the same services, the backends' pods on another
//! node. No agent, no API: what is measured is the path of packets and sockets.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use datapath::{NodeAddresses, NodeConfig, Options, PodPort, Uplink, XdpChoice};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use service::{NodeFacts, ObjectKey, Tables};

use super::lane::Kind;
use super::topology::{BACKENDS, CLIENT, MACS, NODE, NODE_SEGMENT, PEER_SEGMENT, Place};
use crate::cgroup;
use crate::peers::services::{Protocol, ServicePort};

/// The address of the service that is added and removed again; no other has it.
const ADDED_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 255, 20);
/// Entries of each flow table.
const FLOWS: u32 = 65_536;

/// A running data plane; pins and cgroup go with it.
pub(crate) struct Dataplane {
    // Dropped before its pins are removed.
    inner: Option<datapath::Dataplane>,
    pins: PathBuf,
    cgroup: PathBuf,
    /// From objects in memory to entries in all tables.
    pub(crate) loaded_in: Duration,
    /// What was changed after that, and how long each time took, in seconds.
    pub(crate) changes: Vec<(&'static str, Vec<f64>)>,
}

impl Dataplane {
    /// The cgroup whose sockets are served.
    pub(crate) fn cgroup(&self) -> &Path {
        &self.cgroup
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        drop(self.inner.take());
        for (path, result) in [
            (&self.pins, std::fs::remove_dir_all(&self.pins)),
            (&self.cgroup, std::fs::remove_dir(&self.cgroup)),
        ] {
            if let Err(error) = result {
                eprintln!("perf: {} is left behind: {error}", path.display());
            }
        }
    }
}

/// A prefix.
fn prefix(a: u8, b: u8, length: u8) -> (IpAddr, u8) {
    (IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)), length)
}

/// The device `name` in the namespace of the calling thread.
fn uplink(name: &str, mac: [u8; 6]) -> Result<Uplink> {
    Ok(Uplink { name: name.to_owned(), ifindex: ifindex(name)?, mac, mtu: 1500, veth: true })
}

/// The index of device `name` in the namespace of the calling thread.
pub(super) fn ifindex(name: &str) -> Result<u32> {
    rustix::net::netdevice::name_to_index(
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?,
        name,
    )
    .with_context(|| format!("find device {name}"))
}

/// Loads programs and tables in `node`.
pub(crate) fn start(kind: Kind, tag: &str, node: &Place, ports: &[ServicePort]) -> Result<Dataplane> {
    ensure!(datapath::has_programs(), "this build carries no BPF programs (cargo xtask build)");
    let id = format!("perf-{}-{tag}", std::process::id());
    let mut dataplane = Dataplane {
        inner: None,
        pins: Path::new("/sys/fs/bpf").join(&id),
        cgroup: cgroup::unified()?.join(&id),
        loaded_in: Duration::ZERO,
        changes: Vec::new(),
    };
    std::fs::create_dir_all(&dataplane.pins).with_context(|| format!("make {}", dataplane.pins.display()))?;
    std::fs::create_dir_all(&dataplane.cgroup)
        .with_context(|| format!("make {}", dataplane.cgroup.display()))?;
    let (pins, objects) = (dataplane.pins.clone(), Objects::of(ports)?);
    let (inner, loaded_in, changes) = node.inside(move || open(kind, pins, id, &objects))?;
    (dataplane.inner, dataplane.loaded_in, dataplane.changes) = (Some(inner), loaded_in, changes);
    Ok(dataplane)
}

fn open(
    kind: Kind,
    bpf_dir: PathBuf,
    cgroup: String,
    objects: &Objects,
) -> Result<(datapath::Dataplane, Duration, Changes)> {
    let pod = kind == Kind::BeelinePod;
    let mut uplinks = vec![uplink("backend", MACS[2])?];
    if !pod {
        uplinks.push(uplink("client", MACS[1])?);
    }
    let options = Options {
        bpf_dir,
        cgroup,
        uplinks,
        xdp: if kind == Kind::BeelineXdp { XdpChoice::Native } else { XdpChoice::Off },
        flow_entries: Some(FLOWS),
        ..Options::default()
    };
    // A client outside is in no range of the cluster.
    let (own, cluster) =
        if pod { (prefix(10, 1, 24), prefix(10, 0, 14)) } else { (prefix(10, 3, 24), prefix(10, 2, 15)) };
    let config = NodeConfig {
        pod_cidrs: vec![own],
        cluster_cidrs: vec![cluster],
        service_cidrs: vec![prefix(10, 96, 16)],
        addresses: vec![NODE_SEGMENT.into(), NODE.into()],
        spoof_check: true,
        masquerade: true,
        ..NodeConfig::default()
    };
    let (dataplane, learned) = datapath::Dataplane::open(options, config).context("open the data plane")?;
    let mut tables = Tables::new("node1");
    tables.adopt(learned);
    let nodes: [(u16, Vec<IpAddr>, _); 2] =
        [(1, vec![NODE_SEGMENT.into(), NODE.into()], own), (2, vec![PEER_SEGMENT.into()], prefix(10, 2, 24))];
    let rows: Vec<_> = nodes
        .iter()
        .map(|(number, addresses, cidr)| NodeAddresses {
            number: *number,
            local: *number == 1,
            addresses: addresses.clone(),
            pod_cidrs: vec![*cidr],
            tunnel: None,
        })
        .collect();
    dataplane.set_nodes(&rows)?;
    let facts =
        nodes.map(|(number, addresses, _)| NodeFacts { name: format!("node{number}"), number, addresses });
    dataplane.apply(&tables.set_nodes(&facts, "", dataplane.now_ms()))?;
    dataplane.set_neighbour(PEER_SEGMENT.into(), Some(MACS[3]));
    dataplane.set_neighbour(CLIENT.into(), Some(MACS[0]));
    if pod {
        dataplane.add_pod(&PodPort {
            ifindex: ifindex("client")?,
            ifname: "client".to_owned(),
            host_mac: MACS[1],
            pod_mac: MACS[0],
            addresses: vec![CLIENT.into()],
        })?;
    }
    let loaded_in = fill(&dataplane, &mut tables, objects)?;
    let changes = change(&dataplane, &mut tables, objects)?;
    Ok((dataplane, loaded_in, changes))
}

/// What was changed, and how long each time took, in seconds.
type Changes = Vec<(&'static str, Vec<f64>)>;

/// How often each change is made.
const TIMES: usize = 20;

/// Publishes all services; how long it took.
fn fill(dataplane: &datapath::Dataplane, tables: &mut Tables, objects: &Objects) -> Result<Duration> {
    let started = Instant::now();
    for service in &objects.services {
        tables.service_applied(service, dataplane.now_ms());
    }
    for slice in &objects.slices {
        tables.slice_applied(slice, dataplane.now_ms());
    }
    dataplane.apply(&tables.start(dataplane.now_ms()))?;
    Ok(started.elapsed())
}

/// Changes single things again and again, from the object to the tables' entries.
fn change(dataplane: &datapath::Dataplane, tables: &mut Tables, objects: &Objects) -> Result<Changes> {
    let now = || dataplane.now_ms();
    let (mut added, mut removed, mut less) = (Vec::new(), Vec::new(), Vec::new());
    let (service, slice) = &objects.added;
    let key = |meta: &ObjectMeta| {
        ObjectKey::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    };
    let (service_key, slice_key) = (key(&service.metadata), key(&slice.metadata));
    for _ in 0..TIMES {
        let started = Instant::now();
        dataplane.apply(&tables.service_applied(service, now()))?;
        dataplane.apply(&tables.slice_applied(slice, now()))?;
        added.push(started.elapsed().as_secs_f64());
        let started = Instant::now();
        dataplane.apply(&tables.slice_deleted(&slice_key, now()))?;
        dataplane.apply(&tables.service_deleted(&service_key, now()))?;
        removed.push(started.elapsed().as_secs_f64());
        let started = Instant::now();
        dataplane.apply(&tables.slice_applied(&objects.changed, now()))?;
        less.push(started.elapsed().as_secs_f64());
        dataplane.apply(&tables.slice_applied(&objects.slices[0], now()))?;
    }
    Ok(vec![("one service added", added), ("one service removed", removed), ("one endpoint less", less)])
}

/// The services as the API has them.
struct Objects {
    services: Vec<Service>,
    slices: Vec<EndpointSlice>,
    /// The first slice with an endpoint less.
    changed: EndpointSlice,
    /// One more service.
    added: (Service, EndpointSlice),
}

impl Objects {
    fn of(ports: &[ServicePort]) -> Result<Self> {
        let mut groups: Vec<&[ServicePort]> = Vec::new();
        for group in
            ports.chunk_by(|one, other| one.service == other.service && one.namespace == other.namespace)
        {
            groups.push(group);
        }
        let added = [ServicePort {
            namespace: "perf".to_owned(),
            service: "added".to_owned(),
            port_name: "p80".to_owned(),
            protocol: Protocol::Tcp,
            cluster_ip: ADDED_IP,
            port: 80,
            node_port: None,
            endpoints: (1..=3).map(|last| (Ipv4Addr::new(10, 3, 255, last), 80)).collect(),
        }];
        let services = groups.iter().map(|group| serde_json::from_value(service(group)));
        let slices = groups.iter().map(|group| serde_json::from_value(slice(group, 0)));
        let first = groups.first().ok_or_else(|| anyhow!("no services"))?;
        Ok(Self {
            services: services.collect::<Result<_, _>>()?,
            slices: slices.collect::<Result<_, _>>()?,
            // The service under test keeps its endpoints.
            changed: serde_json::from_value(slice(first, usize::from(groups.len() > 1)))?,
            added: (serde_json::from_value(service(&added))?, serde_json::from_value(slice(&added, 0))?),
        })
    }
}

fn service(group: &[ServicePort]) -> Value {
    let first = &group[0];
    let ports: Vec<_> = group
        .iter()
        .map(|port| {
            let mut object = json!({
                "name": port.port_name, "port": port.port, "protocol": port.protocol.as_str().to_uppercase(),
            });
            if let Some(node_port) = port.node_port {
                object["nodePort"] = node_port.into();
            }
            object
        })
        .collect();
    let kind = if first.node_port.is_some() { "NodePort" } else { "ClusterIP" };
    json!({
        "metadata": {"namespace": first.namespace, "name": first.service},
        "spec": {"type": kind, "clusterIP": first.cluster_ip, "clusterIPs": [first.cluster_ip], "ports": ports},
    })
}

/// The slice of a service, without so many of its endpoints.
fn slice(group: &[ServicePort], without: usize) -> Value {
    let first = &group[0];
    // The backends under test run on the second node; those of the others run nowhere.
    let node =
        if first.endpoints.iter().any(|(address, _)| BACKENDS.contains(address)) { "node2" } else { "node3" };
    let endpoints: Vec<_> = first.endpoints[without.min(first.endpoints.len())..]
        .iter()
        .map(|(address, _)| json!({"addresses": [address], "nodeName": node, "conditions": {"ready": true}}))
        .collect();
    let ports: Vec<_> = group
        .iter()
        .map(|port| {
            let number = port.endpoints.first().map_or(port.port, |(_, number)| *number);
            json!({"name": port.port_name, "port": number, "protocol": port.protocol.as_str().to_uppercase()})
        })
        .collect();
    json!({
        "metadata": {
            "namespace": first.namespace, "name": format!("{}-1", first.service),
            "labels": {"kubernetes.io/service-name": first.service},
        },
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    })
}
