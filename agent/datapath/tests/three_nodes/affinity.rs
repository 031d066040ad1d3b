//! `sessionAffinity: ClientIP`: every kind of client keeps its backend, until that goes or the timeout is over.

use std::time::Duration;

use serde_json::json;

use crate::client::{Ask, Outcome, Transport};
use crate::cluster::{Backend, Cluster, Hook, Who};
use crate::features::publish;
use crate::spec::{Address, PODS, Shape, shape};

const SERVICE: Shape = shape("affinity", 12, [false, false], PODS);
/// Four ways to ask, and one address to ask at by each. A pod that is known by its sockets is one for both families: their services
/// differ.
const CLIENTS: [(Who, Hook, Address); 4] = [
    (Who::Pod(0), Hook::Socket, Address::Cluster),
    (Who::Pod(0), Hook::Packet, Address::Cluster),
    (Who::Host(0), Hook::Socket, Address::Cluster),
    (Who::Outside, Hook::Packet, Address::NodePort(0)),
];
/// Questions in a row that must agree.
const AGREEING: usize = 8;
/// Silences after which a timeout of one second may be over: the data path counts in ticks of 1.07 s and is never early. Each question
/// begins the time anew.
const SILENCES: [Duration; 3] = [Duration::from_secs(3), Duration::from_secs(4), Duration::from_secs(5)];

/// The backends of sixteen clients: each [`CLIENTS`] in both families and over both protocols, which affinity treats alone.
#[track_caller]
fn backends(cluster: &mut Cluster, questions: usize) -> Vec<String> {
    let mut backends = Vec::new();
    for (who, hook, address) in CLIENTS {
        let ways = [false, true].into_iter().flat_map(|six| [(six, Transport::Tcp), (six, Transport::Udp)]);
        let asks: Vec<Ask> = ways
            .map(|(six, transport)| {
                let to = SERVICE.socket_address(cluster, address, six);
                Ask { transport, to, want: 2, tries: questions, patience_ms: 3000, from: None }
            })
            .collect();
        let client = cluster.clients.get_mut(&(who, hook)).unwrap();
        client.ask(&asks);
        for (ask, outcome) in asks.iter().zip(client.outcomes()) {
            match outcome {
                Outcome::Answered(sights) if sights.len() == 1 => {
                    backends.extend(sights.into_iter().map(|sight| sight.backend));
                }
                outcome => panic!("{who:?} by {hook:?}, {:?} {}: {outcome:?}", ask.transport, ask.to),
            }
        }
    }
    backends
}

fn set_timeout(cluster: &mut Cluster, seconds: u32) {
    let config = json!({"clientIP": {"timeoutSeconds": seconds}});
    let fields = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config});
    publish(cluster, &SERVICE, fields, json!({}));
}

/// Both backends serve at first.
pub fn clients_stay_with_their_backend(cluster: &mut Cluster) {
    let all = |backends: &[String], name: &str| backends.iter().all(|backend| backend == name);
    set_timeout(cluster, 600);
    let first = backends(cluster, AGREEING);
    for name in ["pod0", "pod1"] {
        assert!(first.iter().any(|backend| backend == name), "{name} serves none of them: {first:?}");
    }
    println!("ok: affinity: {first:?}");
    cluster.publish(SERVICE.name, &[Backend::Pod(1)]);
    assert!(all(&backends(cluster, AGREEING), "pod1"), "the other backend is gone");
    cluster.publish(SERVICE.name, PODS);
    assert!(all(&backends(cluster, AGREEING), "pod1"), "a backend comes back to nobody's harm");
    println!("ok: affinity leaves a backend that is gone, and does not go back");

    set_timeout(cluster, 1);
    let moved = SILENCES.into_iter().any(|silence| {
        std::thread::sleep(silence);
        !all(&backends(cluster, 1), "pod1")
    });
    assert!(moved, "after the timeout clients choose anew");
    println!("ok: affinity ends after its timeout");
}
