//! One load of the programs, put everywhere at once: into the links that are pinned, and onto the uplinks, the cgroup and the tunnel.
//!
//! The order: programs are loaded and verified, entries of tables of other layouts are carried over, then the links change, all or none.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use abi::config::{Config, features};
use abi::maps::{FLOW4, FLOW6, MAPS};
use abi::programs::{Hook, PROGRAMS, ProgramSpec};

use crate::carry::{CarryError, Carrying};
use crate::links::{AttachError, Links, Pinned, Spot, Switch, XdpMode};
use crate::options::{NodeConfig, Options, Uplink, XdpChoice};
use crate::pins::{Pins, Predecessor};
use crate::programs::{Absent, Programs, ProgramsError, Tables};
use crate::sys::{RawMap, Target};

/// Why programs could not be put in place. Those that were attached before still are.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Loading.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// Tables.
    #[error(transparent)]
    Carry(#[from] CarryError),
    /// Attaching.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// Where programs go.
pub struct Place<'a> {
    /// What the node's owner wants.
    pub options: &'a Options,
    /// The tables.
    pub pins: &'a Pins,
    /// The links.
    pub links: &'a Links,
    /// The node's cgroup.
    pub cgroup: BorrowedFd<'a>,
    /// The node.
    pub node: &'a NodeConfig,
}

/// Programs that are in place.
#[derive(Debug)]
pub struct Installed {
    /// Constants of the programs (those without XDP differ by its features).
    pub config: Config,
    /// How XDP runs on each uplink, in the order of [`Options::uplinks`].
    pub xdp: Vec<UplinkXdp>,
    programs: Programs,
    /// The uplinks' programs for those that have no XDP, if some have it.
    without_xdp: Programs,
}

/// XDP on one uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkXdp {
    /// Device.
    pub device: String,
    /// The mode, `None` if tcx does the work.
    pub mode: Option<XdpMode>,
    /// Why better modes are not used.
    pub refused: Vec<String>,
}

impl Installed {
    /// Programs that the object or the kernel does not have.
    pub fn absent(&self) -> &[Absent] {
        &self.programs.absent
    }

    /// Attaches the programs of a pod's veth.
    pub fn attach_pod(&self, links: &Links, device: &str, ifindex: u32) -> Result<(), AttachError> {
        for spec in PROGRAMS.iter().filter(|spec| matches!(spec.hook, Hook::PodIngress | Hook::PodEgress)) {
            let Some(program) = self.programs.get(spec) else { continue };
            links.attach(Spot { spec, target: Target::Device(ifindex), device, mode: None }, program)?;
        }
        Ok(())
    }
}

/// Sizes of new tables: by default, as asked for, and never smaller than the table whose entries they get.
pub fn entries(options: &Options, predecessors: &[Predecessor]) -> BTreeMap<&'static str, u32> {
    let flows = options.flow_entries.unwrap_or_else(crate::growth::default_entries);
    let mut entries = BTreeMap::from([(FLOW4.name, flows), (FLOW6.name, flows)]);
    for Predecessor { spec, old } in predecessors {
        let Ok(old) = RawMap::open(old) else { continue };
        let default = MAPS.iter().find(|map| map.name == spec.name).map_or(0, |map| map.entries as u32);
        let wanted = entries.get(spec.name).copied().unwrap_or(default);
        entries.insert(spec.name, wanted.max(old.info().max_entries));
    }
    entries
}

/// Programs that are loaded and nowhere yet.
#[derive(Debug)]
pub struct Loaded {
    config: Config,
    programs: Programs,
}

/// Loads the programs: takes about a second and changes nothing that runs.
pub fn load(place: &Place<'_>, config: Config, tables: &Tables<'_>) -> Result<Loaded, InstallError> {
    let uplinks = &place.options.uplinks;
    let modes: Vec<XdpMode> =
        uplinks.iter().flat_map(|uplink| place.options.xdp.modes(uplink)).copied().collect();
    let config = Config { features: config.features | xdp_features(uplinks, place.options.xdp), ..config };
    let programs = Programs::load(tables, &config, |spec| match spec.hook {
        Hook::Xdp => modes.contains(&XdpMode::Native),
        Hook::XdpGeneric => modes.contains(&XdpMode::Generic),
        _ => is_wanted(spec, &config),
    })?;
    Ok(Loaded { config, programs })
}

/// What the programs are told of XDP. Notes to tcx are counted on only where it is known that the driver carries them (a veth in both modes, and
/// generic mode, where the kernel does): a packet without its note would be taken for one that XDP has not translated.
fn xdp_features(uplinks: &[Uplink], choice: XdpChoice) -> u32 {
    let mut with_xdp = uplinks.iter().filter(|uplink| !choice.modes(uplink).is_empty()).peekable();
    if with_xdp.peek().is_none() {
        return 0;
    }
    let carried = |uplink: &Uplink| uplink.veth || !choice.modes(uplink).contains(&XdpMode::Native);
    features::XDP | if with_xdp.all(carried) { features::METADATA } else { 0 }
}

/// Puts programs everywhere, after the tables have what their predecessors had.
pub fn put(
    place: &Place<'_>,
    loaded: Loaded,
    tables: &Tables<'_>,
    predecessors: &[Predecessor],
) -> Result<Installed, InstallError> {
    let carrying = Carrying::open(predecessors, place.pins)?;
    carrying.all()?;
    let installed = carrying.merge_during(|| change(place, loaded, tables))?;
    let links = place.links.pinned();
    links.iter().filter(|link| !installed.wants(place, link)).for_each(|link| place.links.remove(link));
    place.links.forget_unknown();
    Ok(installed)
}

/// Changes all links, or none.
fn change(place: &Place<'_>, loaded: Loaded, tables: &Tables<'_>) -> Result<Installed, InstallError> {
    let Loaded { mut config, mut programs } = loaded;
    let mut switch = Switch::new(place.links);
    let uplinks = &place.options.uplinks;
    let xdp: Vec<UplinkXdp> =
        uplinks.iter().map(|uplink| attach_xdp(place, &mut switch, &programs, uplink)).collect();
    let plain = Config { features: config.features & !(features::XDP | features::METADATA), ..config };
    let mut without_xdp = Programs::default();
    if xdp.iter().all(|uplink| uplink.mode.is_none()) {
        if config.features != plain.features {
            config = plain;
            programs = Programs::load(tables, &config, |spec| !is_xdp(spec) && is_wanted(spec, &config))?;
        }
    } else if xdp.iter().any(|uplink| uplink.mode.is_none()) {
        without_xdp = Programs::load(tables, &plain, |spec| spec.hook == Hook::UplinkIngress)?;
    }
    let installed = Installed { config, xdp, programs, without_xdp };
    // Pods' links: what an earlier process attached changes with the rest.
    for link in place.links.pinned().iter().filter(|link| is_of_pod(link.spec)) {
        if let Some(program) = installed.program(link.spec, &link.place) {
            switch.update(link, program)?;
        }
    }
    for uplink in uplinks {
        let hooks = [Hook::UplinkIngress, Hook::UplinkEgress];
        installed.attach_all(&mut switch, &hooks, &uplink.name, Target::Device(uplink.ifindex))?;
    }
    if let Some(vxlan) = &place.node.vxlan {
        let target = Target::Device(vxlan.ifindex);
        // Replies of host-network backends to pods behind the tunnel leave by it.
        let hooks = [Hook::TunnelIngress, Hook::UplinkEgress];
        installed.attach_all(&mut switch, &hooks, &vxlan.name, target)?;
    }
    for spec in PROGRAMS.iter().filter(|spec| crate::links::attach_point(spec.name).is_some()) {
        installed.attach_one(&mut switch, spec, "", Target::Cgroup(place.cgroup))?;
    }
    switch.commit();
    Ok(installed)
}

/// Whether a program has something to do with these constants: the verifier takes its time for each.
fn is_wanted(spec: &ProgramSpec, config: &Config) -> bool {
    spec.hook != Hook::TunnelIngress || config.vxlan != 0
}

/// Whether a program runs as XDP.
fn is_xdp(spec: &ProgramSpec) -> bool {
    matches!(spec.hook, Hook::Xdp | Hook::XdpGeneric)
}

fn is_of_pod(spec: &ProgramSpec) -> bool {
    matches!(spec.hook, Hook::PodIngress | Hook::PodEgress)
}

impl Installed {
    /// Whether a link is still of use.
    fn wants(&self, place: &Place<'_>, link: &Pinned) -> bool {
        let xdp = |uplink: &UplinkXdp| Some(format!("{}-{}", uplink.device, uplink.mode?.as_str()));
        let is_uplink = place.options.uplinks.iter().any(|uplink| uplink.name == link.place);
        let is_tunnel = place.node.vxlan.as_ref().is_some_and(|vxlan| vxlan.name == link.place);
        let there = match link.spec.hook {
            Hook::Xdp | Hook::XdpGeneric => self.xdp.iter().any(|uplink| {
                let program = uplink.mode.and_then(|mode| self.xdp_program(mode));
                xdp(uplink).as_deref() == Some(link.place.as_str())
                    && program.is_some_and(|(spec, _)| spec.name == link.spec.name)
            }),
            Hook::UplinkIngress => is_uplink,
            Hook::UplinkEgress => is_uplink || is_tunnel,
            Hook::TunnelIngress => is_tunnel,
            _ => true,
        };
        there && self.programs.get(link.spec).is_some()
    }

    /// The XDP program for a mode.
    fn xdp_program(&self, mode: XdpMode) -> Option<(&'static ProgramSpec, BorrowedFd<'_>)> {
        self.programs.xdp(mode)
    }

    /// The program for a device.
    fn program(&self, spec: &ProgramSpec, device: &str) -> Option<BorrowedFd<'_>> {
        let no_xdp = self.xdp.iter().any(|uplink| uplink.device == device && uplink.mode.is_none());
        let special = if no_xdp { self.without_xdp.get(spec) } else { None };
        special.or_else(|| self.programs.get(spec))
    }

    fn attach_all(
        &self,
        switch: &mut Switch<'_>,
        hooks: &[Hook],
        device: &str,
        target: Target<'_>,
    ) -> Result<(), AttachError> {
        PROGRAMS
            .iter()
            .filter(|spec| hooks.contains(&spec.hook))
            .try_for_each(|spec| self.attach_one(switch, spec, device, target))
    }

    fn attach_one(
        &self,
        switch: &mut Switch<'_>,
        spec: &'static ProgramSpec,
        device: &str,
        target: Target<'_>,
    ) -> Result<(), AttachError> {
        let Some(program) = self.program(spec, device) else { return Ok(()) };
        switch.attach(Spot { spec, target, device, mode: None }, program)
    }
}

/// Attaches XDP in the first mode that the device has.
fn attach_xdp(place: &Place<'_>, switch: &mut Switch<'_>, programs: &Programs, uplink: &Uplink) -> UplinkXdp {
    let device = uplink.name.clone();
    let mut refused = Vec::new();
    let modes = place.options.xdp.modes(uplink);
    let pinned = place.links.xdp(&device);
    // The mode that runs already is tried first: changing it would mean a moment without.
    let running = pinned.into_iter().filter(|mode| modes.contains(mode));
    let others = modes.iter().copied().filter(|mode| Some(*mode) != pinned);
    for mode in running.chain(others) {
        let attached = programs.xdp(mode).map(|(spec, program)| {
            let target = Target::Device(uplink.ifindex);
            let spot = Spot { spec, target, device: &device, mode: Some(mode) };
            // What ran in another mode, or another program in this one, makes room.
            switch.make_way(&device, uplink.ifindex, spec, mode);
            switch.attach(spot, program)
        });
        match attached {
            Some(Ok(())) => return UplinkXdp { device, mode: Some(mode), refused },
            Some(Err(error)) => {
                tracing::info!(%error, mode = mode.as_str(), "XDP is not possible in this mode");
                refused.push(format!("{}: {}", mode.as_str(), error.source));
            }
            None => refused.push(format!("{}: the program is not there", mode.as_str())),
        }
    }
    UplinkXdp { device, mode: None, refused }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_counted_on_only_where_they_are_known_to_arrive() {
        let uplink = |veth| Uplink { name: "eth0".to_owned(), ifindex: 1, mac: [0; 6], mtu: 1500, veth };
        let both = features::XDP | features::METADATA;
        for (uplinks, choice, expected) in [
            (&[uplink(false)][..], XdpChoice::Auto, features::XDP),
            (&[uplink(true)], XdpChoice::Auto, 0),
            (&[uplink(true)], XdpChoice::Native, both),
            (&[uplink(false)], XdpChoice::Generic, both),
            (&[uplink(true), uplink(false)], XdpChoice::Native, features::XDP),
            (&[uplink(false)], XdpChoice::Off, 0),
        ] {
            assert_eq!(xdp_features(uplinks, choice), expected, "{choice:?} on {uplinks:?}");
        }
    }
}
