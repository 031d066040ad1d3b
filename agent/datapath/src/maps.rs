//! The pinned maps as handles: mapped arrays for what the agent publishes, hashes for what it inserts.
//!
//! Opened by the loader after it has made what was missing or, for status, from the pins alone and read-only.

use std::io;
use std::path::PathBuf;

use abi::backend::{GenerationLine, Load};
use abi::config::Control;
use abi::frontend::Frontend;
use abi::maps::{self as spec, MapSpec, PeerMac, PortBitmap};
use abi::route::{Endpoint, Nexthop, NodeAddress, PodRoute};
use abi::service::{MaglevLine, Service, SlotLine};
use abi::socket::SocketSlot;
use abi::stats::DropCounter;
use zerocopy::FromBytes;

use crate::encode::{V4, V6, Wire};
use crate::sys::{MappedArray, RawMap};
use crate::table::{Bytes, Table};

/// Why the maps cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    /// No agent has run here.
    #[error("{0} does not exist: no agent has run with this directory")]
    Absent(PathBuf),
    /// A map could not be opened or mapped.
    #[error("map {name}: {source}")]
    Open {
        /// Name of the map.
        name: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The directory of the maps.
    #[error("{path}: {source}")]
    Directory {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The tables of one family.
pub struct FamilyMaps<F: Wire> {
    /// Frontends.
    pub fe: Table<F::FrontendKey, Frontend>,
    /// Allowed clients.
    pub srcr: Table<F::SourceKey, u32>,
    /// Node addresses.
    pub nodeip: Table<F::Address, NodeAddress>,
    /// Backends.
    pub be: MappedArray<F::Backend>,
    /// Generations.
    pub begen: MappedArray<GenerationLine>,
    /// Connections of backends.
    pub load: MappedArray<Load>,
    /// Pod ranges.
    pub podroute: MappedArray<PodRoute>,
    /// Pods of this node.
    pub ep: MappedArray<Endpoint>,
    /// What programs learned of this node's pods: a 32-bit word padded to 64.
    pub epseen: MappedArray<u64>,
}

/// The maps that the agent writes or reads.
pub struct Maps {
    /// IPv4.
    pub v4: FamilyMaps<V4>,
    /// IPv6.
    pub v6: FamilyMaps<V6>,
    /// Service ports.
    pub svc: MappedArray<Service>,
    /// Slots.
    pub slots: MappedArray<SlotLine>,
    /// Cells of Maglev tables.
    pub maglev: MappedArray<MaglevLine>,
    /// Next hops.
    pub nexthop: MappedArray<Nexthop>,
    /// Hardware addresses of other nodes.
    pub peermac: Table<PeerMac, u32>,
    /// Node ports, and addresses outside the service range.
    pub ports: MappedArray<PortBitmap>,
    /// Switches.
    pub cfg: MappedArray<Control>,
    /// Peers of connected sockets.
    pub skslot: MappedArray<SocketSlot>,
    drops: RawMap,
}

/// Where maps are opened from.
pub struct Source<'a> {
    /// Pin of a map.
    pub path: &'a dyn Fn(&MapSpec) -> PathBuf,
    /// Whether the agent will write.
    pub writable: bool,
}

impl Maps {
    /// Opens the pinned maps.
    pub fn open(from: &Source<'_>) -> Result<Self, MapsError> {
        let cfg = (from.path)(&spec::CFG);
        if !cfg.exists() {
            return Err(MapsError::Absent(cfg));
        }
        Ok(Self {
            v4: FamilyMaps::open(from, &FOUR)?,
            v6: FamilyMaps::open(from, &SIX)?,
            svc: from.array(&spec::SVC)?,
            slots: from.array(&spec::SLOTS)?,
            maglev: from.array(&spec::MAGLEV)?,
            nexthop: from.array(&spec::NEXTHOP)?,
            peermac: from.table(&spec::PEERMAC)?,
            ports: from.array(&spec::PORTS)?,
            cfg: from.array(&spec::CFG)?,
            skslot: from.array(&spec::SKSLOT)?,
            drops: from.raw(&spec::DROPS)?,
        })
    }

    /// The switches as they stand.
    pub fn control(&self) -> Control {
        self.cfg.get(0).unwrap_or_default()
    }

    /// Packets dropped for a reason, on all CPUs.
    pub fn drops(&self, reason: abi::Reason) -> u64 {
        let mut values = vec![0; self.drops.value_bytes()];
        let read = self.drops.lookup(&(reason as u32).to_ne_bytes(), &mut values);
        if !matches!(read, Ok(true)) {
            return 0;
        }
        let cpus = values.chunks_exact(size_of::<DropCounter>());
        cpus.filter_map(|cpu| DropCounter::read_from_bytes(cpu).ok()).map(|counter| counter.packets).sum()
    }
}

/// The maps of a family, by what they hold.
struct Specs {
    fe: MapSpec,
    srcr: MapSpec,
    nodeip: MapSpec,
    be: MapSpec,
    begen: MapSpec,
    load: MapSpec,
    podroute: MapSpec,
    ep: MapSpec,
    epseen: MapSpec,
}

const FOUR: Specs = Specs {
    fe: spec::FE4,
    srcr: spec::SRCR4,
    nodeip: spec::NODEIP4,
    be: spec::BE4,
    begen: spec::BEGEN4,
    load: spec::LOAD4,
    podroute: spec::PODROUTE4,
    ep: spec::EP4,
    epseen: spec::EPSEEN4,
};

const SIX: Specs = Specs {
    fe: spec::FE6,
    srcr: spec::SRCR6,
    nodeip: spec::NODEIP6,
    be: spec::BE6,
    begen: spec::BEGEN6,
    load: spec::LOAD6,
    podroute: spec::PODROUTE6,
    ep: spec::EP6,
    epseen: spec::EPSEEN6,
};

impl<F: Wire> FamilyMaps<F> {
    fn open(from: &Source<'_>, specs: &Specs) -> Result<Self, MapsError> {
        Ok(Self {
            fe: from.table(&specs.fe)?,
            srcr: from.table(&specs.srcr)?,
            nodeip: from.table(&specs.nodeip)?,
            be: from.array(&specs.be)?,
            begen: from.array(&specs.begen)?,
            load: from.array(&specs.load)?,
            podroute: from.array(&specs.podroute)?,
            ep: from.array(&specs.ep)?,
            epseen: from.array(&specs.epseen)?,
        })
    }
}

impl Source<'_> {
    fn raw(&self, map: &MapSpec) -> Result<RawMap, MapsError> {
        RawMap::open(&(self.path)(map)).map_err(|source| MapsError::Open { name: map.name, source })
    }

    fn table<K: Bytes, V: Bytes>(&self, map: &MapSpec) -> Result<Table<K, V>, MapsError> {
        let failed = |source| MapsError::Open { name: map.name, source };
        Table::new(self.raw(map)?).map_err(failed)
    }

    fn array<T: Bytes>(&self, map: &MapSpec) -> Result<MappedArray<T>, MapsError> {
        let raw = self.raw(map)?;
        MappedArray::map(raw.fd(), raw.info().max_entries, self.writable)
            .map_err(|source| MapsError::Open { name: map.name, source })
    }
}
