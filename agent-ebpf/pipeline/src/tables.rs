//! Access to the tables of `abi::maps`, by family. Values are copied out; a flow entry is reached through a handle.

use abi::{
    Config, Mac, Reason,
    affinity::{Affinity, SocketAffinityKey},
    frontend::Frontend,
    route::{Endpoint, Nexthop, NodeAddress, PodRoute},
    service::{Run, Service},
    stats::ServiceCounters,
};

use core::ops::DerefMut;

use crate::{
    family::{Backend, Family},
    flow::Opening,
    parse::Headers,
    route::Target,
};

/// What both families share. Handed down by value: a unit in the programs, a reference in tests.
pub trait Common: Copy {
    /// The node's constants.
    fn config(&self) -> &Config;
    /// Bits of [`abi::config::switches`].
    fn switches(&self) -> u32;
    /// Now, in ticks of [`abi::flow::TICK_SHIFT`].
    fn now(&self) -> u32;
    /// Number of the CPU that runs this.
    fn cpu(&self) -> u32;
    /// 32 random bits.
    fn random(&self) -> u32;
    /// The service port with this id; the words that name runs are each read once.
    fn service(&self, id: u32) -> Option<Service>;
    /// The backend index in this slot of a line.
    fn slot(&self, line: u32, slot: u32) -> Option<u32>;
    /// The Maglev table of a service's `run_local` or `run_cluster`, read by one load.
    fn maglev(&self, service: u32, local: bool) -> Run;
    /// The position in this cell of a line of Maglev tables.
    fn cell(&self, line: u32, cell: u32) -> Option<u16>;
    /// Whose turn it is among a service's slots: a free-running number, private to the CPU.
    fn turn(&self, service: u32) -> u32;
    /// A next hop.
    fn nexthop(&self, index: u32) -> Option<Nexthop>;
    /// A bit of a row of [`abi::maps::PORTS`]; `false` if there is no such row.
    fn bit(&self, row: u32, bit: u16) -> bool;
    /// A free-running number for a backend, private to the CPU.
    fn rotor(&self, backend: u32) -> u32;
    /// Whether frames with this source address come from another node of the cluster.
    fn is_peer(&self, mac: Mac) -> bool;
    /// What affinity knows of a client's sockets.
    fn socket_affinity(&self, key: &SocketAffinityKey) -> Option<Affinity>;
    /// Notes a backend for a client's sockets.
    fn set_socket_affinity(&self, key: &SocketAffinityKey, entry: &Affinity);
    /// Adds to a service's counters.
    fn count(&self, service: u32, add: impl FnOnce(&mut ServiceCounters));
    /// Counts a drop.
    fn count_drop(&self, reason: Reason);
}

/// The flow table refused an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The key is there already (asked for with [`Insert::New`]).
    Exists,
    /// No room, or the bucket was busy.
    Full,
}

/// How to insert a flow entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    /// Only if the key is free.
    New,
    /// Whether or not it is.
    Replace,
}

/// Which flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowTable {
    /// Connections that were answered.
    Established,
    /// The table that will take [`FlowTable::Established`]'s place: see [`crate::growth`].
    Next,
    /// Connections that were not answered yet.
    Embryonic,
}

/// A flow entry in its table. The element may be given to another key at any time: check the signature of what
/// [`FlowEntry::copy_to`] gave before believing it.
pub trait FlowEntry<F: Family> {
    /// Copies the value out.
    fn copy_to(&self, out: &mut F::Flow);
    /// Notes the tick and what TCP has shown; writes only what differs.
    fn touch(&self, now: u32, tcp: u8);
}

/// Room for what is too large for the BPF stack (512 bytes over a whole chain of calls). One packet at a time uses it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Scratch<F: Family> {
    /// The packet's headers.
    pub headers: Headers<F::Addr>,
    /// The ends and offsets of a packet that an ICMP error quotes.
    pub inner: Headers<F::Addr>,
    /// A key to look up or insert.
    pub key: F::FlowKey,
    /// The connection to be opened.
    pub opening: Opening<F>,
    /// The flow entry that the packet obeys.
    pub flow: F::Flow,
    /// The opposite direction's entry, while a pair is written.
    pub reverse: F::Flow,
    /// Where the packet goes.
    pub target: Target,
    /// Whether the flow probe found an entry that the packet must not follow: 0 or 1.
    pub remains: u32,
}

/// The tables of one family.
pub trait Tables<F: Family>: Common {
    /// Handle to a flow entry.
    type Entry: FlowEntry<F>;
    /// Handle to the scratch room.
    type Scratch: DerefMut<Target = Scratch<F>>;

    /// The scratch room. Take it once a packet.
    fn scratch(&self) -> Option<Self::Scratch>;

    /// A frontend.
    fn frontend(&self, key: &F::FrontendKey) -> Option<Frontend>;
    /// Whether some source range of the service holds the client.
    fn allows(&self, service: u32, client: F::Addr) -> bool;
    /// A backend.
    fn backend(&self, index: u32) -> Option<Backend<F>>;
    /// A backend's generation, zero if the index is out of range.
    fn generation(&self, backend: u32) -> u16;
    /// Connections that a backend has, as far as they are counted ([`abi::backend::Load`]).
    fn load(&self, backend: u32) -> u32;
    /// Counts one more translated connection of a backend.
    fn count_flow(&self, backend: u32);
    /// Counts one more (or one less) connected socket of a backend.
    fn count_socket(&self, backend: u32, closed: bool);
    /// The route to a node's pod range.
    fn pod_route(&self, index: u32) -> Option<PodRoute>;
    /// A pod of this node.
    fn endpoint(&self, index: u32) -> Option<Endpoint>;
    /// What was learned about a pod of this node: bits of [`abi::route::seen`].
    fn seen(&self, index: u32) -> u32;
    /// Learns something about a pod of this node.
    fn mark_seen(&self, index: u32, bits: u32);
    /// A node's address.
    fn node(&self, addr: F::Addr) -> Option<NodeAddress>;
    /// A flow entry.
    fn flow(&self, table: FlowTable, key: &F::FlowKey) -> Option<Self::Entry>;
    /// Inserts a flow entry.
    fn insert_flow(
        &self,
        table: FlowTable,
        key: &F::FlowKey,
        value: &F::Flow,
        how: Insert,
    ) -> Result<(), Refused>;
    /// Deletes a flow entry if it is there.
    fn delete_flow(&self, table: FlowTable, key: &F::FlowKey);
    /// The ports of a datagram whose first fragment was seen.
    fn fragment(&self, key: &F::FragmentKey) -> Option<abi::fragment::Fragment>;
    /// Remembers the ports of a datagram's first fragment.
    fn remember_fragment(&self, key: &F::FragmentKey, ports: abi::fragment::Fragment);
    /// What affinity knows of a client's address.
    fn affinity(&self, key: &F::AffinityKey) -> Option<Affinity>;
    /// Notes a backend for a client's address.
    fn set_affinity(&self, key: &F::AffinityKey, entry: &Affinity);
}
