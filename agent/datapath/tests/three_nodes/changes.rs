//! One Service that changes: its policies, its endpoints and their conditions. Every client meets the new rules at once and nothing of
//! what was before.

use serde_json::json;

use crate::client::Transport;
use crate::cluster::{Backend, Cluster, Hook, Who};
use crate::features::publish;
use crate::held::Held;
use crate::matrix;
use crate::spec::{Address, HOSTS, PODS, Shape, shape};

const fn changing(local: [bool; 2], endpoints: &'static [Backend]) -> Shape {
    shape("changing", 10, local, endpoints)
}

/// Policies external and internal Local, and endpoints: one after the other.
const CHANGES: [Shape; 6] = [
    changing([false, false], PODS),
    changing([true, false], PODS),
    changing([true, false], &[Backend::Pod(1)]),
    changing([false, true], &[Backend::Pod(1)]),
    changing([false, true], PODS),
    changing([false, false], HOSTS),
];

pub fn policies_and_endpoints_change(cluster: &mut Cluster) {
    for change in CHANGES {
        publish(cluster, &change, json!({}), json!({}));
        matrix::check(cluster, &format!("{change:?}"), &[change]);
    }
    // Endpoints that terminate serve when nothing else does, until they are not ready even for that.
    for (serving, rules) in [(true, changing([false, false], PODS)), (false, changing([false, false], &[]))] {
        let conditions = json!({"ready": false, "serving": serving, "terminating": true});
        cluster.publish_with(rules.name, PODS, &conditions);
        matrix::check(cluster, &format!("terminating, serving is {serving}"), &[rules]);
    }
}

/// One client port each, busy all the time: it must never be stuck with a backend that is gone.
pub fn udp_flows_move_when_their_backend_goes(cluster: &mut Cluster) {
    let service = shape("moving", 11, [false, false], &[Backend::Pod(0)]);
    publish(cluster, &service, json!({}), json!({}));
    let clients = [
        (Who::Pod(0), Hook::Socket, Address::Cluster, false),
        (Who::Pod(0), Hook::Packet, Address::Cluster, false),
        (Who::Pod(0), Hook::Packet, Address::Cluster, true),
        (Who::Host(0), Hook::Socket, Address::Cluster, true),
        (Who::Outside, Hook::Packet, Address::NodePort(0), false),
    ];
    let mut clients = clients.map(|client @ (who, hook, address, six)| {
        let to = service.socket_address(cluster, address, six);
        (client, Held::start(&cluster.place(who, hook), Transport::Udp, &[to]))
    });
    let sets: [(&[Backend], Option<&str>); 5] = [
        (&[Backend::Pod(0)], Some("pod0")),
        (&[Backend::Pod(1)], Some("pod1")),
        (&[], None),
        (&[Backend::Pod(0)], Some("pod0")),
        (&[Backend::Pod(1)], Some("pod1")),
    ];
    for (endpoints, expected) in sets {
        cluster.publish(service.name, endpoints);
        for (client, held) in &mut clients {
            // The datagram that meets a refusal tells the socket; the next one is judged anew.
            let answers = [held.ask().remove(0), held.ask().remove(0)];
            let right = answers[1].as_deref().ok() == expected;
            assert!(right, "{client:?}, endpoints {endpoints:?}: {answers:?}");
        }
    }
    println!("ok: UDP flows move");
}
