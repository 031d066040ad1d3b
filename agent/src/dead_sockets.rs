//! Connected UDP sockets whose backend is gone: destroyed, so that their owners connect again and reach a living one.
//!
//! The data plane answers packets of translated UDP flows anew when a backend goes, but a socket that was balanced at `connect` talks to the
//! backend itself and would do so for ever. Looked through are the network namespaces of the processes that the data plane serves (those
//! below its cgroup) and the node's own. A socket that is connected to the backend's address is destroyed if the data plane remembers
//! that it came there by the backend's row, or cannot tell; one that its program connected to the pod itself is left alone. TCP needs none of
//! this: a dead peer ends the connection.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datapath::{Dataplane, SocketPair};
use network::sockets::{self, Connected, SocketsError};
use network::{Netns, processes};
use service::Family;

use crate::progress::Progress;

/// How long to wait for more before namespaces are searched: a service with many backends goes at once.
const GATHER: Duration = Duration::from_millis(20);

/// A UDP backend that went: family and index of its row, and its address.
pub type Gone = (Family, u32, SocketAddr);

/// The thread that does it.
pub struct DeadSockets(Mutex<Sender<Vec<Gone>>>);

impl DeadSockets {
    /// Starts the thread, in the network namespace of the caller.
    pub fn start(dataplane: Arc<Dataplane>, progress: Arc<Progress>) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let work = move || follow(&receiver, &dataplane, &progress);
        std::thread::Builder::new().name("dead-sockets".to_owned()).spawn(work)?;
        Ok(Self(Mutex::new(sender)))
    }

    /// These backends are in no table any more.
    pub fn gone(&self, backends: Vec<Gone>) {
        if !backends.is_empty() {
            // The thread ends when the kernel cannot do it; then nobody listens.
            let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).send(backends);
        }
    }
}

fn follow(receiver: &Receiver<Vec<Gone>>, dataplane: &Dataplane, progress: &Progress) {
    while let Ok(mut gone) = receiver.recv() {
        std::thread::sleep(GATHER);
        gone.extend(receiver.try_iter().flatten());
        match destroy(&by_address(&gone), dataplane) {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(count, "UDP sockets of backends that are gone destroyed");
                progress.sockets_destroyed.add(count as u64);
            }
            Err(error @ (SocketsError::NoDestroy | SocketsError::NoList)) => {
                tracing::warn!(%error, "connected UDP sockets keep backends that are gone");
                progress.missing("destroying UDP sockets", &error.to_string());
                return;
            }
            Err(error) => tracing::warn!(%error, "UDP sockets of backends that are gone"),
        }
    }
}

/// Rows that stood for each address.
fn by_address(gone: &[Gone]) -> HashMap<SocketAddr, Rows> {
    let mut rows: HashMap<SocketAddr, Rows> = HashMap::new();
    for (family, index, address) in gone {
        rows.entry(*address).or_default().insert((*family, *index));
    }
    rows
}

type Rows = HashSet<(Family, u32)>;

fn destroy(gone: &HashMap<SocketAddr, Rows>, dataplane: &Dataplane) -> Result<usize, SocketsError> {
    let processes = processes::below(dataplane.cgroup_path());
    let processes =
        processes.inspect_err(|error| tracing::warn!(%error, "processes of the node")).unwrap_or_default();
    let doomed = |socket: &Connected| {
        let rows = gone.get(&socket.peer);
        rows.is_some_and(|rows| is_doomed(rows, &dataplane.socket_pair(socket.cookie)))
    };
    let work = || sockets::destroy_connected_udp(&doomed);
    let mut destroyed = work()?;
    // A namespace seen twice (the node's own) has nothing left the second time.
    for namespace in Netns::of_processes(&processes) {
        destroyed += namespace.run(work).unwrap_or(Ok(0))?;
    }
    Ok(destroyed)
}

/// Whether a socket that is connected to the address of these rows came there by one of them.
fn is_doomed(rows: &Rows, pair: &SocketPair) -> bool {
    match pair {
        SocketPair::Pair { family, backend, .. } => rows.contains(&(*family, *backend)),
        SocketPair::Free => false,
        SocketPair::Unknown => true,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn rows_that_stood_for_one_address_are_together() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let rows = by_address(&[
            (Family::V4, 7, address("10.0.0.1:53")),
            (Family::V4, 8, address("10.0.0.1:53")),
            (Family::V6, 7, address("[fd00::1]:53")),
        ]);
        assert_eq!(rows[&address("10.0.0.1:53")], HashSet::from([(Family::V4, 7), (Family::V4, 8)]));
        assert_eq!(rows[&address("[fd00::1]:53")], HashSet::from([(Family::V6, 7)]));
    }

    #[test]
    fn what_is_remembered_decides_and_what_is_not_known_dooms() {
        let rows = HashSet::from([(Family::V4, 7)]);
        let pair = |backend| SocketPair::Pair {
            family: Family::V4,
            backend,
            address: "10.0.0.1:53".parse().unwrap(),
        };
        for (pair, expected) in
            [(pair(7), true), (pair(8), false), (SocketPair::Free, false), (SocketPair::Unknown, true)]
        {
            assert_eq!(is_doomed(&rows, &pair), expected, "{pair:?}");
        }
    }
}
