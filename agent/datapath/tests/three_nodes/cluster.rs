//! Three nodes with their pods, backends and clients, and the orders that all agents get.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::agent::{Agent, Mode};
use crate::client::Client;
use crate::fabric::{Fabric, NODES, Plan};
use crate::process::Place;
use crate::server::{PORT, Server};

/// Something that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// The backend pod of this node; the third node has none.
    Pod(usize),
    /// A process on this node's own network.
    Host(usize),
    /// Outside the cluster, where the client is.
    Outer,
}

/// All backends.
pub const BACKENDS: [Backend; 5] =
    [Backend::Pod(0), Backend::Pod(1), Backend::Host(0), Backend::Host(1), Backend::Outer];

impl Backend {
    pub fn name(self) -> String {
        match self {
            Self::Pod(node) => format!("pod{node}"),
            Self::Host(node) => format!("host{node}"),
            Self::Outer => "outer".to_owned(),
        }
    }

    /// The node that it is on.
    pub fn node(self) -> Option<usize> {
        match self {
            Self::Pod(node) | Self::Host(node) => Some(node),
            Self::Outer => None,
        }
    }
}

/// Someone who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The client pod of this node: the first and the third have one.
    Pod(usize),
    /// A backend pod.
    Backend(usize),
    /// A process on this node's own network.
    Host(usize),
    /// A machine outside the cluster.
    Outside,
}

/// What of a client the data plane meets first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Its socket calls: the process is in the node's cgroup.
    Socket,
    /// Its packets only.
    Packet,
}

/// All clients.
pub const CLIENTS: [(Who, Hook); 9] = [
    (Who::Pod(0), Hook::Socket),
    (Who::Pod(0), Hook::Packet),
    (Who::Pod(2), Hook::Socket),
    (Who::Pod(2), Hook::Packet),
    (Who::Backend(0), Hook::Socket),
    (Who::Backend(0), Hook::Packet),
    (Who::Host(0), Hook::Socket),
    (Who::Host(2), Hook::Socket),
    (Who::Outside, Hook::Packet),
];

/// Where a client's source ports begin: those of two clients in one namespace differ, and a client outside goes from ports that
/// translation keeps (below 30000) to ports that it must change. Those of the nodes' own processes are above, as ephemeral ports are.
fn first_port(who: Who, hook: Hook) -> u16 {
    match (who, hook) {
        (Who::Outside, _) => 29_600,
        (Who::Host(_), _) => 40_000,
        (_, Hook::Socket) => 12_000,
        (_, Hook::Packet) => 22_000,
    }
}

/// A pod: its namespace and its addresses, IPv4 first.
pub struct Pod {
    pub namespace: String,
    pub addresses: [IpAddr; 2],
}

/// The running cluster.
pub struct Cluster {
    pub agents: Vec<Agent>,
    /// By node.
    backends: BTreeMap<usize, Pod>,
    /// By node.
    pods: BTreeMap<usize, Pod>,
    pub clients: BTreeMap<(Who, Hook), Client>,
    _servers: Vec<Server>,
    // Last: namespaces go when nobody is in them any more.
    pub fabric: Fabric,
}

impl Cluster {
    pub fn start(plan: Plan, mode: &Mode) -> Self {
        let fabric = Fabric::new(plan);
        let agents: Vec<Agent> = (0..NODES).map(|node| Agent::start(&fabric, node, mode)).collect();
        let mut agents: Vec<Agent> = agents.into_iter().map(Agent::ready).collect();
        let mut pod = |prefix: &str, node: usize| {
            let namespace = fabric.namespace(&format!("{prefix}{node}"));
            let addresses = agents[node].add_pod(&format!("uid-{prefix}{node}"), &namespace);
            (node, Pod { namespace, addresses })
        };
        let backends = BTreeMap::from([pod("b", 0), pod("b", 1)]);
        let pods = BTreeMap::from([pod("c", 0), pod("c", 2)]);
        let (clients, servers) = (BTreeMap::new(), Vec::new());
        let mut cluster = Self { agents, backends, pods, clients, _servers: servers, fabric };
        cluster._servers =
            BACKENDS.map(|backend| Server::start(&cluster.server_place(backend), &backend.name())).into();
        cluster.clients = CLIENTS
            .map(|(who, hook)| ((who, hook), Client::start(&cluster.place(who, hook), first_port(who, hook))))
            .into();
        for (range4, range6, node) in
            [("203.0.113.0/24", "2001:db8:7::/64", 0), ("198.51.100.0/24", "2001:db8:8::/64", 2)]
        {
            cluster.route_from_outside([range4, range6], node);
        }
        cluster
    }

    /// Outside, the way to addresses that no machine has leads by this node.
    pub fn route_from_outside(&self, ranges: [&str; 2], node: usize) {
        let addresses = [self.fabric.address4(node), self.fabric.address6(node)];
        for (range, address) in ranges.into_iter().zip(addresses) {
            self.fabric.route_from_client(range, node, &address);
        }
    }

    fn server_place(&self, backend: Backend) -> Place {
        Place::unserved(match backend {
            Backend::Pod(node) => self.backends[&node].namespace.clone(),
            Backend::Host(node) => self.fabric.node(node),
            Backend::Outer => self.fabric.client(),
        })
    }

    /// Where a client's process runs.
    pub fn place(&self, who: Who, hook: Hook) -> Place {
        let (namespace, node) = match who {
            Who::Pod(node) => (self.pods[&node].namespace.clone(), node),
            Who::Backend(node) => (self.backends[&node].namespace.clone(), node),
            Who::Host(node) => (self.fabric.node(node), node),
            Who::Outside => (self.fabric.client(), 0),
        };
        Place { namespace, cgroup: (hook == Hook::Socket).then(|| self.fabric.cgroup(node)) }
    }

    /// The uids of a node's pods.
    fn pods_of(&self, node: usize) -> Vec<String> {
        let uid = |prefix: &str| format!("uid-{prefix}{node}");
        let backend = self.backends.contains_key(&node).then(|| uid("b"));
        backend.into_iter().chain(self.pods.contains_key(&node).then(|| uid("c"))).collect()
    }

    /// The own address of a client, in IPv4 or IPv6.
    pub fn address_of(&self, who: Who, six: bool) -> IpAddr {
        match who {
            Who::Pod(node) => self.pods[&node].addresses[usize::from(six)],
            Who::Backend(node) => self.backends[&node].addresses[usize::from(six)],
            Who::Host(node) => self.node_address(node, six),
            Who::Outside => self.node_address(NODES, six),
        }
    }

    /// The address of a backend.
    pub fn backend_address(&self, backend: Backend, six: bool) -> IpAddr {
        match backend {
            Backend::Pod(node) => self.backends[&node].addresses[usize::from(six)],
            Backend::Host(node) => self.node_address(node, six),
            Backend::Outer => self.node_address(NODES, six),
        }
    }

    /// A node's address; with [`NODES`] the client's.
    pub fn node_address(&self, node: usize, six: bool) -> IpAddr {
        let text = if six { self.fabric.address6(node) } else { self.fabric.address4(node) };
        text.parse().unwrap()
    }

    /// Gives an order to every agent.
    #[track_caller]
    pub fn tell(&mut self, order: &str) {
        for agent in &mut self.agents {
            agent.tell(order);
        }
    }

    /// An agent in this mode for a node whose last one is dead; it has the tables and knows nothing else.
    pub fn start_agent(&mut self, node: usize, mode: &Mode) {
        self.agents[node] = Agent::start(&self.fabric, node, mode).ready();
    }

    /// Tells a node's agent about the pods that it finds there.
    pub fn recover(&mut self, node: usize) {
        let pods = self.pods_of(node).join(" ");
        self.agents[node].tell(&format!("recover {pods}"));
    }

    /// Publishes these backends, port 8080 of each, as the endpoints of a Service.
    #[track_caller]
    pub fn publish(&mut self, service: &str, backends: &[Backend]) {
        self.publish_with(service, backends, &json!({}));
    }

    /// [`Cluster::publish`], with these conditions of every endpoint.
    #[track_caller]
    pub fn publish_with(&mut self, service: &str, backends: &[Backend], conditions: &Value) {
        for (family, six) in [("IPv4", false), ("IPv6", true)] {
            let endpoint = |backend: &Backend| {
                let address = self.backend_address(*backend, six);
                let mut endpoint = json!({"addresses": [address], "conditions": conditions});
                if let Some(node) = backend.node() {
                    endpoint["nodeName"] = Value::from(format!("node{node}"));
                }
                endpoint
            };
            let endpoints: Vec<Value> = backends.iter().map(endpoint).collect();
            let port = |name: &str, protocol: &str| json!({"name": name, "protocol": protocol, "port": PORT});
            let slice = json!({
                "metadata": {
                    "namespace": "default", "name": format!("{service}-{family}"),
                    "labels": {"kubernetes.io/service-name": service}
                },
                "addressType": family,
                "ports": [port("tcp", "TCP"), port("udp", "UDP")],
                "endpoints": endpoints
            });
            self.tell(&format!("slice {slice}"));
        }
    }

    /// What all nodes have dropped, by reason.
    pub fn drops(&mut self) -> String {
        self.agents.iter_mut().map(|agent| agent.tell("drops")).collect::<Vec<_>>().join("| ")
    }
}
