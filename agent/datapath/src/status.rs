//! What the pinned maps and links say: for `beeline-agent status`, read-only, with or without a running agent.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;

use abi::Reason;
use abi::maps::{self as spec, MAPS, MapKind, MapSpec};
use abi::programs::{Hook, PROGRAMS};
use abi::route::KIND_NONE;
use abi::service::Service;
use serde::Serialize;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::maps::{self, Maps, MapsError};
use crate::services;
use crate::sys::{self, MappedArray};

/// The state of a node's data plane.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Layout of the pinned maps.
    pub layout: String,
    /// How many agents have adopted the maps.
    pub epoch: u32,
    /// Attached programs.
    pub attached: Vec<Attached>,
    /// Programs of the table that are attached nowhere.
    pub missing: Vec<&'static str>,
    /// Rows in use, by table; counted only when frontends are not listed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<Table>,
    /// Drops by reason; reasons without drops are left out.
    pub drops: Vec<Drops>,
    /// Frontends with their backends, if asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub frontends: Vec<FrontendStatus>,
}

/// A frontend as the programs would serve it.
#[derive(Debug, Serialize)]
pub struct FrontendStatus {
    /// Address; `nodePort` for every address of the node, of the family in `family`.
    pub address: String,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: String,
    /// 4 or 6.
    pub family: u8,
    /// Service id.
    pub service: u32,
    /// Backends of the Cluster policy.
    pub backends: Vec<BackendStatus>,
    /// Backends of the Local policies.
    pub local: Vec<BackendStatus>,
}

/// A backend of a frontend.
#[derive(Debug, Serialize)]
pub struct BackendStatus {
    /// Address.
    pub address: std::net::IpAddr,
    /// Port.
    pub port: u16,
}

/// A pinned link.
#[derive(Debug, Serialize)]
pub struct Attached {
    /// Program.
    pub program: &'static str,
    /// What the program does there.
    pub does: &'static str,
    /// Device and mode, or the node's cgroup.
    pub target: String,
    /// Id of the program in the kernel.
    pub program_id: u32,
}

/// Fill of a table.
#[derive(Debug, Serialize)]
pub struct Table {
    /// Map name.
    pub map: &'static str,
    /// Rows in use.
    pub used: usize,
    /// Rows there are.
    pub entries: usize,
}

/// A drop counter.
#[derive(Debug, Serialize)]
pub struct Drops {
    /// Reason.
    pub reason: &'static str,
    /// Packets or socket calls.
    pub packets: u64,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tables of layout {}, adopted {} times", self.layout, self.epoch)?;
        writeln!(f, "\nattached:")?;
        for link in &self.attached {
            writeln!(
                f,
                "  {:<16} {:<24} program {:<6} {}",
                link.program, link.target, link.program_id, link.does
            )?;
        }
        for program in &self.missing {
            writeln!(f, "  {program:<16} nowhere")?;
        }
        if !self.tables.is_empty() {
            writeln!(f, "\ntables:")?;
        }
        for table in &self.tables {
            writeln!(f, "  {:<16} {:>8} of {:>8}", table.map, table.used, table.entries)?;
        }
        writeln!(f, "\ndrops:")?;
        for drops in &self.drops {
            writeln!(f, "  {:<20} {:>10}", drops.reason, drops.packets)?;
        }
        if self.drops.is_empty() {
            writeln!(f, "  none")?;
        }
        for frontend in &self.frontends {
            let list = |backends: &[BackendStatus]| {
                backends
                    .iter()
                    .map(|backend| SocketAddr::new(backend.address, backend.port).to_string())
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            writeln!(
                f,
                "\n{} {}/{} service {}",
                frontend.address, frontend.port, frontend.protocol, frontend.service
            )?;
            writeln!(f, "  cluster {}\n  local   {}", list(&frontend.backends), list(&frontend.local))?;
        }
        Ok(())
    }
}

/// Reads the status below `bpf_dir`. With `frontends`, the service tables are listed instead of being counted: following frontends to their
/// backends takes milliseconds, counting walks every table from end to end.
pub fn read(bpf_dir: &Path, frontends: bool) -> Result<Status, MapsError> {
    let maps = Maps::open(bpf_dir, false)?;
    let control = maps.control();
    let attached = links(&bpf_dir.join("links"));
    let missing =
        PROGRAMS.iter().filter(|spec| spec.hook != Hook::PodIngress && spec.hook != Hook::PodEgress);
    let missing = missing
        .map(|spec| spec.name)
        .filter(|name| attached.iter().all(|link| link.program != *name))
        .collect();
    let counted = drops(&maps).into_iter().filter(|(_, packets)| *packets > 0);
    Ok(Status {
        layout: format!("{:016x}", control.layout),
        epoch: control.epoch,
        missing,
        tables: if frontends { Vec::new() } else { tables(&maps, &maps::directory(bpf_dir)) },
        drops: counted.map(|(reason, packets)| Drops { reason: reason.as_str(), packets }).collect(),
        attached,
        frontends: if frontends { services::dump(&maps) } else { Vec::new() },
    })
}

/// Drops by reason, summed over CPUs.
pub(crate) fn drops(maps: &Maps) -> Vec<(Reason, u64)> {
    let packets = |reason: Reason| {
        let values = maps.drops.get(&(reason as u32), 0);
        values.map_or(0, |values| values.iter().map(|value| value.0.packets).sum())
    };
    Reason::ALL.iter().map(|reason| (*reason, packets(*reason))).collect()
}

fn links(directory: &Path) -> Vec<Attached> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(info) = sys::get(&entry.path()).and_then(|link| sys::link_info(link.as_fd())) else {
            continue;
        };
        let spec =
            PROGRAMS.iter().find(|spec| name == spec.name || name.starts_with(&format!("{}-", spec.name)));
        let Some(spec) = spec else { continue };
        let device = name.get(spec.name.len() + 1..).map(str::to_owned);
        let target = match (spec.hook, device) {
            (Hook::SockAddr, _) => "cgroup".to_owned(),
            (_, Some(device)) if info.ifindex == 0 => format!("{device} (gone)"),
            (_, device) => device.unwrap_or_default(),
        };
        found.push(Attached { program: spec.name, does: spec.does, target, program_id: info.program_id });
    }
    found.sort_by(|one, other| (one.program, &one.target).cmp(&(other.program, &other.target)));
    found
}

/// Rows in use: elements of hashes, and what is not free in arrays that have free rows.
fn tables(maps: &Maps, directory: &Path) -> Vec<Table> {
    let used = |map: &MapSpec| match map.kind {
        MapKind::Hash | MapKind::LruHash | MapKind::LruHashPerCpuLists => {
            maps::elements_of(directory, map).ok()
        }
        MapKind::MappedArray => rows(maps, map.name),
        MapKind::PerCpuArray | MapKind::SocketStorage | MapKind::LpmTrie => None,
    };
    let specs = MAPS.iter().filter_map(|map| {
        let entries = maps::entries_of(directory, map).unwrap_or(map.entries);
        Some(Table { map: map.name, used: used(map)?, entries })
    });
    specs.collect()
}

/// Rows in use of an array, `None` for one whose rows are not given out.
fn rows(maps: &Maps, name: &str) -> Option<usize> {
    let of_services = || (1..maps.svc.len()).filter_map(|id| maps.svc.get(id));
    Some(match name {
        _ if name == spec::SVC.name => of_services().filter(|row| *row != Service::default()).count(),
        _ if name == spec::SLOTS.name => of_services().map(|row| lines(&row)).sum(),
        _ if name == spec::BE4.name => count(&maps.be4, |row| living(row.state)),
        _ if name == spec::BE6.name => count(&maps.be6, |row| living(row.state)),
        _ if name == spec::NEXTHOP.name => count(&maps.nexthop, |row| row.kind != KIND_NONE),
        _ if name == spec::PODROUTE4.name => count(&maps.podroute4, |row| row.nexthop != 0),
        _ if name == spec::PODROUTE6.name => count(&maps.podroute6, |row| row.nexthop != 0),
        _ if name == spec::EP4.name => count(&maps.ep4, |row| row.nexthop != 0),
        _ if name == spec::EP6.name => count(&maps.ep6, |row| row.nexthop != 0),
        _ => return None,
    })
}

fn count<T: FromBytes + IntoBytes + Immutable + Copy>(
    table: &MappedArray<T>,
    used: impl Fn(&T) -> bool,
) -> usize {
    (0..table.len()).filter_map(|index| table.get(index)).filter(used).count()
}

/// Lines of slots that a service uses.
fn lines(row: &Service) -> usize {
    let lines = |count: u16| usize::from(count).div_ceil(abi::service::SLOTS_PER_LINE as usize);
    lines(row.run_cluster.count()) + lines(row.run_local.count())
}

fn living(state: u8) -> bool {
    state == abi::backend::STATE_READY || state == abi::backend::STATE_TERMINATING
}
