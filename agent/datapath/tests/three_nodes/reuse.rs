//! A client's source port that is used towards a service and, soon after, straight to the service's backend.

use std::net::SocketAddr;

use serde_json::json;

use crate::client::{Ask, Outcome, Transport};
use crate::cluster::{Backend, Cluster, Hook, Who};
use crate::features::{publish, sight};
use crate::server::PORT;
use crate::spec::{Address, PODS, Shape, shape};

const SERVICE: Shape = shape("reuse", 23, [false, false], PODS);
/// How often: a flow lies in one of two tables when it ends, and either may matter.
const ROUNDS: usize = 6;
/// How long a connection may take: longer than TCP waits before it sends its first packet again, since a backend may still have the
/// connection before under the same addresses and ports, and answers the first packet of the new one as one of that.
const PATIENCE_MS: u64 = 3000;

/// A question of a pod of which only packets are seen.
fn ask(cluster: &mut Cluster, to: SocketAddr, port: u16) -> Outcome {
    let client = cluster.clients.get_mut(&(Who::Pod(0), Hook::Packet)).unwrap();
    let (transport, from) = (Transport::Tcp, Some(port));
    client.ask(&[Ask { transport, to, want: 1, tries: 1, patience_ms: PATIENCE_MS, from }]);
    client.outcomes().remove(0)
}

/// First to the service's address until the backend answers, then from the same port to that backend's own address: what goes wrong.
fn failures(
    cluster: &mut Cluster,
    ports: &mut impl Iterator<Item = u16>,
    to: SocketAddr,
    backend: Backend,
) -> Vec<String> {
    let direct = SocketAddr::new(cluster.backend_address(backend, to.is_ipv6()), PORT);
    let mut failures = Vec::new();
    for round in 0..ROUNDS {
        let port = ports.find(|port| sight(&ask(cluster, to, *port)).backend == backend.name()).unwrap();
        let outcome = ask(cluster, direct, port);
        if !matches!(outcome, Outcome::Answered(_)) {
            failures.push(format!("{to}, then {direct}: round {round}, port {port}: {outcome:?}"));
        }
    }
    failures
}

/// Backends on both nodes serve.
pub fn source_ports_are_free_again(cluster: &mut Cluster, title: &str) {
    publish(cluster, &SERVICE, json!({}), json!({}));
    let mut ports = 50_000..;
    for backend in [Backend::Pod(0), Backend::Pod(1)] {
        for address in [Address::Cluster, Address::NodePort(0), Address::NodePort(1)] {
            for six in [false, true] {
                let to = SERVICE.socket_address(cluster, address, six);
                let failures = failures(cluster, &mut ports, to, backend);
                assert!(failures.is_empty(), "{title}, {address:?}: {failures:#?}");
            }
        }
    }
    println!("ok: source ports used again, {title}");
}
