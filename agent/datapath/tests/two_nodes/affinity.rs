//! `sessionAffinity: ClientIP`: every kind of client keeps its backend, until that goes or the timeout is over.

use std::time::Duration;

use serde_json::json;

use crate::peer::{Place, ask};
use crate::{Cluster, NODE_PORT, VIP4, VIP6, service, service_with};

/// Asks in a row that must agree.
const AGREEING: usize = 8;
/// Longer than a timeout of one second lasts: the data path counts in ticks of 1.07 s and is never early.
const LONGER_THAN_ONE_SECOND: Duration = Duration::from_secs(4);

/// A client of one port of the service, which affinity treats alone.
struct Client {
    what: &'static str,
    place: Place,
    protocol: &'static str,
    to: String,
    port: u16,
}

impl Client {
    /// The backend that answers, again and again the same.
    #[track_caller]
    fn backend(&self) -> String {
        let Self { what, place, protocol, to, port } = self;
        let answers = (0..AGREEING).map(|_| ask(place, protocol, to, *port).map(|answer| answer.backend));
        let names: Result<Vec<String>, String> = answers.collect();
        let names = names.unwrap_or_else(|error| panic!("{what}: {protocol} {to}:{port}: {error}"));
        assert!(names.iter().all(|name| *name == names[0]), "{what}: {protocol} {to}:{port}: {names:?}");
        names[0].clone()
    }
}

/// Sixteen clients. A pod that is known by its sockets is one for both families: their services differ.
fn clients(cluster: &Cluster) -> Vec<Client> {
    let [four, six] = cluster.node_addresses(0);
    let places = [
        ("at the socket", cluster.by_socket(), [VIP4.to_owned(), VIP6.to_owned()], 80),
        ("on packets", cluster.by_packet(), [VIP4.to_owned(), VIP6.to_owned()], 80),
        ("from the host", cluster.host(), [VIP4.to_owned(), VIP6.to_owned()], 80),
        ("from outside", cluster.outside(), [four, six], NODE_PORT),
    ];
    let mut clients = Vec::new();
    for (what, place, addresses, port) in places {
        for to in addresses {
            for protocol in ["tcp", "udp"] {
                clients.push(Client { what, place: place.clone(), protocol, to: to.clone(), port });
            }
        }
    }
    clients
}

fn backends(clients: &[Client]) -> Vec<String> {
    clients.iter().map(Client::backend).collect()
}

fn affinity(cluster: &mut Cluster, timeout_s: u32) {
    let config = json!({"clientIP": {"timeoutSeconds": timeout_s}});
    let service = service_with(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}));
    cluster.tell(&format!("service {service}"));
}

/// Both backends serve before and after.
pub fn clients_stay_with_their_backend(cluster: &mut Cluster) {
    let clients = clients(cluster);
    affinity(cluster, 600);
    let first = backends(&clients);
    for name in ["a", "b"] {
        assert!(
            first.iter().any(|backend| backend == name),
            "{name} serves none of sixteen clients: {first:?}"
        );
    }
    println!("ok: affinity: {first:?}");
    cluster.publish(&[1]);
    assert!(backends(&clients).iter().all(|backend| backend == "b"), "the other backend is gone");
    cluster.publish(&[0, 1]);
    assert!(backends(&clients).iter().all(|backend| backend == "b"), "a backend comes back to nobody's harm");
    println!("ok: affinity leaves a backend that is gone, and does not go back");

    affinity(cluster, 1);
    let mut moved = false;
    for _ in 0..2 {
        std::thread::sleep(LONGER_THAN_ONE_SECOND);
        let names = clients.iter().map(|client| ask(&client.place, client.protocol, &client.to, client.port));
        moved |= names.map(Result::unwrap).any(|answer| answer.backend == "a");
    }
    assert!(moved, "after the timeout clients choose anew");
    println!("ok: affinity ends after its timeout");
    cluster.tell(&format!("service {}", service()));
}
