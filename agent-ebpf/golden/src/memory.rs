//! Tables in memory: for each map, bytes by bytes, read through the types of `abi`.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
};

use abi::{
    Config, Ip4, Ip6, Mac, Port, Proto, Reason,
    affinity::{Affinity, AffinityKey4, AffinityKey6, SocketAffinityKey},
    backend::{Backend4, Backend6, GENERATIONS_PER_LINE, GenerationLine, Load},
    config::Control,
    flow::{Flow4, Flow6, FlowKey4, FlowKey6},
    fragment::{Fragment, FragmentKey4, FragmentKey6},
    frontend::{Frontend, FrontendKey4, FrontendKey6},
    maps::{self, PeerMac, PortBitmap},
    route::{Endpoint, Nexthop, NodeAddress, PodRoute},
    service::{MaglevLine, Run, Service, SlotLine},
    source::{SERVICE_BITS, SourceKey4, SourceKey6},
    stats::ServiceCounters,
};
use pipeline::{
    Common, Family, Tables, V4, V6,
    family::{Backend, Tuple},
    flow::Opening,
    parse::{Fragmented, Headers},
    route::Target,
    tables::{FlowEntry, FlowTable, Insert, Refused, Scratch},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::world::Sink;

/// Maps by name.
type Maps = HashMap<&'static str, HashMap<Vec<u8>, Vec<u8>>>;

/// The tables of one node.
#[derive(Clone, Debug)]
pub struct Memory {
    config: Config,
    maps: RefCell<Maps>,
    random: Cell<u32>,
    rotors: RefCell<HashMap<u32, u32>>,
    /// Now, in ticks.
    pub now: Cell<u32>,
    /// Drops by reason's number.
    pub drops: RefCell<[u64; Reason::COUNT]>,
}

impl Sink for Memory {
    fn put(&mut self, map: &'static str, key: &[u8], value: &[u8]) {
        self.write(map, key, value);
    }
}

impl Memory {
    /// Empty tables of a node.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            maps: RefCell::default(),
            random: Cell::new(0x2545_f491),
            rotors: RefCell::default(),
            now: Cell::new(100),
            drops: RefCell::new([0; Reason::COUNT]),
        }
    }

    /// Loads the programs anew with these features: what the agent does while the flow tables grow.
    pub fn set_features(&mut self, features: u32) {
        self.config.features = features;
    }

    /// Keeps the entries of a map for which `keep(key, value)` holds: what eviction or the agent would do.
    pub fn retain(&self, map: &'static str, keep: impl Fn(&[u8], &[u8]) -> bool) {
        if let Some(map) = self.maps.borrow_mut().get_mut(map) {
            map.retain(|key, value| keep(key, value));
        }
    }

    /// All entries of a map.
    pub fn entries(&self, map: &'static str) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.maps.borrow().get(map).into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    fn write(&self, map: &'static str, key: &[u8], value: &[u8]) {
        self.maps.borrow_mut().entry(map).or_default().insert(key.to_vec(), value.to_vec());
    }

    /// An entry of a hash.
    fn get<V: FromBytes>(&self, map: &'static str, key: &(impl IntoBytes + Immutable + ?Sized)) -> Option<V> {
        let maps = self.maps.borrow();
        V::read_from_bytes(maps.get(map)?.get(key.as_bytes())?).ok()
    }

    /// An element of an array, zero if it was never written.
    fn at<V: FromBytes + Default>(&self, map: &'static str, index: u32) -> V {
        self.get(map, &index).unwrap_or_default()
    }
}

impl Common for &Memory {
    fn config(&self) -> &Config {
        &self.config
    }

    fn switches(&self) -> u32 {
        self.at::<Control>(maps::CFG.name, 0).switches
    }

    fn now(&self) -> u32 {
        self.now.get()
    }

    fn cpu(&self) -> u32 {
        0
    }

    fn random(&self) -> u32 {
        let mut state = self.random.get();
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        self.random.set(state);
        state
    }

    fn service(&self, id: u32) -> Option<Service> {
        Some(self.at(maps::SVC.name, id))
    }

    fn slot(&self, line: u32, slot: u32) -> Option<u32> {
        Some(self.at::<SlotLine>(maps::SLOTS.name, line).backends[slot as usize & 15])
    }

    fn maglev(&self, service: u32, local: bool) -> Run {
        let service: Service = self.at(maps::SVC.name, service);
        if local { service.maglev_local } else { service.maglev_cluster }
    }

    fn cell(&self, line: u32, cell: u32) -> Option<u16> {
        Some(self.at::<MaglevLine>(maps::MAGLEV.name, line).cells[cell as usize & 31])
    }

    fn turn(&self, service: u32) -> u32 {
        let mut counters: ServiceCounters = self.at(maps::SVCSTAT.name, service);
        counters.turn += 1;
        self.write(maps::SVCSTAT.name, service.as_bytes(), counters.as_bytes());
        counters.turn as u32 - 1
    }

    fn nexthop(&self, index: u32) -> Option<Nexthop> {
        Some(self.at(maps::NEXTHOP.name, index))
    }

    fn bit(&self, row: u32, bit: u16) -> bool {
        self.get::<PortBitmap>(maps::PORTS.name, &row)
            .is_some_and(|bitmap| bitmap[usize::from(bit / 64)] >> (bit % 64) & 1 != 0)
    }

    fn rotor(&self, backend: u32) -> u32 {
        let mut rotors = self.rotors.borrow_mut();
        let next = rotors.entry(backend).or_default();
        *next += 1;
        *next - 1
    }

    fn is_peer(&self, mac: Mac) -> bool {
        self.get::<u32>(maps::PEERMAC.name, &PeerMac { mac, _pad: 0 }).is_some()
    }

    fn socket_affinity(&self, key: &SocketAffinityKey) -> Option<Affinity> {
        self.get(maps::AFFSK.name, key)
    }

    fn set_socket_affinity(&self, key: &SocketAffinityKey, entry: &Affinity) {
        self.write(maps::AFFSK.name, key.as_bytes(), entry.as_bytes());
    }

    fn count(&self, _service: u32, _add: impl FnOnce(&mut ServiceCounters)) {}

    fn count_drop(&self, reason: Reason) {
        self.drops.borrow_mut()[reason as usize] += 1;
    }
}

/// Whether the first `len` bits of both are the same.
fn same_bits(one: &[u8], other: &[u8], len: usize) -> bool {
    let bit = |bytes: &[u8], i: usize| bytes[i / 8] >> (7 - i % 8) & 1;
    (0..len).all(|i| bit(one, i) == bit(other, i))
}

/// A flow entry in memory.
pub struct Entry<'a> {
    memory: &'a Memory,
    map: &'static str,
    key: Vec<u8>,
}

fn empty<A: Copy>(addr: A) -> Tuple<A> {
    Tuple { src: addr, dst: addr, sport: Port(0), dport: Port(0), proto: Proto(0) }
}

fn scratch<F: Family>(addr: F::Addr, flow: F::Flow) -> Scratch<F> {
    let tuple = empty(addr);
    let fragmented = Fragmented::Whole;
    let headers = Headers { tuple, l3: 0, l4: 0, ttl: 0, tcp: 0, fragmented, fragment_id: 0, len: 0 };
    Scratch {
        headers,
        inner: headers,
        key: F::flow_key(&tuple),
        opening: Opening {
            client: tuple,
            src: addr,
            dst: addr,
            dport: Port(0),
            service: 0,
            backend: 0,
            generation: 0,
            flags: 0,
            nexthop: 0,
            ifindex: 0,
            mac: Mac::default(),
            tcp: 0,
            mss: 0,
            unrecorded: false,
        },
        flow,
        reverse: flow,
        target: Target::STACK,
        remains: 0,
    }
}

/// The tables of one family over its maps.
macro_rules! family_tables {
    ($family:ident, $addr:ty, $flow:ident, $flow_key:ident, $fragment_key:ident, $frontend_key:ident, $backend:ident,
     $affinity_key:ident, $source_key:ident,
     $fe:ident, $srcr:ident, $load:ident, $be:ident, $begen:ident, $podroute:ident, $ep:ident, $epseen:ident, $nodeip:ident,
     $flows:ident, $next:ident, $flowq:ident, $frag:ident, $aff:ident) => {
        impl FlowEntry<$family> for Entry<'_> {
            fn copy_to(&self, out: &mut $flow) {
                *out = self.memory.get::<$flow>(self.map, &self.key[..]).unwrap_or_default();
            }

            fn touch(&self, now: u32, tcp: u8) {
                let mut flow = $flow::default();
                FlowEntry::<$family>::copy_to(self, &mut flow);
                flow.state.last_seen = now;
                flow.state.tcp |= tcp;
                self.memory.write(self.map, &self.key, flow.as_bytes());
            }
        }

        impl<'a> Tables<$family> for &'a Memory {
            type Entry = Entry<'a>;
            type Scratch = Box<Scratch<$family>>;

            fn scratch(&self) -> Option<Box<Scratch<$family>>> {
                Some(Box::new(scratch(<$addr>::default(), $flow::default())))
            }

            fn frontend(&self, key: &$frontend_key) -> Option<Frontend> {
                self.get(maps::$fe.name, key)
            }

            fn allows(&self, service: u32, client: $addr) -> bool {
                self.entries(maps::$srcr.name).iter().any(|(key, _)| {
                    let range = $source_key::read_from_bytes(key).unwrap_or_default();
                    range.client.service == service
                        && same_bits(
                            range.client.addr.as_bytes(),
                            client.as_bytes(),
                            range.prefix_len.saturating_sub(SERVICE_BITS) as usize,
                        )
                })
            }

            fn backend(&self, index: u32) -> Option<Backend<$family>> {
                Some(self.at::<$backend>(maps::$be.name, index).into())
            }

            fn generation(&self, backend: u32) -> u16 {
                let line: GenerationLine = self.at(maps::$begen.name, backend / GENERATIONS_PER_LINE);
                line.generations[(backend % GENERATIONS_PER_LINE) as usize]
            }

            fn load(&self, backend: u32) -> u32 {
                let load: Load = self.at(maps::$load.name, backend);
                load.flows + load.sockets
            }

            fn count_flow(&self, backend: u32) {
                let mut load: Load = self.at(maps::$load.name, backend);
                load.flows += 1;
                self.write(maps::$load.name, backend.as_bytes(), load.as_bytes());
            }

            fn count_socket(&self, backend: u32, closed: bool) {
                let mut load: Load = self.at(maps::$load.name, backend);
                load.sockets = if closed { load.sockets - 1 } else { load.sockets + 1 };
                self.write(maps::$load.name, backend.as_bytes(), load.as_bytes());
            }

            fn pod_route(&self, index: u32) -> Option<PodRoute> {
                Some(self.at(maps::$podroute.name, index))
            }

            fn endpoint(&self, index: u32) -> Option<Endpoint> {
                Some(self.at(maps::$ep.name, index))
            }

            fn seen(&self, index: u32) -> u32 {
                self.at(maps::$epseen.name, index)
            }

            fn mark_seen(&self, index: u32, bits: u32) {
                self.write(maps::$epseen.name, index.as_bytes(), bits.as_bytes());
            }

            fn node(&self, addr: $addr) -> Option<NodeAddress> {
                self.get(maps::$nodeip.name, &addr)
            }

            fn flow(&self, table: FlowTable, key: &$flow_key) -> Option<Entry<'a>> {
                let map = match table {
                    FlowTable::Established => maps::$flows.name,
                    FlowTable::Next => maps::$next.name,
                    FlowTable::Embryonic => maps::$flowq.name,
                };
                self.get::<$flow>(map, key)?;
                Some(Entry { memory: self, map, key: key.as_bytes().to_vec() })
            }

            fn insert_flow(
                &self,
                table: FlowTable,
                key: &$flow_key,
                value: &$flow,
                how: Insert,
            ) -> Result<(), Refused> {
                let map = match table {
                    FlowTable::Established => maps::$flows.name,
                    FlowTable::Next => maps::$next.name,
                    FlowTable::Embryonic => maps::$flowq.name,
                };
                if how == Insert::New && self.get::<$flow>(map, key).is_some() {
                    return Err(Refused::Exists);
                }
                self.write(map, key.as_bytes(), value.as_bytes());
                Ok(())
            }

            fn delete_flow(&self, table: FlowTable, key: &$flow_key) {
                let map = match table {
                    FlowTable::Established => maps::$flows.name,
                    FlowTable::Next => maps::$next.name,
                    FlowTable::Embryonic => maps::$flowq.name,
                };
                if let Some(map) = self.maps.borrow_mut().get_mut(map) {
                    map.remove(key.as_bytes());
                }
            }

            fn fragment(&self, key: &$fragment_key) -> Option<Fragment> {
                self.get(maps::$frag.name, key)
            }

            fn remember_fragment(&self, key: &$fragment_key, ports: Fragment) {
                self.write(maps::$frag.name, key.as_bytes(), ports.as_bytes());
            }

            fn affinity(&self, key: &$affinity_key) -> Option<Affinity> {
                self.get(maps::$aff.name, key)
            }

            fn set_affinity(&self, key: &$affinity_key, entry: &Affinity) {
                self.write(maps::$aff.name, key.as_bytes(), entry.as_bytes());
            }
        }
    };
}

family_tables!(
    V4,
    Ip4,
    Flow4,
    FlowKey4,
    FragmentKey4,
    FrontendKey4,
    Backend4,
    AffinityKey4,
    SourceKey4,
    FE4,
    SRCR4,
    LOAD4,
    BE4,
    BEGEN4,
    PODROUTE4,
    EP4,
    EPSEEN4,
    NODEIP4,
    FLOW4,
    FLOW4_NEXT,
    FLOWQ4,
    FRAG4,
    AFF4
);
family_tables!(
    V6,
    Ip6,
    Flow6,
    FlowKey6,
    FragmentKey6,
    FrontendKey6,
    Backend6,
    AffinityKey6,
    SourceKey6,
    FE6,
    SRCR6,
    LOAD6,
    BE6,
    BEGEN6,
    PODROUTE6,
    EP6,
    EPSEEN6,
    NODEIP6,
    FLOW6,
    FLOW6_NEXT,
    FLOWQ6,
    FRAG6,
    AFF6
);
