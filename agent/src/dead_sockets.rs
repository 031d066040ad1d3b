//! Connected UDP sockets whose backend is gone: destroyed, so that their owners connect again and reach a living one.
//!
//! The data plane answers packets of translated UDP flows anew when a backend goes, but a socket that was balanced at `connect` talks to the
//! backend itself and would do so for ever. Looked through are the network namespaces of the processes that the data plane serves (those
//! below its cgroup) and the node's own; destroyed are the sockets whose stored translation names the backend, or, where the kernel does
//! not show what is stored, all that are connected to its address and port. TCP needs none of this: a dead peer ends the connection.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datapath::Dataplane;
use network::Netns;
use network::sockets::{self, Connected, SocketsError};
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
    let storage = dataplane.socket_reverse_map();
    let storage =
        storage.inspect_err(|error| tracing::warn!(%error, "stored translations cannot be read")).ok();
    while let Ok(mut gone) = receiver.recv() {
        std::thread::sleep(GATHER);
        gone.extend(receiver.try_iter().flatten());
        match destroy(&by_address(&gone), storage.as_ref(), dataplane) {
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
fn by_address(gone: &[Gone]) -> HashMap<SocketAddr, HashSet<(Family, u32)>> {
    let mut rows: HashMap<SocketAddr, HashSet<(Family, u32)>> = HashMap::new();
    for (family, index, address) in gone {
        rows.entry(*address).or_default().insert((*family, *index));
    }
    rows
}

fn destroy(
    gone: &HashMap<SocketAddr, HashSet<(Family, u32)>>,
    storage: Option<&OwnedFd>,
    dataplane: &Dataplane,
) -> Result<usize, SocketsError> {
    let names = |value: &[u8], peer, (family, index)| datapath::reverse::names(value, family, index, peer);
    let doomed = |socket: &Connected| is_doomed(gone, storage.is_some(), socket, names);
    let work = || sockets::destroy_connected_udp(storage.map(AsFd::as_fd), &doomed);
    let mut destroyed = work()?;
    // A namespace seen twice (the node's own) has nothing left the second time.
    for namespace in namespaces(dataplane) {
        destroyed += namespace.run(work).unwrap_or(Ok(0))?;
    }
    Ok(destroyed)
}

fn namespaces(dataplane: &Dataplane) -> Vec<Netns> {
    let found = Netns::of_processes_below(dataplane.cgroup_path());
    found.inspect_err(|error| tracing::warn!(%error, "network namespaces of the node")).unwrap_or_default()
}

/// Whether the socket came to a backend that is gone. `stored` says whether what programs stored in sockets is known; `names` whether a
/// stored value names a row and its address.
fn is_doomed(
    gone: &HashMap<SocketAddr, HashSet<(Family, u32)>>,
    stored: bool,
    socket: &Connected,
    names: impl Fn(&[u8], SocketAddr, (Family, u32)) -> bool,
) -> bool {
    let Some(rows) = gone.get(&socket.peer) else { return false };
    match &socket.stored {
        Some(value) => rows.iter().any(|row| names(value, socket.peer, *row)),
        None => !stored,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// The stored value is the row's index here.
    fn names(value: &[u8], _: SocketAddr, row: (Family, u32)) -> bool {
        value == [row.1 as u8]
    }

    #[track_caller]
    fn check(peer: &str, value: Option<u8>, stored: bool, expected: bool) {
        let gone = by_address(&[
            (Family::V4, 7, "10.0.0.1:53".parse().unwrap()),
            (Family::V4, 8, "10.0.0.1:53".parse().unwrap()),
        ]);
        let socket = Connected::of(peer.parse().unwrap(), value.map(|value| vec![value]));
        assert_eq!(is_doomed(&gone, stored, &socket, names), expected, "{peer} {value:?} {stored}");
    }

    #[test]
    fn only_sockets_that_came_through_a_service_to_a_gone_backend_end() {
        check("10.0.0.1:53", Some(7), true, true);
        check("10.0.0.1:53", Some(8), true, true);
        check("10.0.0.1:53", Some(9), true, false);
        check("10.0.0.1:53", None, true, false);
        check("10.0.0.1:54", Some(7), true, false);
        check("10.0.0.2:53", Some(7), true, false);
    }

    #[test]
    fn without_stored_values_the_address_decides() {
        check("10.0.0.1:53", None, false, true);
        check("10.0.0.2:53", None, false, false);
    }
}
