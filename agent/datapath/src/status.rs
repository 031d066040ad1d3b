//! What the pinned maps and links say: for `beeline-agent status`, read-only, with or without a running agent.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;

use abi::Reason;
use abi::config::features;
use abi::maps::{self as spec, MAPS, MapKind, MapSpec};
use abi::programs::{Hook, PROGRAMS};
use abi::route::KIND_NONE;
use abi::service::{CELLS_PER_LINE, SLOTS_PER_LINE, Service};
use serde::Serialize;
use service::{FrontendAddress, FrontendKey};

use crate::backends::is_living;
use crate::encode::BackendBytes;
use crate::links::{self, Links};
use crate::maps::{Maps, MapsError, Source};
use crate::pins::Pins;
use crate::services;
use crate::sys::{self, MappedArray, RawMap};
use crate::table::Bytes;

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
    /// What is used of the kernel, and what is done where it lacks something.
    pub features: Vec<Feature>,
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
    /// How a backend is chosen.
    pub algorithm: String,
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

/// Something that not every kernel, driver or node has.
#[derive(Debug, Serialize)]
pub struct Feature {
    /// What.
    pub name: &'static str,
    /// Whether it is used.
    pub used: bool,
    /// What that means here.
    pub note: String,
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
        writeln!(f, "\nfeatures:")?;
        for feature in &self.features {
            let used = if feature.used { "yes" } else { "no" };
            writeln!(f, "  {:<16} {used:<4} {}", feature.name, feature.note)?;
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
                "\n{} {}/{} service {} {}",
                frontend.address, frontend.port, frontend.protocol, frontend.service, frontend.algorithm
            )?;
            writeln!(f, "  cluster {}\n  local   {}", list(&frontend.backends), list(&frontend.local))?;
        }
        Ok(())
    }
}

impl FrontendStatus {
    /// A frontend with its backends.
    pub(crate) fn new(
        key: &FrontendKey,
        id: u32,
        algorithm: String,
        backends: Vec<BackendStatus>,
        local: Vec<BackendStatus>,
    ) -> Self {
        Self {
            address: match key.address {
                FrontendAddress::Exact(address) => address.to_string(),
                FrontendAddress::NodePort(_) => "nodePort".to_owned(),
            },
            port: key.port,
            protocol: key.protocol.to_string(),
            family: if key.address.family() == service::Family::V4 { 4 } else { 6 },
            service: id,
            algorithm,
            backends,
            local,
        }
    }
}

/// Reads the status below `bpf_dir`. With `frontends`, the service tables are listed instead of being counted: following frontends to their
/// backends takes milliseconds, counting walks every table from end to end.
pub fn read(bpf_dir: &Path, frontends: bool) -> Result<Status, MapsError> {
    let (pins, links) = (Pins::new(bpf_dir, 0), Links::new(bpf_dir));
    let live = links.maps_in_use();
    let path = |spec: &MapSpec| pins.current(spec, &live);
    let maps = Maps::open(&Source { path: &path, writable: false })?;
    let control = maps.control();
    let attached = attached(&links);
    let has_xdp = attached.iter().any(|link| link.program.starts_with("xdp_"));
    let expected = PROGRAMS.iter().filter(|spec| match spec.hook {
        Hook::PodIngress | Hook::PodEgress => false,
        // One of them is enough.
        Hook::Xdp | Hook::XdpGeneric => !has_xdp,
        Hook::TunnelIngress => control.features & features::TUNNEL != 0,
        _ => true,
    });
    let missing = expected
        .map(|spec| spec.name)
        .filter(|name| attached.iter().all(|link| link.program != *name))
        .collect();
    let counted = drops(&maps).into_iter().filter(|(_, packets)| *packets > 0);
    Ok(Status {
        layout: format!("{:016x}", control.layout),
        epoch: control.epoch,
        missing,
        features: features_of(control.features, &attached),
        tables: if frontends { Vec::new() } else { tables(&maps, &path) },
        drops: counted.map(|(reason, packets)| Drops { reason: reason.as_str(), packets }).collect(),
        attached,
        frontends: if frontends { services::dump(&maps) } else { Vec::new() },
    })
}

/// Drops by reason, summed over CPUs.
pub(crate) fn drops(maps: &Maps) -> Vec<(Reason, u64)> {
    Reason::ALL.iter().map(|reason| (*reason, maps.drops(*reason))).collect()
}

/// What tells that a feature is used.
enum Sign {
    /// This bit of the programs' constants.
    Constant(u32),
    /// A program of this name is attached.
    Attached(&'static str),
    /// The kernel.
    Kernel(fn() -> bool),
}

/// Features but XDP, whose note depends on devices: name, sign, what it means that it is used, and that it is not.
const FEATURES: [(&str, Sign, &str, &str); 7] = [
    (
        "metadata",
        Sign::Constant(features::METADATA),
        "XDP tells tcx where a packet goes, if the driver has room for it",
        "tcx looks up again what XDP has decided",
    ),
    (
        "tunnel",
        Sign::Constant(features::TUNNEL),
        "VXLAN to nodes on other segments",
        "all nodes are on the segment",
    ),
    (
        "growing",
        Sign::Constant(features::FLOWS_BOTH),
        "flow tables are growing",
        "flow tables have their size",
    ),
    (
        "batches",
        Sign::Kernel(sys::has_batches),
        "many rows are written at once",
        "rows are written one by one",
    ),
    (
        "redirect_peer",
        Sign::Attached("tcx_pod_in"),
        "packets to pods pass by the node's stack (every kernel with tcx has it)",
        "no pod is served",
    ),
    (
        "post_bind",
        Sign::Attached("cg_post_bind4"),
        "node ports cannot be bound by processes",
        "a process that binds a node port never hears from clients outside",
    ),
    (
        "sock_release",
        Sign::Attached("cg_sock_release"),
        "least connections counts sockets exactly",
        "least connections does not see sockets close",
    ),
];

/// What the programs' constants and the links say of features.
fn features_of(bits: u32, attached: &[Attached]) -> Vec<Feature> {
    let rows = FEATURES.iter().map(|(name, sign, yes, no)| {
        let used = match sign {
            Sign::Constant(bit) => bits & bit != 0,
            Sign::Attached(program) => attached.iter().any(|link| link.program == *program),
            Sign::Kernel(has) => has(),
        };
        Feature { name, used, note: (if used { yes } else { no }).to_string() }
    });
    std::iter::once(xdp_feature(attached)).chain(rows).collect()
}

fn xdp_feature(attached: &[Attached]) -> Feature {
    let places = |hooks: &[Hook]| {
        let hooked = |link: &&Attached| {
            PROGRAMS.iter().any(|spec| spec.name == link.program && hooks.contains(&spec.hook))
        };
        attached.iter().filter(hooked).map(|link| link.target.as_str()).collect::<Vec<_>>()
    };
    let xdp = places(&[Hook::Xdp, Hook::XdpGeneric]);
    let plain: Vec<&str> = places(&[Hook::UplinkIngress])
        .into_iter()
        .filter(|device| xdp.iter().all(|place| !place.starts_with(&format!("{device}-"))))
        .collect();
    let note = match (xdp.is_empty(), plain.is_empty()) {
        (true, _) => "tcx does the work on every uplink".to_owned(),
        (false, true) => xdp.join(" "),
        (false, false) => format!("{}; tcx does the work on {}", xdp.join(" "), plain.join(" ")),
    };
    Feature { name: "xdp", used: !xdp.is_empty(), note }
}

fn attached(links: &Links) -> Vec<Attached> {
    let mut found: Vec<Attached> = links
        .pinned()
        .into_iter()
        .filter_map(|link| {
            let info = sys::get(&link.path).and_then(|fd| sys::link_info(fd.as_fd())).ok()?;
            let target = match links::attach_point(link.spec.name) {
                Some(_) => "cgroup".to_owned(),
                None if info.ifindex == 0 => format!("{} (gone)", link.place),
                None => link.place,
            };
            let (program, does) = (link.spec.name, link.spec.does);
            Some(Attached { program, does, target, program_id: info.program_id })
        })
        .collect();
    found.sort_by(|one, other| (one.program, &one.target).cmp(&(other.program, &other.target)));
    found
}

/// Rows in use: elements of hashes, and what is not free in arrays that have free rows.
fn tables(maps: &Maps, path: &dyn Fn(&MapSpec) -> std::path::PathBuf) -> Vec<Table> {
    let table = |map: &MapSpec| {
        let raw = RawMap::open(&path(map)).ok()?;
        let used = match map.kind {
            MapKind::Hash | MapKind::LruHash | MapKind::LpmTrie => {
                let mut elements = 0;
                raw.each(|_, _| elements += 1).ok()?;
                elements
            }
            MapKind::MappedArray => rows(maps, map.name)?,
            MapKind::PerCpuArray | MapKind::SocketStorage => return None,
        };
        Some(Table { map: map.name, used, entries: raw.info().max_entries as usize })
    };
    MAPS.iter().filter_map(table).collect()
}

/// Rows in use of an array, `None` for one whose rows are not given out.
fn rows(maps: &Maps, name: &str) -> Option<usize> {
    let of_services = || (1..maps.svc.len()).filter_map(|id| maps.svc.get(id));
    Some(match name {
        _ if name == spec::SVC.name => of_services().filter(|row| *row != Service::default()).count(),
        _ if name == spec::SLOTS.name => of_services()
            .map(|row| services::lines_of([row.run_cluster, row.run_local], SLOTS_PER_LINE))
            .sum(),
        _ if name == spec::MAGLEV.name => of_services()
            .map(|row| services::lines_of([row.maglev_cluster, row.maglev_local], CELLS_PER_LINE))
            .sum(),
        _ if name == spec::BE4.name => count(&maps.v4.be, |row| is_living(row.life().0)),
        _ if name == spec::BE6.name => count(&maps.v6.be, |row| is_living(row.life().0)),
        _ if name == spec::NEXTHOP.name => count(&maps.nexthop, |row| row.kind != KIND_NONE),
        _ if name == spec::PODROUTE4.name => count(&maps.v4.podroute, |row| row.nexthop != 0),
        _ if name == spec::PODROUTE6.name => count(&maps.v6.podroute, |row| row.nexthop != 0),
        _ if name == spec::EP4.name => count(&maps.v4.ep, |row| row.nexthop != 0),
        _ if name == spec::EP6.name => count(&maps.v6.ep, |row| row.nexthop != 0),
        _ => return None,
    })
}

fn count<T: Bytes>(table: &MappedArray<T>, used: impl Fn(&T) -> bool) -> usize {
    (0..table.len()).filter_map(|index| table.get(index)).filter(used).count()
}
