//! Agents die and others follow, of the same build and of one whose tables have another layout; flow tables grow. Connections stay where
//! they are all the while, those from before and those from in between, and every kind of client is served.

use serde_json::json;

use crate::agent::Mode;
use crate::client::Transport;
use crate::cluster::{Cluster, Hook, Who};
use crate::features::publish;
use crate::held::{Answers, Held};
use crate::matrix;
use crate::spec::{Address, PODS, Shape, shape};

const SERVICE: Shape = shape("takeover", 41, [false, false], PODS);
/// Who holds connections, by what, to which address, IPv6.
const HOLDERS: [(Who, Hook, Address, bool); 5] = [
    (Who::Pod(0), Hook::Socket, Address::Cluster, false),
    (Who::Pod(0), Hook::Packet, Address::Cluster, false),
    (Who::Pod(0), Hook::Packet, Address::Cluster, true),
    (Who::Outside, Hook::Packet, Address::NodePort(0), false),
    (Who::Outside, Hook::Packet, Address::NodePort(0), true),
];
/// Connections of each holder at the start, so that there are some to backends on either node.
const AT_FIRST: usize = 4;

/// Open connections, with the backends that answered on them first.
#[derive(Default)]
struct Connections(Vec<(Held, Answers)>);

impl Connections {
    /// Opens so many more for each holder.
    #[track_caller]
    fn open(&mut self, cluster: &Cluster, each: usize) {
        for (who, hook, address, six) in HOLDERS {
            let to = SERVICE.socket_address(cluster, address, six);
            let mut held = Held::start(&cluster.place(who, hook), Transport::Tcp, &vec![to; each]);
            let answers = held.ask();
            assert!(answers.iter().all(Result::is_ok), "{who:?} by {hook:?} to {to}: {answers:?}");
            self.0.push((held, answers));
        }
    }

    /// Each still has its backend.
    #[track_caller]
    fn check(&mut self, when: &str) {
        for (held, answers) in &mut self.0 {
            assert_eq!(held.ask(), *answers, "{when}");
        }
    }
}

/// The first node's agents and tables are changed.
pub fn connections_stay(cluster: &mut Cluster, mode: &Mode) {
    publish(cluster, &SERVICE, json!({}), json!({}));
    let mut connections = Connections::default();
    connections.open(cluster, AT_FIRST);
    for (build, salt) in [("the same build", mode.salt), ("an upgrade", 7), ("the way back", mode.salt)] {
        cluster.agents[0].kill();
        connections.check(&format!("{build}: while no agent is there"));
        matrix::check(cluster, &format!("{build}: while no agent is there"), &[SERVICE]);
        cluster.start_agent(0, &Mode { salt, ..mode.clone() });
        connections.check(&format!("{build}: before it knows anything"));
        cluster.recover(0);
        publish(cluster, &SERVICE, json!({}), json!({}));
        cluster.agents[0].tell("start");
        connections.check(&format!("{build}: after it has taken over"));
        let flows: usize = cluster.agents[0].tell("collect").parse().unwrap();
        assert!(flows > 0, "connections balanced on packets are in the flow table");
        connections.check(&format!("{build}: after idle flows were looked for"));
        matrix::check(cluster, &format!("{build}: after it has taken over"), &[SERVICE]);
        connections.open(cluster, 1);
    }
    for size in ["twice", "four times"] {
        assert_eq!(cluster.agents[0].tell("grow"), "true", "{size} the entries");
        connections.check(&format!("{size} the entries"));
        matrix::check(cluster, &format!("{size} the entries"), &[SERVICE]);
        connections.open(cluster, 1);
    }
    connections.check("at the end");
}
