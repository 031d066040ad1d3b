//! The maps, declared once, and the tables that the stages see through them.
//!
//! What each map holds, who writes and who reads it, and what a stale entry does stands in `abi::maps::MAPS`; this
//! file gives each its type. Reads are copies; where a value is shared with a concurrent writer the comment says why a
//! torn read does no harm.
#![expect(unsafe_code, reason = "map values are reached by pointer: one of the two files that may")]

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use abi::{
    Config, Ip4, Ip6, Mac, Reason,
    affinity::{Affinity, AffinityKey4, AffinityKey6, SocketAffinityKey},
    backend::{Backend4, Backend6, GenerationLine, Load},
    config::Control,
    flow::{Flow4, Flow6, FlowKey4, FlowKey6, FlowState},
    fragment::{Fragment, FragmentKey4, FragmentKey6},
    frontend::{Frontend, FrontendKey4, FrontendKey6},
    limits,
    maps::{PeerMac, PortBitmap},
    route::{Endpoint, Nexthop, NodeAddress, PodRoute},
    service::{MaglevLine, Run, Service, SlotLine},
    socket::SocketReverse,
    source::{SERVICE_BITS, SourceClient4, SourceClient6},
    stats::{DropCounter, Rotor, ServiceCounters},
};
use aya_ebpf::{
    Global,
    bindings::{BPF_ANY, BPF_F_MMAPABLE, BPF_NOEXIST},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, SkStorage, lpm_trie::Key as LpmKey},
    helpers::{
        bpf_get_prandom_u32,
        generated::{bpf_get_smp_processor_id, bpf_ktime_get_coarse_ns},
    },
    macros::btf_map,
};
use pipeline::{
    Common, Tables, V4, V6,
    family::Backend,
    tables::{FlowEntry, FlowTable, Insert, Refused, Scratch},
};

mod sets;
mod slots;

pub use slots::Slot;

const MAPPED: usize = BPF_F_MMAPABLE as usize;
const EEXIST: i32 = 17;

#[btf_map(name = "bl1_fe4")]
static FE4: HashMap<FrontendKey4, Frontend, { limits::FRONTENDS }> = HashMap::new();
#[btf_map(name = "bl1_fe6")]
static FE6: HashMap<FrontendKey6, Frontend, { limits::FRONTENDS }> = HashMap::new();
#[btf_map(name = "bl1_svc")]
static SVC: Array<Service, { limits::SERVICES }, MAPPED> = Array::new();
#[btf_map(name = "bl1_slots")]
static SLOTS: Array<SlotLine, { limits::SLOT_LINES }, MAPPED> = Array::new();
#[btf_map(name = "bl1_maglev")]
static MAGLEV: Array<MaglevLine, { limits::MAGLEV_LINES }, MAPPED> = Array::new();
#[btf_map(name = "bl1_srcr4")]
static SRCR4: LpmTrie<SourceClient4, u32, { limits::SOURCE_RANGES }> = LpmTrie::new();
#[btf_map(name = "bl1_srcr6")]
static SRCR6: LpmTrie<SourceClient6, u32, { limits::SOURCE_RANGES }> = LpmTrie::new();
#[btf_map(name = "bl1_load4")]
static LOAD4: Array<Load, { limits::BACKENDS }, MAPPED> = Array::new();
#[btf_map(name = "bl1_load6")]
static LOAD6: Array<Load, { limits::BACKENDS }, MAPPED> = Array::new();
#[btf_map(name = "bl1_be4")]
static BE4: Array<Backend4, { limits::BACKENDS }, MAPPED> = Array::new();
#[btf_map(name = "bl1_be6")]
static BE6: Array<Backend6, { limits::BACKENDS }, MAPPED> = Array::new();
#[btf_map(name = "bl1_begen4")]
static BEGEN4: Array<GenerationLine, { limits::GENERATION_LINES }, MAPPED> = Array::new();
#[btf_map(name = "bl1_begen6")]
static BEGEN6: Array<GenerationLine, { limits::GENERATION_LINES }, MAPPED> = Array::new();
#[btf_map(name = "bl1_nexthop")]
static NEXTHOP: Array<Nexthop, { limits::NEXTHOPS }, MAPPED> = Array::new();
#[btf_map(name = "bl1_podroute4")]
static PODROUTE4: Array<PodRoute, { limits::POD_ROUTES }, MAPPED> = Array::new();
#[btf_map(name = "bl1_podroute6")]
static PODROUTE6: Array<PodRoute, { limits::POD_ROUTES }, MAPPED> = Array::new();
#[btf_map(name = "bl1_ep4")]
static EP4: Array<Endpoint, { limits::ENDPOINTS }, MAPPED> = Array::new();
#[btf_map(name = "bl1_ep6")]
static EP6: Array<Endpoint, { limits::ENDPOINTS }, MAPPED> = Array::new();
#[btf_map(name = "bl1_epseen4")]
static EPSEEN4: Array<u32, { limits::ENDPOINTS }, MAPPED> = Array::new();
#[btf_map(name = "bl1_epseen6")]
static EPSEEN6: Array<u32, { limits::ENDPOINTS }, MAPPED> = Array::new();
#[btf_map(name = "bl1_nodeip4")]
static NODEIP4: HashMap<Ip4, NodeAddress, { limits::NODE_ADDRESSES }> = HashMap::new();
#[btf_map(name = "bl1_nodeip6")]
static NODEIP6: HashMap<Ip6, NodeAddress, { limits::NODE_ADDRESSES }> = HashMap::new();
#[btf_map(name = "bl1_peermac")]
static PEERMAC: HashMap<PeerMac, u32, { limits::PEER_MACS }> = HashMap::new();
#[btf_map(name = "bl1_flow4")]
static FLOW4: HashMap<FlowKey4, Flow4, { limits::FLOWS }> = HashMap::new();
#[btf_map(name = "bl1_flow6")]
static FLOW6: HashMap<FlowKey6, Flow6, { limits::FLOWS }> = HashMap::new();
#[btf_map(name = "bl1_flow4n")]
static FLOW4_NEXT: HashMap<FlowKey4, Flow4, 1> = HashMap::new();
#[btf_map(name = "bl1_flow6n")]
static FLOW6_NEXT: HashMap<FlowKey6, Flow6, 1> = HashMap::new();
#[btf_map(name = "bl1_frag4")]
static FRAG4: LruHashMap<FragmentKey4, Fragment, { limits::FRAGMENTS }> = LruHashMap::new();
#[btf_map(name = "bl1_frag6")]
static FRAG6: LruHashMap<FragmentKey6, Fragment, { limits::FRAGMENTS }> = LruHashMap::new();
#[btf_map(name = "bl1_aff4")]
static AFF4: LruHashMap<AffinityKey4, Affinity, { limits::AFFINITIES }> = LruHashMap::new();
#[btf_map(name = "bl1_aff6")]
static AFF6: LruHashMap<AffinityKey6, Affinity, { limits::AFFINITIES }> = LruHashMap::new();
#[btf_map(name = "bl1_affsk")]
static AFFSK: LruHashMap<SocketAffinityKey, Affinity, { limits::SOCKET_AFFINITIES }> = LruHashMap::new();
#[btf_map(name = "bl1_rotor")]
static ROTOR: PerCpuArray<Rotor, { limits::ROTORS }> = PerCpuArray::new();
#[btf_map(name = "bl1_ports")]
static PORTS: Array<PortBitmap, { limits::PORT_BITMAPS }, MAPPED> = Array::new();
#[btf_map(name = "bl1_drops")]
static DROPS: PerCpuArray<DropCounter, { Reason::COUNT }> = PerCpuArray::new();
#[btf_map(name = "bl1_svcstat")]
static SVCSTAT: PerCpuArray<ServiceCounters, { limits::SERVICES }> = PerCpuArray::new();
#[btf_map(name = "bl1_cfg")]
static CFG: Array<Control, 1, MAPPED> = Array::new();
/// Private to the programs: see [`Scratch`].
#[btf_map(name = "bl1_scratch4")]
static SCRATCH4: PerCpuArray<Scratch<V4>, 1> = PerCpuArray::new();
/// Private to the programs: see [`Scratch`].
#[btf_map(name = "bl1_scratch6")]
static SCRATCH6: PerCpuArray<Scratch<V6>, 1> = PerCpuArray::new();
/// The socket's own storage; [`crate::ctx::SockAddr`] reads and writes it.
#[btf_map(name = "bl1_skrev")]
pub static SKREV: SkStorage<SocketReverse> = SkStorage::new();

#[unsafe(no_mangle)]
static BL_CONFIG: Global<Config> = Global::new(Config::EMPTY);

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The tables.
#[derive(Clone, Copy)]
pub struct Maps;

/// A flow's value in its map.
pub struct FlowPtr<V>(*mut V);

impl Common for Maps {
    #[inline(always)]
    fn config(&self) -> &Config {
        let mut config: *const Global<Config> = &raw const BL_CONFIG;
        // SAFETY: `Global` is transparent over `Config`. The move onto itself hides the address from the compiler,
        // which would otherwise fold the initial value; the loader replaces it before the first run.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) config, options(pure, readonly, nostack));
            &*config.cast::<Config>()
        }
    }

    #[inline(always)]
    fn switches(&self) -> u32 {
        CFG.get(0).map_or(0, |control| control.switches)
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: the helper has no arguments and no preconditions.
        (unsafe { bpf_ktime_get_coarse_ns() } >> abi::flow::TICK_SHIFT) as u32
    }

    #[inline(always)]
    fn cpu(&self) -> u32 {
        // SAFETY: the helper has no arguments and no preconditions.
        unsafe { bpf_get_smp_processor_id() }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper has no arguments and no preconditions.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn service(&self, id: u32) -> Option<Service> {
        let service = SVC.get_ptr(id)?;
        // SAFETY: a live array element. The run words are read by one volatile load each, as the publication rule
        // asks; the other fields change only by themselves.
        unsafe {
            let run = |word: *const Run| word.read_volatile();
            Some(Service {
                run_cluster: run(&raw const (*service).run_cluster),
                run_local: run(&raw const (*service).run_local),
                maglev_cluster: Run::EMPTY,
                flags: (*service).flags,
                affinity_s: (*service).affinity_s,
                stats: (*service).stats,
                config_generation: 0,
                maglev_local: Run::EMPTY,
                _spare: [0; 4],
            })
        }
    }

    #[inline(always)]
    fn slot(&self, line: u32, slot: u32) -> Option<u32> {
        let line = SLOTS.get_ptr(line)?;
        // SAFETY: the mask keeps the index inside the line of 16.
        Some(unsafe { line.cast::<u32>().add(slot as usize & 15).read() })
    }

    #[inline(always)]
    fn maglev(&self, service: u32, local: bool) -> Run {
        SVC.get_ptr(service).map_or(Run::EMPTY, |service| {
            // SAFETY: a live array element, the word read by one load.
            unsafe {
                if local {
                    (&raw const (*service).maglev_local).read_volatile()
                } else {
                    (&raw const (*service).maglev_cluster).read_volatile()
                }
            }
        })
    }

    #[inline(always)]
    fn cell(&self, line: u32, cell: u32) -> Option<u16> {
        let line = MAGLEV.get_ptr(line)?;
        // SAFETY: the mask keeps the index inside the line of 32.
        Some(unsafe { line.cast::<u16>().add(cell as usize & 31).read() })
    }

    #[inline(always)]
    fn turn(&self, service: u32) -> u32 {
        SVCSTAT.get_ptr_mut(service).map_or(0, |counters| {
            // SAFETY: this CPU's own element. Programs that interrupt each other there give one turn twice at worst.
            unsafe {
                let turn = (*counters).turn;
                (*counters).turn = turn.wrapping_add(1);
                turn as u32
            }
        })
    }

    #[inline(always)]
    fn nexthop(&self, index: u32) -> Option<Nexthop> {
        NEXTHOP.get(index).copied()
    }

    #[inline(always)]
    fn bit(&self, row: u32, bit: u16) -> bool {
        PORTS.get_ptr(row).is_some_and(|bitmap| {
            // SAFETY: a 16-bit number divided by 64 is below the bitmap's 1,024 words.
            let word = unsafe { bitmap.cast::<u64>().add(usize::from(bit >> 6)).read() };
            word >> (bit & 63) & 1 != 0
        })
    }

    #[inline(always)]
    fn rotor(&self, backend: u32) -> u32 {
        ROTOR.get_ptr_mut(backend & (limits::ROTORS as u32 - 1)).map_or(0, |rotor| {
            // SAFETY: this CPU's own element; programs on one CPU do not preempt each other on the packet path.
            unsafe {
                let next = (*rotor).next;
                (*rotor).next = next.wrapping_add(1);
                next
            }
        })
    }

    #[inline(always)]
    fn is_peer(&self, mac: Mac) -> bool {
        PEERMAC.get_ptr(&PeerMac { mac, _pad: 0 }).is_some()
    }

    #[inline(always)]
    fn socket_affinity(&self, key: &SocketAffinityKey) -> Option<Affinity> {
        AFFSK.get_ptr(key).map(affinity)
    }

    #[inline(always)]
    fn set_socket_affinity(&self, key: &SocketAffinityKey, entry: &Affinity) {
        // Without room the client's next connection is a new client's.
        let _: Result<(), i32> = AFFSK.insert(key, entry, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn count(&self, service: u32, add: impl FnOnce(&mut ServiceCounters)) {
        if let Some(counters) = SVCSTAT.get_ptr_mut(service) {
            // SAFETY: this CPU's own element.
            add(unsafe { &mut *counters });
        }
    }

    #[inline(always)]
    fn count_drop(&self, reason: Reason) {
        if let Some(counter) = DROPS.get_ptr_mut(reason as u32) {
            // SAFETY: this CPU's own element.
            unsafe { (*counter).packets = (*counter).packets.wrapping_add(1) };
        }
    }
}

/// The tables of one family over its maps.
macro_rules! family_tables {
    ($family:ident, $addr:ty, $flow:ident, $flow_key:ident, $fragment_key:ident, $frontend_key:ident,
     $affinity_key:ident, $client:ident,
     $fe:ident, $srcr:ident, $load:ident, $be:ident, $begen:ident, $podroute:ident, $ep:ident, $epseen:ident, $nodeip:ident,
     $flows:ident, $next:ident, $frag:ident, $aff:ident, $scratch:ident) => {
        impl FlowEntry<$family> for FlowPtr<$flow> {
            #[inline(always)]
            fn copy_to(&self, out: &mut $flow) {
                // SAFETY: a live element, and `out` is in another map. The element may be reused for another key while it is
                // read: the reader checks the signature of its copy. (An assignment would copy by way of the stack.)
                unsafe { core::ptr::copy_nonoverlapping(self.0, out, 1) };
                // The signature once more, after all else: see [`sets`].
                sets::in_order();
                // SAFETY: as above.
                out.state.signature = unsafe { (&raw const (*self.0).state.signature).read_volatile() };
            }

            #[inline(always)]
            fn touch(&self, now: u32, tcp: u8) {
                // SAFETY: as above; a write that meets a reused element costs that flow a wrong time stamp at worst.
                touch(unsafe { &raw mut (*self.0).state }, now, tcp);
            }
        }

        impl Tables<$family> for Maps {
            type Entry = FlowPtr<$flow>;
            type Scratch = &'static mut Scratch<$family>;

            #[inline(always)]
            fn scratch(&self) -> Option<&'static mut Scratch<$family>> {
                // SAFETY: this CPU's own element; packet programs do not nest on a CPU, and a packet takes it once.
                $scratch.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
            }

            #[inline(always)]
            fn frontend(&self, key: &$frontend_key) -> Option<Frontend> {
                // SAFETY: copied at once; an id read from a reused element names another complete service.
                unsafe { $fe.get(key).copied() }
            }

            #[inline(always)]
            fn allows(&self, service: u32, client: $addr) -> bool {
                $srcr
                    .get(&LpmKey::new(
                        SERVICE_BITS + 8 * size_of::<$addr>() as u32,
                        $client { service, addr: client },
                    ))
                    .is_some()
            }

            #[inline(always)]
            fn backend(&self, index: u32) -> Option<Backend<$family>> {
                $be.get(index).map(|backend| (*backend).into())
            }

            #[inline(always)]
            fn generation(&self, backend: u32) -> u16 {
                $begen.get_ptr(backend / abi::backend::GENERATIONS_PER_LINE).map_or(0, |line| {
                    // SAFETY: the mask keeps the index inside the line of 32.
                    unsafe { line.cast::<u16>().add(backend as usize & 31).read() }
                })
            }

            #[inline(always)]
            fn load(&self, backend: u32) -> u32 {
                // Sockets of an index's former backend may still be closed after the agent has cleared it: below zero is none.
                $load.get(backend).map_or(0, |load| {
                    let sockets = load.sockets as i32;
                    load.flows.wrapping_add(if sockets > 0 { sockets as u32 } else { 0 })
                })
            }

            #[inline(always)]
            fn count_flow(&self, backend: u32) {
                if let Some(load) = $load.get_ptr_mut(backend) {
                    // SAFETY: a live element.
                    add(unsafe { &raw mut (*load).flows }, 1);
                }
            }

            #[inline(always)]
            fn count_socket(&self, backend: u32, closed: bool) {
                if let Some(load) = $load.get_ptr_mut(backend) {
                    // SAFETY: a live element.
                    add(unsafe { &raw mut (*load).sockets }, if closed { u32::MAX } else { 1 });
                }
            }

            #[inline(always)]
            fn pod_route(&self, index: u32) -> Option<PodRoute> {
                $podroute.get(index).copied()
            }

            #[inline(always)]
            fn endpoint(&self, index: u32) -> Option<Endpoint> {
                $ep.get(index).copied()
            }

            #[inline(always)]
            fn seen(&self, index: u32) -> u32 {
                $epseen.get(index).map_or(0, |bits| *bits)
            }

            #[inline(always)]
            fn mark_seen(&self, index: u32, bits: u32) {
                if let Some(seen) = $epseen.get_ptr_mut(index) {
                    // SAFETY: a live element; all writers on the packet path store the same bit.
                    unsafe { seen.write(bits) };
                }
            }

            #[inline(always)]
            fn node(&self, addr: $addr) -> Option<NodeAddress> {
                // SAFETY: copied at once; entries change with the cluster's nodes only.
                unsafe { $nodeip.get(&addr).copied() }
            }

            #[inline(always)]
            fn flow(&self, table: FlowTable, key: &$flow_key) -> Option<FlowPtr<$flow>> {
                match table {
                    FlowTable::Established => $flows.get_ptr_mut(key),
                    FlowTable::Next => $next.get_ptr_mut(key),
                    FlowTable::Embryonic => sets::find::<$flow>(key),
                }
                .map(FlowPtr)
            }

            #[inline(always)]
            fn insert_flow(
                &self,
                table: FlowTable,
                key: &$flow_key,
                value: &$flow,
                how: Insert,
            ) -> Result<(), Refused> {
                if matches!(table, FlowTable::Embryonic) {
                    return sets::insert::<$flow>(key, value, matches!(how, Insert::Replace));
                }
                let flags = u64::from(match how {
                    Insert::New => BPF_NOEXIST,
                    Insert::Replace => BPF_ANY,
                });
                match table {
                    FlowTable::Established => $flows.insert(key, value, flags),
                    _ => $next.insert(key, value, flags),
                }
                .map_err(|errno| if errno == -EEXIST { Refused::Exists } else { Refused::Full })
            }

            #[inline(always)]
            fn delete_flow(&self, table: FlowTable, key: &$flow_key) {
                // A missing entry is what was wanted.
                let _: Result<(), i32> = match table {
                    FlowTable::Established => $flows.remove(key),
                    FlowTable::Next => $next.remove(key),
                    FlowTable::Embryonic => {
                        <$flow as sets::Value>::remove(key);
                        Ok(())
                    }
                };
            }

            #[inline(always)]
            fn fragment(&self, key: &$fragment_key) -> Option<Fragment> {
                // SAFETY: copied at once; wrong ports from a reused element lose one fragment.
                unsafe { $frag.get(key).copied() }
            }

            #[inline(always)]
            fn remember_fragment(&self, key: &$fragment_key, ports: Fragment) {
                // Without room the later fragments are counted as unknown.
                let _: Result<(), i32> = $frag.insert(key, &ports, u64::from(BPF_ANY));
            }

            #[inline(always)]
            fn affinity(&self, key: &$affinity_key) -> Option<Affinity> {
                $aff.get_ptr(key).map(affinity)
            }

            #[inline(always)]
            fn set_affinity(&self, key: &$affinity_key, entry: &Affinity) {
                // Without room the client's next connection is a new client's.
                let _: Result<(), i32> = $aff.insert(key, entry, u64::from(BPF_ANY));
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
    AffinityKey4,
    SourceClient4,
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
    FRAG4,
    AFF4,
    SCRATCH4
);
family_tables!(
    V6,
    Ip6,
    Flow6,
    FlowKey6,
    FragmentKey6,
    FrontendKey6,
    AffinityKey6,
    SourceClient6,
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
    FRAG6,
    AFF6,
    SCRATCH6
);

/// Copies an entry out; service and backend by one load.
#[inline(always)]
fn affinity(entry: *const Affinity) -> Affinity {
    // SAFETY: a live element of two aligned words. It may be reused for another key while it is read: the reader compares the
    // service, and a generation or time of another client of the same service costs one client its backend at worst.
    let words = unsafe { entry.cast::<[u64; 2]>().read_volatile() };
    abi::zerocopy::transmute!(words)
}

/// Adds to a number that all CPUs share.
#[inline(always)]
fn add(number: *mut u32, by: u32) {
    // SAFETY: points into a live map value (see the callers), aligned as its type.
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(number, by) };
}

#[inline(always)]
fn touch(state: *mut FlowState, now: u32, tcp: u8) {
    // SAFETY: points into a live map value (see the callers).
    unsafe {
        if (*state).last_seen != now {
            (*state).last_seen = now;
        }
        if (*state).tcp | tcp != (*state).tcp {
            (*state).tcp |= tcp;
        }
    }
}
