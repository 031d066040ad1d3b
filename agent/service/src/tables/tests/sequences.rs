//! Random sequences of events: what stands in the tables at the end is what a fresh agent would publish from the last state of the
//! objects, but for the numbers; and when everything is gone, nothing is left.

use proptest::prelude::*;

use super::*;
use crate::{HostPort, Protocol};

/// One event; the small numbers choose an object and what it becomes.
#[derive(Debug, Clone)]
enum Event {
    Service(u8, u8),
    ServiceDeleted(u8),
    /// Slice, owner, members as bits, state.
    Slice(u8, u8, u8, u8),
    SliceDeleted(u8),
    Nodes(u8),
    HostPorts(u8, u8),
    Wait,
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..4_u8, any::<u8>()).prop_map(|(name, form)| Event::Service(name, form)),
        1 => (0..4_u8).prop_map(Event::ServiceDeleted),
        6 => (0..6_u8, 0..4_u8, any::<u8>(), any::<u8>()).prop_map(|(name, owner, members, state)| Event::Slice(name, owner, members, state)),
        1 => (0..6_u8).prop_map(Event::SliceDeleted),
        1 => (0..4_u8).prop_map(Event::Nodes),
        2 => (0..3_u8, 0..4_u8).prop_map(|(pod, form)| Event::HostPorts(pod, form)),
        1 => Just(Event::Wait),
        1 => Just(Event::Restart),
    ]
}

/// A Service in one of many forms: bits of `form` choose. Addresses and ports are its own, but for an external address that all share.
fn service_object(name: u8, form: u8) -> Value {
    let bit = |bit: u8| form >> bit & 1 == 1;
    let mut ports = vec![json!({"name": if bit(0) { "http" } else { "web" }, "port": 80 + u16::from(name)})];
    if bit(1) {
        ports[0]["nodePort"] = json!(30_080 + u16::from(name));
        ports.push(json!({"name": "dns", "protocol": "UDP", "port": 53 + u16::from(name)}));
    }
    let mut spec = json!({"type": "ClusterIP", "clusterIP": format!("10.96.0.{name}"), "ports": ports});
    if bit(2) {
        spec["clusterIPs"] = json!([format!("10.96.0.{name}"), format!("fd00:10:96::{name}")]);
        spec["internalTrafficPolicy"] = json!("Local");
    }
    if bit(3) {
        spec["externalIPs"] = json!(["203.0.113.7", "172.30.0.12"]);
    }
    let mut object = json!({"metadata": {"namespace": "ns", "name": format!("s{name}")}, "spec": spec});
    if bit(4) {
        object["spec"]["type"] = json!("LoadBalancer");
        object["spec"]["externalTrafficPolicy"] = json!("Local");
        object["spec"]["healthCheckNodePort"] = json!(32_000 + u16::from(name));
        object["status"] = json!({"loadBalancer": {"ingress": [{"ip": format!("198.51.100.{name}")}]}});
        let ranges = if bit(5) { json!(["192.0.2.0/24", "fd00::/8"]) } else { json!(["10.0.0.0/8"]) };
        object["spec"]["loadBalancerSourceRanges"] = ranges;
    }
    match form >> 6 {
        1 => object["metadata"]["annotations"] = json!({"beeline.io/algorithm": "maglev"}),
        2 => object["spec"] = json!({"type": "ExternalName", "externalName": "x"}),
        3 => object["metadata"]["labels"] = json!({"service.kubernetes.io/headless": ""}),
        _ => {}
    }
    object
}

fn slice_object(name: u8, owner: u8, members: u8, state: u8) -> EndpointSlice {
    let six = state & 1 == 1;
    let endpoint = |number: u8| {
        let ready = state >> 1 & 3 != number & 3;
        let node = ["here", "there", "third"][usize::from(number % 3)];
        json!({
            "addresses": [if six { format!("fd00:10:244::{number}") } else { format!("10.244.0.{number}") }],
            "nodeName": node,
            "conditions": {"ready": ready, "serving": true, "terminating": !ready},
            "hints": {"forZones": [{"name": if number.is_multiple_of(2) { "a" } else { "b" }}]}
        })
    };
    let endpoints = (0..8).filter(|number| members >> number & 1 == 1).map(|number| endpoint(number + 1));
    let family = if six { "IPv6" } else { "IPv4" };
    let mut object = slice(&format!("slice{name}"), &format!("s{owner}"), family, 8080, endpoints.collect());
    let target = 8080 + u16::from(state >> 3 & 1);
    object.ports = serde_json::from_value(json!([
        {"name": "http", "port": target}, {"name": "web", "port": target}, {"name": "dns", "protocol": "UDP", "port": 53}
    ]))
    .unwrap();
    let weight = ["1", "2", "3", "16"][usize::from(state >> 4 & 3)];
    object.metadata.annotations = Some([("beeline.io/weight".to_owned(), weight.to_owned())].into());
    object
}

fn nodes(form: u8) -> (Vec<NodeFacts>, &'static str) {
    let node = |name: &str, number: u16, address: &str| NodeFacts {
        name: name.into(),
        number,
        addresses: vec![address.parse().unwrap()],
    };
    let mut nodes = vec![node("here", 1 + u16::from(form), "172.30.0.11")];
    if form != 1 {
        nodes.push(node("there", 7, "172.30.0.12"));
    }
    if form == 2 {
        nodes.push(node("third", 9, "10.244.0.3"));
    }
    (nodes, ["", "a", "b", "c"][usize::from(form)])
}

/// Ports of their own for each pod, one of them beside a node port's number.
fn host_ports(pod: u8, form: u8) -> Vec<HostPort> {
    let port = |host_ip: Option<&str>| HostPort {
        host_ip: host_ip.map(|address| address.parse().unwrap()),
        port: 8080 + u16::from(pod),
        protocol: if form == 3 { Protocol::Udp } else { Protocol::Tcp },
        container_port: 80,
        pod_ips: vec![[10, 244, 0, 100 + pod].into()],
    };
    match form {
        0 => Vec::new(),
        1 => vec![port(None)],
        _ => vec![port(Some("0.0.0.0")), port(Some("172.30.0.11"))],
    }
}

/// The objects of the cluster as the API would list them.
#[derive(Default, Clone)]
struct World {
    services: BTreeMap<u8, Value>,
    slices: BTreeMap<u8, EndpointSlice>,
    nodes: u8,
    host_ports: BTreeMap<u8, Vec<HostPort>>,
}

impl World {
    /// A started agent that has seen nothing but this state, on tables that hold `before`.
    fn agent(&self, before: Model) -> Fixture {
        let mut fixture = Fixture { tables: Tables::new("here"), model: Model::default(), now: 0 };
        fixture.tables.adopt(before.learned());
        fixture.model = Model { adopted: true, problems: Vec::new(), health: BTreeMap::new(), ..before };
        let (facts, zone) = nodes(self.nodes);
        fixture.tables.set_nodes(&facts, zone, 0);
        for object in self.slices.values() {
            fixture.tables.slice_applied(object, 0);
        }
        for object in self.services.values() {
            fixture.tables.service_applied(&serde_json::from_value(object.clone()).unwrap(), 0);
        }
        for (pod, ports) in &self.host_ports {
            fixture.tables.set_host_ports(pod_key(*pod), ports.clone(), 0);
        }
        let diff = fixture.tables.start(0);
        fixture.take(diff);
        fixture.model.adopted = false;
        fixture
    }

    fn apply(&mut self, event: &Event, fixture: &mut Fixture) {
        let now = fixture.now;
        let tables = &mut fixture.tables;
        let diff = match event {
            Event::Service(name, form) => {
                let object = service_object(*name, *form);
                let diff = tables.service_applied(&serde_json::from_value(object.clone()).unwrap(), now);
                self.services.insert(*name, object);
                diff
            }
            Event::ServiceDeleted(name) => {
                self.services.remove(name);
                tables.service_deleted(&ObjectKey::new("ns", format!("s{name}")), now)
            }
            Event::Slice(name, owner, members, state) => {
                let object = slice_object(*name, *owner, *members, *state);
                let diff = tables.slice_applied(&object, now);
                self.slices.insert(*name, object);
                diff
            }
            Event::SliceDeleted(name) => {
                self.slices.remove(name);
                tables.slice_deleted(&ObjectKey::new("ns", format!("slice{name}")), now)
            }
            Event::Nodes(form) => {
                self.nodes = *form;
                let (facts, zone) = nodes(*form);
                tables.set_nodes(&facts, zone, now)
            }
            Event::HostPorts(pod, form) => {
                let ports = host_ports(*pod, *form);
                self.host_ports.insert(*pod, ports.clone());
                tables.set_host_ports(pod_key(*pod), ports, now)
            }
            Event::Wait => {
                fixture.now += abi::limits::QUARANTINE_MS;
                return;
            }
            Event::Restart => {
                *fixture = self.agent(fixture.model.clone());
                return;
            }
        };
        fixture.take(diff);
    }
}

fn pod_key(pod: u8) -> ObjectKey {
    ObjectKey::new("ns", format!("pod{pod}"))
}

/// All that packets see, without numbers.
fn text(model: &Model) -> String {
    let model = Model { problems: Vec::new(), ..model.clone() };
    format!("{}{:?}", model.text(), model.vips)
}

/// Maglev tables, in the order of the frontends.
fn tables(model: &Model) -> impl Iterator<Item = &Vec<u16>> {
    let rows = model.frontends.values().map(|frontend| &model.services[&frontend.service]);
    rows.flat_map(|row| [&row.maglev_cluster, &row.maglev_local])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_ends_in_what_a_fresh_agent_publishes(events in prop::collection::vec(event(), 1..40)) {
        let mut world = World::default();
        let mut fixture = world.agent(Model::default());
        for event in &events {
            world.apply(event, &mut fixture);
        }
        let fresh = world.agent(Model::default());
        prop_assert_eq!(text(&fixture.model), text(&fresh.model));
        prop_assert_eq!(fixture.model.backends.len(), fresh.model.backends.len());
        for (one, other) in tables(&fixture.model).zip(tables(&fresh.model)) {
            // The size depends on the past, what stands in a table of that size does not.
            prop_assert!(one.len() != other.len() || one == other);
        }
        prop_assert_eq!(fixture.tables.counts(), fresh.tables.counts());

        for name in 0..6 {
            world.apply(&Event::ServiceDeleted(name), &mut fixture);
            world.apply(&Event::SliceDeleted(name), &mut fixture);
            world.apply(&Event::HostPorts(name, 0), &mut fixture);
        }
        prop_assert!(fixture.model.is_empty());
        let tables = &fixture.tables;
        prop_assert!(tables.rows.is_empty() && tables.vips.is_empty());
        prop_assert!(tables.entries.is_empty() && tables.slice_owners.is_empty() && tables.pods.is_empty());
    }
}
