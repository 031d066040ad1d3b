//! How large tables are by default. Capacities may be raised at load; they are not part of the layout.

/// Frontends, per family.
pub const FRONTENDS: usize = 65_536;
/// Service ports.
pub const SERVICES: usize = 65_536;
/// Lines of 16 slots: one million slots.
pub const SLOT_LINES: usize = 65_536;
/// Backends, per family.
pub const BACKENDS: usize = 262_144;
/// Lines of 32 generations, per family.
pub const GENERATION_LINES: usize = BACKENDS / 32;
/// Next hops: pods of this node, other nodes, gateways.
pub const NEXTHOPS: usize = 16_384;
/// Node ranges of the cluster's pod network, per family.
pub const POD_ROUTES: usize = 65_536;
/// Pods of this node, by their index in the node's range, per family.
pub const ENDPOINTS: usize = 65_536;
/// Node addresses, per family.
pub const NODE_ADDRESSES: usize = 16_384;
/// Established flow entries (two for a translated connection), per family.
pub const FLOWS: usize = 262_144;
/// Sets of four flow entries not yet answered, per family: a power of two, which the programs use as a mask.
pub const FLOW_SETS: usize = 16_384;
/// Datagrams in fragments at one time, per family.
pub const FRAGMENTS: usize = 8_192;
/// Clients of services with affinity, known by their packets, per family.
pub const AFFINITIES: usize = 65_536;
/// Clients of services with affinity, known by their sockets.
pub const SOCKET_AFFINITIES: usize = 16_384;
/// Slots of sockets: a power of two, which the programs use as a mask.
pub const SOCKET_SLOTS: usize = 65_536;
/// Rows of source port rotors.
pub const ROTORS: usize = 4_096;
/// Bitmaps: node ports of TCP, UDP and SCTP, and the addresses of frontends by hash.
pub const PORT_BITMAPS: usize = 4;
/// Lines of 32 cells of Maglev tables: eight million cells.
pub const MAGLEV_LINES: usize = 262_144;
/// Ranges of allowed clients of all services, per family.
pub const SOURCE_RANGES: usize = 65_536;
/// Other nodes' hardware addresses.
pub const PEER_MACS: usize = 8_192;
/// Time for which lines and backend indexes stay untouched after the last run that named them was replaced.
pub const QUARANTINE_MS: u64 = 1_000;

/// Default range of source ports for translated clients: below node ports and the host's ephemeral range, so that
/// host sockets cannot collide.
pub const SNAT_PORTS: core::ops::RangeInclusive<u16> = 1_024..=29_999;
/// Second default range: above the host's ephemeral ports.
pub const SNAT_PORTS_HIGH: core::ops::RangeInclusive<u16> = 61_000..=65_535;
