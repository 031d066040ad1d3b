//! The pinned maps as handles: mapped arrays for what the agent publishes, hashes for what it inserts.
//!
//! Opened either by the loader (which creates what is missing) or, for status, from the pins alone and read-only.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use abi::backend::{Backend4, Backend6, GenerationLine};
use abi::config::Control;
use abi::frontend::{Frontend, FrontendKey4, FrontendKey6};
use abi::maps::{MapSpec, PortBitmap};
use abi::route::{Endpoint, Nexthop, NodeAddress, PodRoute};
use abi::service::{Service, SlotLine};
use abi::stats::DropCounter;
use abi::{Ip4, Ip6, maps as spec};
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::sys::{self, MappedArray, Wire};

/// Why the maps cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    /// No agent with this build's tables has run here.
    #[error("{0} does not exist: no agent of this build's table layout has run with this directory")]
    Absent(PathBuf),
    /// A map could not be opened.
    #[error("map {name}: {source}")]
    Open {
        /// Name of the map.
        name: &'static str,
        /// aya's error.
        source: MapError,
    },
    /// A map's descriptor or its memory could not be had.
    #[error("map {name}: {source}")]
    Mapping {
        /// Name of the map.
        name: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The pinned maps have another layout than this build.
    #[error("pinned maps have layout {found:016x}, this build has {expected:016x}")]
    Layout {
        /// Layout in the pinned maps.
        found: u64,
        /// Layout of this build.
        expected: u64,
    },
}

/// A hash whose keys and values are those of `abi`.
pub type WireHash<K, V> = HashMap<MapData, Wire<K>, Wire<V>>;

/// The maps that the agent writes or reads.
pub struct Maps {
    /// Frontends, IPv4.
    pub fe4: WireHash<FrontendKey4, Frontend>,
    /// Frontends, IPv6.
    pub fe6: WireHash<FrontendKey6, Frontend>,
    /// The two frontend maps again, for batches.
    pub fe_batch: [OwnedFd; 2],
    /// Node addresses, IPv4.
    pub nodeip4: WireHash<Ip4, NodeAddress>,
    /// Node addresses, IPv6.
    pub nodeip6: WireHash<Ip6, NodeAddress>,
    /// Service ports.
    pub svc: MappedArray<Service>,
    /// Slots.
    pub slots: MappedArray<SlotLine>,
    /// Backends, IPv4.
    pub be4: MappedArray<Backend4>,
    /// Backends, IPv6.
    pub be6: MappedArray<Backend6>,
    /// Generations, IPv4.
    pub begen4: MappedArray<GenerationLine>,
    /// Generations, IPv6.
    pub begen6: MappedArray<GenerationLine>,
    /// Next hops.
    pub nexthop: MappedArray<Nexthop>,
    /// Pod ranges, IPv4.
    pub podroute4: MappedArray<PodRoute>,
    /// Pod ranges, IPv6.
    pub podroute6: MappedArray<PodRoute>,
    /// Pods of this node, IPv4.
    pub ep4: MappedArray<Endpoint>,
    /// Pods of this node, IPv6.
    pub ep6: MappedArray<Endpoint>,
    /// What programs learned of this node's pods, IPv4: a 32-bit word padded to 64.
    pub epseen4: MappedArray<u64>,
    /// What programs learned of this node's pods, IPv6.
    pub epseen6: MappedArray<u64>,
    /// Ports of frontends.
    pub ports: MappedArray<PortBitmap>,
    /// Switches.
    pub cfg: MappedArray<Control>,
    /// Drop counters.
    pub drops: PerCpuArray<MapData, Wire<DropCounter>>,
}

/// What names of map directories start with.
const PREFIX: &str = "maps-";

/// Directory of the maps of this build's layout.
pub fn directory(bpf_dir: &Path) -> PathBuf {
    bpf_dir.join(format!("{PREFIX}{:016x}", abi::LAYOUT))
}

/// Removes the pins of maps of other layouts; returns the number of layouts.
pub fn forget_others(bpf_dir: &Path) -> io::Result<usize> {
    let own = directory(bpf_dir);
    let mut removed = 0;
    for entry in fs::read_dir(bpf_dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(PREFIX) && path != own {
            fs::remove_dir_all(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

impl Maps {
    /// Opens the pinned maps.
    pub fn open(bpf_dir: &Path, writable: bool) -> Result<Self, MapsError> {
        let from = Pins { directory: directory(bpf_dir), writable };
        if !from.directory.exists() {
            return Err(MapsError::Absent(from.directory));
        }
        Ok(Self {
            fe4: from.hash(&spec::FE4)?,
            fe6: from.hash(&spec::FE6)?,
            fe_batch: [from.descriptor(&spec::FE4)?, from.descriptor(&spec::FE6)?],
            nodeip4: from.hash(&spec::NODEIP4)?,
            nodeip6: from.hash(&spec::NODEIP6)?,
            svc: from.array(&spec::SVC)?,
            slots: from.array(&spec::SLOTS)?,
            be4: from.array(&spec::BE4)?,
            be6: from.array(&spec::BE6)?,
            begen4: from.array(&spec::BEGEN4)?,
            begen6: from.array(&spec::BEGEN6)?,
            nexthop: from.array(&spec::NEXTHOP)?,
            podroute4: from.array(&spec::PODROUTE4)?,
            podroute6: from.array(&spec::PODROUTE6)?,
            ep4: from.array(&spec::EP4)?,
            ep6: from.array(&spec::EP6)?,
            epseen4: from.array(&spec::EPSEEN4)?,
            epseen6: from.array(&spec::EPSEEN6)?,
            ports: from.array(&spec::PORTS)?,
            cfg: from.array(&spec::CFG)?,
            drops: from.per_cpu(&spec::DROPS)?,
        })
    }

    /// The switches as they stand.
    pub fn control(&self) -> Control {
        self.cfg.get(0).unwrap_or_default()
    }
}

/// Number of entries that the pinned map has room for.
pub fn entries_of(directory: &Path, map: &MapSpec) -> Option<usize> {
    let data = MapData::from_pin(directory.join(map.name)).ok()?;
    data.info().ok().map(|info| info.max_entries() as usize)
}

/// Number of elements of a hash, by reading it in batches.
pub fn elements_of(directory: &Path, map: &MapSpec) -> io::Result<usize> {
    /// Elements read at a time; larger than any chain of a hash bucket.
    const BATCH: usize = 4096;
    let descriptor = sys::get(&directory.join(map.name))?;
    let (mut keys, mut values) = (vec![0; BATCH * map.key_size], vec![0; BATCH * map.value_size]);
    let (mut total, mut cursor) = (0, None);
    loop {
        let fd = descriptor.as_fd();
        let (elements, done) =
            sys::lookup_batch(fd, &mut cursor, map.key_size, &mut keys, map.value_size, &mut values)?;
        total += elements;
        if done {
            return Ok(total);
        }
    }
}

/// Where maps are opened from.
struct Pins {
    directory: PathBuf,
    writable: bool,
}

impl Pins {
    fn data(&self, map: &MapSpec) -> Result<MapData, MapsError> {
        MapData::from_pin(self.directory.join(map.name))
            .map_err(|source| MapsError::Open { name: map.name, source })
    }

    fn descriptor(&self, map: &MapSpec) -> Result<OwnedFd, MapsError> {
        sys::get(&self.directory.join(map.name))
            .map_err(|source| MapsError::Mapping { name: map.name, source })
    }

    fn hash<K, V>(&self, map: &MapSpec) -> Result<WireHash<K, V>, MapsError>
    where
        Wire<K>: aya::Pod,
        Wire<V>: aya::Pod,
    {
        let opened = HashMap::try_from(Map::HashMap(self.data(map)?));
        opened.map_err(|source| MapsError::Open { name: map.name, source })
    }

    fn per_cpu<V>(&self, map: &MapSpec) -> Result<PerCpuArray<MapData, Wire<V>>, MapsError>
    where
        Wire<V>: aya::Pod,
    {
        let opened = PerCpuArray::try_from(Map::PerCpuArray(self.data(map)?));
        opened.map_err(|source| MapsError::Open { name: map.name, source })
    }

    fn array<T: FromBytes + IntoBytes + Immutable + Copy>(
        &self,
        map: &MapSpec,
    ) -> Result<MappedArray<T>, MapsError> {
        let data = self.data(map)?;
        let entries = data.info().map_err(|source| MapsError::Open { name: map.name, source })?.max_entries();
        let fd: BorrowedFd<'_> = data.fd().as_fd();
        MappedArray::map(fd, entries, self.writable)
            .map_err(|source| MapsError::Mapping { name: map.name, source })
    }
}
