//! The matrix: every Service of the specification, at every address, from every client, over every transport, in both families.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::json;

use crate::client::{Ask, Outcome, Transport};
use crate::cluster::{Backend, CLIENTS, Cluster, Hook, Who};
use crate::spec::{ADDRESSES, Address, Expected, HOST_PORT, SHAPES, Shape};

/// Questions until two backends must both have been seen (2 to the power of -23 that a fair choice does not show both).
const TRIES: usize = 24;
/// How long an answer may take.
const PATIENCE_MS: u64 = 3000;
/// How long silence is listened to.
const SILENCE_MS: u64 = 300;
/// Kinds of failures printed at most.
const PRINTED: usize = 60;

/// One row.
struct Row<'a> {
    shape: &'a Shape,
    address: Address,
    client: (Who, Hook),
    transport: Transport,
    to: SocketAddr,
    expected: Expected,
}

impl Row<'_> {
    fn ask(&self) -> Ask {
        let (want, tries, patience_ms) = match &self.expected {
            Expected::Answers(backends) if backends.len() > 1 => (backends.len(), TRIES, PATIENCE_MS),
            Expected::Answers(_) => (2, 2, PATIENCE_MS),
            Expected::Refused => (1, 1, PATIENCE_MS),
            Expected::Silent => (1, 1, SILENCE_MS),
        };
        Ask { transport: self.transport, to: self.to, want, tries, patience_ms, from: None }
    }

    /// What is wrong with what became of it.
    fn fault(&self, outcome: &Outcome) -> Option<String> {
        match (&self.expected, outcome) {
            (Expected::Refused, Outcome::Refused) | (Expected::Silent, Outcome::Silent) => None,
            (Expected::Answers(expected), Outcome::Answered(sights)) => {
                let seen: BTreeMap<_, _> =
                    sights.iter().map(|sight| (sight.backend.clone(), sight.seen)).collect();
                if seen != *expected || seen.len() != sights.len() {
                    return Some(format!("expected {expected:?}, got {sights:?}"));
                }
                let stranger = sights.iter().find(|sight| sight.peer != self.to);
                stranger.map(|sight| format!("answered by {}", sight.peer))
            }
            (expected, outcome) => Some(format!("expected {expected:?}, got {outcome:?}")),
        }
    }

    /// What rows that fail alike have in common.
    fn kind(&self) -> String {
        let Self { address, client: (who, hook), .. } = self;
        format!("{address:?} from {who:?} by {hook:?}")
    }

    fn title(&self) -> String {
        format!("{} by {:?} at {}", self.shape.name, self.transport, self.to)
    }
}

fn rows<'a>(cluster: &Cluster, shapes: &'a [Shape]) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for (shape, address) in shapes.iter().flat_map(|shape| ADDRESSES.map(|address| (shape, address))) {
        for (who, hook) in CLIENTS.into_iter().filter(|(who, _)| shape.applies(*who, address)) {
            for six in [false, true] {
                let expected = shape.expected(cluster, who, hook, address, six);
                let to = shape.socket_address(cluster, address, six);
                for transport in [Transport::Tcp, Transport::Udp, Transport::UdpConnected] {
                    // A socket without a peer does not hear of refusals.
                    if transport == Transport::Udp && expected == Expected::Refused {
                        continue;
                    }
                    let expected = expected.clone();
                    rows.push(Row { shape, address, client: (who, hook), transport, to, expected });
                }
            }
        }
    }
    rows
}

/// Publishes the Services of the specification.
pub fn publish(cluster: &mut Cluster) {
    for shape in &SHAPES {
        cluster.tell(&format!("service {}", shape.service(json!({}))));
        cluster.publish(shape.name, shape.endpoints);
    }
    let addresses = [false, true].map(|six| cluster.backend_address(Backend::Pod(0), six).to_string());
    cluster.agents[0].tell(&format!("hostport uid-b0 {HOST_PORT} any {}", addresses.join(",")));
}

/// Asks all rows of these Services, a client's one after the other and the clients' side by side.
#[track_caller]
pub fn check(cluster: &mut Cluster, title: &str, shapes: &[Shape]) {
    let mut by_client: BTreeMap<(Who, Hook), Vec<Row<'_>>> = BTreeMap::new();
    for row in rows(cluster, shapes) {
        by_client.entry(row.client).or_default().push(row);
    }
    for (client, rows) in &by_client {
        let asks: Vec<Ask> = rows.iter().map(Row::ask).collect();
        cluster.clients.get_mut(client).unwrap().ask(&asks);
    }
    let mut asked = 0;
    let mut faults: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (client, rows) in &by_client {
        let outcomes = cluster.clients.get_mut(client).unwrap().outcomes();
        for (row, outcome) in rows.iter().zip(&outcomes) {
            asked += 1;
            if let Some(fault) = row.fault(outcome) {
                faults.entry(row.kind()).or_default().push(format!("{}: {fault}", row.title()));
            }
        }
    }
    let failed: usize = faults.values().map(Vec::len).sum();
    println!("{title}: {asked} rows, {failed} failed");
    assert!(
        failed == 0,
        "{title}: {failed} of {asked} rows failed:\n{}drops: {}",
        report(&faults),
        cluster.drops()
    );
}

/// Failed rows by kind, with an example each.
fn report(faults: &BTreeMap<String, Vec<String>>) -> String {
    let mut text = String::new();
    for (kind, rows) in faults.iter().take(PRINTED) {
        writeln!(text, "  {kind}: {} rows, like {}", rows.len(), rows[0]).unwrap();
    }
    if let Some(more) = faults.len().checked_sub(PRINTED) {
        writeln!(text, "  and {more} kinds more").unwrap();
    }
    text
}
