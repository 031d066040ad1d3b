//! Changes under traffic: endpoints come and go, flow tables grow, agents die and are followed by ones of another table layout. Nobody
//! may notice.

use serde_json::json;

use crate::agent::Mode;
use crate::cluster::{Backend, Cluster, Hook, Who};
use crate::fabric::NODES;
use crate::features::publish;
use crate::spec::{Address, Shape, shape};
use crate::traffic::Traffic;

const SERVICE: Shape = shape("churn", 40, [false, false], &[Backend::Pod(0), Backend::Pod(1)]);
/// Endpoint sets, one after the other: no two that follow each other are without a backend in common, but all backends run on.
const SETS: [&[Backend]; 4] = [
    &[Backend::Pod(0), Backend::Pod(1)],
    &[Backend::Pod(1)],
    &[Backend::Pod(0), Backend::Pod(1)],
    &[Backend::Pod(0)],
];
/// Publications of endpoints: two EndpointSlices each, one a family.
const PUBLICATIONS: usize = 500;
/// Clients: who, by what, which address, IPv6, long connections. Fifty of these in all.
const CLIENTS: [(Who, Hook, Address, bool, usize); 5] = [
    (Who::Pod(0), Hook::Packet, Address::Cluster, false, 10),
    (Who::Pod(2), Hook::Packet, Address::Cluster, true, 10),
    (Who::Host(0), Hook::Socket, Address::Cluster, false, 10),
    (Who::Outside, Hook::Packet, Address::NodePort(0), false, 10),
    (Who::Outside, Hook::Packet, Address::LoadBalancer, true, 10),
];

struct Watched {
    traffic: Vec<Traffic>,
}

impl Watched {
    fn start(cluster: &Cluster) -> Self {
        let start = |&(who, hook, address, six, long): &(Who, Hook, Address, bool, usize)| {
            Traffic::start(&cluster.place(who, hook), SERVICE.socket_address(cluster, address, six), long)
        };
        Self { traffic: CLIENTS.iter().map(start).collect() }
    }

    /// Nothing has failed since the start.
    #[track_caller]
    fn stop(self, cluster: &mut Cluster, title: &str) {
        let (mut short, mut datagrams, mut answers, mut failures) = (0, 0, 0, Vec::new());
        for totals in self.traffic.into_iter().map(Traffic::stop) {
            short += totals.short;
            datagrams += totals.datagrams;
            answers += totals.long_answers;
            failures.extend(totals.failures);
        }
        let some = &failures[..failures.len().min(12)];
        assert!(
            failures.is_empty(),
            "{title}: {} failures, like {some:#?}\ndrops: {}",
            failures.len(),
            cluster.drops()
        );
        assert!(
            short > 100 && datagrams > 300 && answers > 500,
            "{title}: {short}, {datagrams}, {answers}: no traffic"
        );
        println!(
            "ok: {title}: {answers} answers on 50 long connections, {short} short ones, {datagrams} datagrams, none lost"
        );
    }
}

/// A thousand EndpointSlices.
pub fn endpoints_come_and_go(cluster: &mut Cluster, title: &str) {
    publish(cluster, &SERVICE, json!({}), json!({}));
    let watched = Watched::start(cluster);
    for round in 0..PUBLICATIONS {
        cluster.publish(SERVICE.name, SETS[round % SETS.len()]);
    }
    cluster.publish(SERVICE.name, SERVICE.endpoints);
    watched.stop(cluster, &format!("{title}: {} changes of endpoints", 2 * PUBLICATIONS));
}

/// Twice as large, twice.
pub fn flow_tables_grow(cluster: &mut Cluster, title: &str) {
    publish(cluster, &SERVICE, json!({}), json!({}));
    let watched = Watched::start(cluster);
    for _ in 0..2 {
        std::thread::sleep(std::time::Duration::from_millis(500));
        for agent in &mut cluster.agents {
            assert_eq!(agent.tell("grow"), "true", "the tables grew");
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    watched.stop(cluster, &format!("{title}: flow tables grow twice"));
}

/// Each agent is killed, and followed by one whose tables have another layout; and back.
pub fn agents_of_another_layout_follow(cluster: &mut Cluster, mode: &Mode, title: &str) {
    publish(cluster, &SERVICE, json!({}), json!({}));
    let watched = Watched::start(cluster);
    for salt in [7, mode.salt] {
        for node in 0..NODES {
            cluster.agents[node].kill();
            std::thread::sleep(std::time::Duration::from_millis(100));
            cluster.start_agent(node, &Mode { salt, ..mode.clone() });
            cluster.recover(node);
        }
        publish(cluster, &SERVICE, json!({}), json!({}));
        cluster.tell("start");
    }
    watched.stop(cluster, &format!("{title}: agents of another table layout, and back"));
}
