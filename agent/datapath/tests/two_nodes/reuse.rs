//! A client's source port that is used towards a service and, soon after, straight to the service's backend.

use crate::peer::{ask_from, fresh_port};
use crate::{Cluster, NODE_PORT, VIP4, VIP6};

/// How often: a flow lies in one of two tables when it ends, and either may matter.
const ROUNDS: usize = 6;

/// The third pod, by packets: first to a service address until backend `name` answers, then to that backend's own address.
fn check(cluster: &Cluster, what: &str, to: &str, port: u16, backend: usize) {
    let name = ["a", "b"][backend];
    let place = cluster.by_packet();
    let direct =
        cluster.backends[backend].iter().find(|address| address.is_ipv4() != to.contains(':')).unwrap();
    let mut failed = Vec::new();
    for round in 0..ROUNDS {
        let from = (0..40)
            .map(|_| fresh_port())
            .find(|from| ask_from(&place, "tcp", to, port, *from).unwrap().backend == name)
            .unwrap();
        if let Err(error) = ask_from(&place, "tcp", &direct.to_string(), 8080, from) {
            failed.push(format!("round {round}: port {from}: {error}"));
        }
    }
    assert!(failed.is_empty(), "{what}, {to}:{port}, then {direct}:8080: {failed:#?}");
    println!("ok: a source port again: {what}");
}

/// Backends on both nodes serve.
pub fn source_ports_are_free_again(cluster: &Cluster) {
    for backend in [0, 1] {
        for to in [VIP4, VIP6] {
            check(cluster, "by clusterIP", to, 80, backend);
        }
        for node in [0, 1] {
            for to in cluster.node_addresses(node) {
                check(cluster, "by node port", &to, NODE_PORT, backend);
            }
        }
    }
}
