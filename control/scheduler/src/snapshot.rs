//! Nodes with what runs on them, as the scheduler believes it to be: what the API says, plus pods that were given a node a
//! moment ago ("assumed") and whose binding has not come back yet. It decides nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::resources::{self, Resources};

/// A port that a pod takes on its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The address it listens on; `0.0.0.0` is all.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be had on one node.
    pub fn clashes(&self, other: &Self) -> bool {
        const ANY: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == ANY || other.ip == ANY)
    }
}

/// A pod with what the scheduler computes about it once.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// The pod.
    pub pod: Arc<Pod>,
    /// What it asks for.
    pub requests: Resources,
    /// What it counts as in scores.
    pub scored: Resources,
    /// Ports it takes on its node.
    pub ports: Vec<HostPort>,
    /// Uid of the object that controls it.
    pub controller: Option<String>,
}

impl PodInfo {
    /// Computes what the scheduler needs of `pod`.
    pub fn new(pod: Arc<Pod>) -> Self {
        let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
        let controller = owners.iter().find(|it| it.controller == Some(true)).map(|it| it.uid.clone());
        Self {
            requests: resources::of_pod(&pod),
            scored: resources::scored_of_pod(&pod),
            ports: host_ports(&pod),
            controller,
            pod,
        }
    }

    /// The pod's uid.
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The pod's namespace.
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The node that the API says the pod is bound to, empty if none.
    pub fn node_name(&self) -> &str {
        self.pod.spec.as_ref().and_then(|it| it.node_name.as_deref()).unwrap_or_default()
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars =
        spec.init_containers.iter().flatten().filter(|it| it.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|it| it.ports.iter().flatten());
    ports
        .filter_map(|it| {
            let ip = it.host_ip.as_deref().filter(|it| !it.is_empty() && *it != "::").unwrap_or("0.0.0.0");
            let protocol = it.protocol.as_deref().unwrap_or("TCP");
            Some(HostPort {
                ip: ip.into(),
                protocol: protocol.into(),
                port: it.host_port.filter(|it| *it > 0)?,
            })
        })
        .collect()
}

/// A node and the sum of its pods.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// The node; none while only its pods are known.
    pub node: Option<Arc<Node>>,
    /// What pods may use.
    pub allocatable: Resources,
    /// How many pods may run.
    pub max_pods: i64,
    /// What its pods ask for.
    pub requested: Resources,
    /// What its pods count as in scores.
    pub scored: Resources,
    /// Its pods by uid.
    pub pods: BTreeMap<String, PodInfo>,
}

impl NodeInfo {
    /// The node's labels.
    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.node.as_ref()?.metadata.labels.as_ref()
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        self.node.as_ref().and_then(|it| it.metadata.name.as_deref()).unwrap_or_default()
    }

    /// Replaces what is known of the node itself.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let allocatable =
            node.status.as_ref().and_then(|it| it.allocatable.as_ref().or(it.capacity.as_ref()));
        self.allocatable = Resources::of(allocatable);
        self.max_pods = allocatable.and_then(|it| it.get("pods")).map_or(0, crate::quantity::units);
        self.node = Some(node);
    }

    /// Counts a pod in.
    pub fn add_pod(&mut self, pod: PodInfo) {
        self.remove_pod(pod.uid());
        self.requested.add(&pod.requests, 1);
        self.scored.add(&pod.scored, 1);
        self.pods.insert(pod.uid().to_owned(), pod);
    }

    /// Counts a pod out.
    pub fn remove_pod(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid) {
            self.requested.add(&pod.requests, -1);
            self.scored.add(&pod.scored, -1);
        }
    }
}

/// All nodes, with bound and assumed pods.
#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, NodeInfo>,
    /// Where each pod is counted, and whether that is only assumed.
    places: HashMap<String, (String, bool)>,
}

impl Snapshot {
    /// The nodes that exist, in order of name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values().filter(|it| it.node.is_some())
    }

    /// Takes in a node that was added or changed.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        self.nodes.entry(name).or_default().set_node(node);
    }

    /// Forgets a node; pods that are bound to it stay counted, should it come back.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.get_mut(name) {
            info.node = None;
            if info.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// Counts `pod` on `node`; `assumed` until the API confirms it.
    pub fn place(&mut self, pod: PodInfo, node: &str, assumed: bool) {
        let uid = pod.uid().to_owned();
        self.remove_pod(&uid);
        self.nodes.entry(node.to_owned()).or_default().add_pod(pod);
        self.places.insert(uid, (node.to_owned(), assumed));
    }

    /// Counts a pod out wherever it is.
    pub fn remove_pod(&mut self, uid: &str) {
        if let Some((node, _)) = self.places.remove(uid)
            && let Some(info) = self.nodes.get_mut(&node)
        {
            info.remove_pod(uid);
            if info.node.is_none() && info.pods.is_empty() {
                self.nodes.remove(&node);
            }
        }
    }

    /// Takes back an assumption that the API refused. A pod that the API has confirmed stays.
    pub fn forget(&mut self, uid: &str) {
        if self.is_assumed(uid) {
            self.remove_pod(uid);
        }
    }

    /// Whether the pod was given a node that the API has not confirmed.
    pub fn is_assumed(&self, uid: &str) -> bool {
        self.places.get(uid).is_some_and(|(_, assumed)| *assumed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_clash_on_the_same_address_or_on_all() {
        let port =
            |ip: &str, protocol: &str, port| HostPort { ip: ip.into(), protocol: protocol.into(), port };
        let taken = port("127.0.0.1", "TCP", 80);
        for (wanted, want) in [
            (port("127.0.0.1", "TCP", 80), true),
            (port("0.0.0.0", "TCP", 80), true),
            (port("10.0.0.1", "TCP", 80), false),
            (port("127.0.0.1", "UDP", 80), false),
            (port("127.0.0.1", "TCP", 81), false),
        ] {
            assert_eq!(wanted.clashes(&taken), want, "{wanted:?}");
        }
    }

    #[test]
    fn pods_of_a_node_that_comes_back_are_counted_again() {
        let (mut snapshot, mut node, mut pod) = (Snapshot::default(), Node::default(), Pod::default());
        node.metadata.name = Some("n1".into());
        pod.metadata.uid = Some("a".into());
        let node = Arc::new(node);
        let counted = |it: &Snapshot| it.nodes().map(|it| it.pods.len()).collect::<Vec<usize>>();
        snapshot.place(PodInfo::new(Arc::new(pod)), "n1", false);
        assert!(counted(&snapshot).is_empty());
        snapshot.set_node(node.clone());
        assert_eq!(counted(&snapshot), [1]);
        snapshot.remove_node("n1");
        assert!(counted(&snapshot).is_empty());
        snapshot.set_node(node);
        assert_eq!(counted(&snapshot), [1]);
        snapshot.remove_pod("a");
        assert_eq!(counted(&snapshot), [0]);
    }
}
