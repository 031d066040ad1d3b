//! Direct server return: a packet goes on to the backend's node as it came, and that node answers the client.

use serde_json::json;

use crate::capture::{self, Captures};
use crate::client::{Outcome, Sight, Transport};
use crate::cluster::{Backend, Cluster, Hook, Who};
use crate::features::{once, publish};
use crate::spec::{Address, Shape, shape};

const SERVICE: Shape = shape("direct", 22, [false, false], &[Backend::Pod(1), Backend::Host(1)]);
/// Several of each, since either backend may be drawn.
const TRANSPORTS: [Transport; 6] = [
    Transport::Tcp,
    Transport::Tcp,
    Transport::Udp,
    Transport::Udp,
    Transport::UdpConnected,
    Transport::Stream(2),
];

/// Backends see the client's own address, the client sees the address that it asked: what is otherwise.
fn wrong(cluster: &mut Cluster) -> Vec<String> {
    let mut wrong = Vec::new();
    for six in [false, true] {
        let client = cluster.address_of(Who::Outside, six);
        for address in [
            Address::External,
            Address::LoadBalancer,
            Address::NodePort(0),
            Address::NodePort(1),
            Address::NodePort(2),
        ] {
            let to = SERVICE.socket_address(cluster, address, six);
            let kept = |sight: &Sight| sight.seen == client && sight.peer == to;
            for transport in TRANSPORTS {
                let outcome = once(cluster, (Who::Outside, Hook::Packet), transport, to, None);
                if !matches!(&outcome, Outcome::Answered(sights) if sights.iter().all(kept)) {
                    wrong.push(format!("{transport:?} {address:?} {to}: {outcome:?}"));
                }
            }
        }
    }
    wrong
}

#[track_caller]
fn ask(cluster: &mut Cluster, title: &str) {
    let wrong = wrong(cluster);
    let some = &wrong[..wrong.len().min(12)];
    assert!(wrong.is_empty(), "{title}: {} wrong, like {some:#?}\ndrops: {}", wrong.len(), cluster.drops());
}

/// The answers do not pass the node that the client asks.
pub fn check(cluster: &mut Cluster, title: &str) {
    publish(cluster, &SERVICE, json!({}), json!({"beeline.io/direct-server-return": "true"}));
    // Until nodes know each other's hardware addresses, connections are translated.
    for _ in 0..20 {
        if wrong(cluster).is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(250));
    }
    if !capture::possible() {
        println!("without tcpdump: where answers pass is not looked at");
        return ask(cluster, title);
    }
    let captures = Captures::start(&cluster.fabric.bridge(), &["n0", "n1"], cluster.fabric.directory.path());
    ask(cluster, title);
    let files = captures.stop();
    for six in [false, true] {
        let service = SERVICE.socket_address(cluster, Address::External, six).ip();
        let [first, second] = [0, 1].map(|port| capture::count_from(&files[port], service));
        assert_eq!(first, 0, "{title}: answers from {service} that pass the first node");
        assert!(second > 0, "{title}: answers from {service} by the backend's node");
    }
    println!("ok: direct server return, {title}");
}
