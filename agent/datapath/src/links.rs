//! Pinned links: which program is attached where, and the change of all of them from one load of the programs to the next.
//!
//! A link that is pinned already gets the new program by `BPF_LINK_UPDATE`: no packet and no connect passes without a program. A change
//! that fails half-way is undone ([`Switch`]): the old programs stay everywhere.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use abi::programs::{Hook, PROGRAMS, ProgramSpec};

use crate::pins;
use crate::sys::{self, AttachType, Target};

/// How XDP runs on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, after the packet's memory was allocated.
    Generic,
}

impl XdpMode {
    /// The mode's name, as in pins and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    fn flags(self) -> u32 {
        match self {
            Self::Native => sys::XDP_FLAGS_DRV_MODE,
            Self::Generic => sys::XDP_FLAGS_SKB_MODE,
        }
    }
}

/// A program could not be attached.
#[derive(Debug, thiserror::Error)]
#[error("attaching {name} to {target}: {source}")]
pub struct AttachError {
    /// Name of the program.
    pub name: &'static str,
    /// Device or cgroup.
    pub target: String,
    /// What the kernel said.
    pub source: io::Error,
}

/// The directory of pinned links.
#[derive(Debug, Clone)]
pub struct Links {
    directory: PathBuf,
}

/// A pinned link of a program of this build.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// The program.
    pub spec: &'static ProgramSpec,
    /// Device, or device and XDP mode; empty for links of the cgroup.
    pub place: String,
    /// Where it is pinned.
    pub path: PathBuf,
}

/// Where a program goes.
#[derive(Debug, Clone, Copy)]
pub struct Spot<'a> {
    /// The program.
    pub spec: &'static ProgramSpec,
    /// Device or cgroup.
    pub target: Target<'a>,
    /// Name of the device; empty for the cgroup.
    pub device: &'a str,
    /// The mode of XDP.
    pub mode: Option<XdpMode>,
}

impl Links {
    /// The links below `bpf_dir`.
    pub fn new(bpf_dir: &Path) -> Self {
        Self { directory: bpf_dir.join("links") }
    }

    /// Makes the directory.
    pub fn create(&self) -> io::Result<()> {
        fs::create_dir_all(&self.directory)
    }

    /// Ids of the maps that attached programs use.
    pub fn maps_in_use(&self) -> HashSet<u32> {
        pins::maps_of_links(self.paths().into_iter())
    }

    /// The pinned links of programs of this build, in order of their names.
    pub fn pinned(&self) -> Vec<Pinned> {
        let of_build = |path: PathBuf| {
            let name = path.file_name()?.to_str()?;
            let spec = PROGRAMS.iter().find(|spec| place_of(spec, name).is_some())?;
            let place = place_of(spec, name)?.to_owned();
            Some(Pinned { spec, place, path })
        };
        self.paths().into_iter().filter_map(of_build).collect()
    }

    fn paths(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    }

    /// The mode in which XDP is pinned on a device.
    pub fn xdp(&self, device: &str) -> Option<XdpMode> {
        let pinned = |mode: &XdpMode| xdp_specs().any(|spec| self.pin(spec, device, Some(*mode)).exists());
        [XdpMode::Native, XdpMode::Generic].into_iter().find(pinned)
    }

    /// Forgets a pod's links; the device may be gone.
    pub fn detach_pod(&self, device: &str) {
        for spec in PROGRAMS.iter().filter(|spec| matches!(spec.hook, Hook::PodIngress | Hook::PodEgress)) {
            unpin(&self.pin(spec, device, None));
        }
    }

    /// Removes the links of devices that are gone; returns how many there were.
    pub fn sweep(&self) -> usize {
        let dead = |link: &Pinned| {
            let info = sys::get(&link.path).and_then(|fd| sys::link_info(fd.as_fd()));
            attach_point(link.spec.name).is_none() && !info.is_ok_and(|info| info.ifindex != 0)
        };
        let dead: Vec<Pinned> = self.pinned().into_iter().filter(dead).collect();
        dead.iter().for_each(|link| unpin(&link.path));
        dead.len()
    }

    /// Removes links of programs that this build does not have: they would go on with tables that nobody keeps.
    pub fn forget_unknown(&self) {
        let known: HashSet<PathBuf> = self.pinned().into_iter().map(|link| link.path).collect();
        self.paths().iter().filter(|path| !known.contains(*path)).for_each(|path| unpin(path));
    }

    /// Takes a program off.
    pub fn remove(&self, link: &Pinned) {
        unpin(&link.path);
    }

    fn pin(&self, spec: &ProgramSpec, device: &str, mode: Option<XdpMode>) -> PathBuf {
        self.directory.join(match (device, mode) {
            ("", _) => spec.name.to_owned(),
            (device, None) => format!("{}-{device}", spec.name),
            (device, Some(mode)) => format!("{}-{device}-{}", spec.name, mode.as_str()),
        })
    }

    /// Attaches a program where none of ours may be yet.
    pub fn attach(&self, spot: Spot<'_>, program: BorrowedFd<'_>) -> Result<(), AttachError> {
        let mut switch = Switch::new(self);
        switch.attach(spot, program)?;
        switch.commit();
        Ok(())
    }
}

/// What undoes one change.
enum Undo {
    /// Put this program back into the link.
    Restore(PathBuf, OwnedFd),
    /// There was no link.
    Remove(PathBuf),
    /// XDP ran on this device, in this mode.
    Again(PathBuf, OwnedFd, u32, XdpMode),
}

/// A change of several links that is undone unless it is committed.
pub struct Switch<'a> {
    links: &'a Links,
    undo: Vec<Undo>,
}

impl<'a> Switch<'a> {
    /// Nothing changed yet.
    pub fn new(links: &'a Links) -> Self {
        Self { links, undo: Vec::new() }
    }

    /// Everything changed stays.
    pub fn commit(mut self) {
        self.undo.clear();
    }

    /// Attaches a program, or puts it into the link that is pinned already.
    pub fn attach(&mut self, spot: Spot<'_>, program: BorrowedFd<'_>) -> Result<(), AttachError> {
        let failed = |source| {
            let target = if spot.device.is_empty() { "the node's cgroup" } else { spot.device };
            AttachError { name: spot.spec.name, target: target.to_owned(), source }
        };
        let Some((attach, flags)) = point(&spot) else { return Ok(()) };
        let pin = self.links.pin(spot.spec, spot.device, spot.mode);
        if let Ok(link) = sys::get(&pin) {
            let info = sys::link_info(link.as_fd()).map_err(failed)?;
            let same_device = !matches!(spot.target, Target::Device(index) if info.ifindex != index);
            if same_device && self.replace(&pin, link.as_fd(), info.program_id, program).is_ok() {
                return Ok(());
            }
            // The device or cgroup that the link was on is gone.
            unpin(&pin);
        }
        let link = sys::link_create(program, spot.target, attach, flags).map_err(failed)?;
        sys::pin(link.as_fd(), &pin).map_err(failed)?;
        self.undo.push(Undo::Remove(pin));
        Ok(())
    }

    /// Takes XDP off a device, but for this program in this mode: a device has one of both at a time.
    pub fn make_way(&mut self, device: &str, ifindex: u32, wanted: &ProgramSpec, wanted_mode: XdpMode) {
        for mode in [XdpMode::Native, XdpMode::Generic] {
            for spec in xdp_specs().filter(|spec| mode != wanted_mode || spec.name != wanted.name) {
                let pin = self.links.pin(spec, device, Some(mode));
                let Ok(link) = sys::get(&pin) else { continue };
                let program = sys::link_info(link.as_fd()).and_then(|info| sys::program(info.program_id));
                unpin(&pin);
                self.undo.extend(program.ok().map(|program| Undo::Again(pin, program, ifindex, mode)));
            }
        }
    }

    /// Puts a program into a pinned link. A link whose device is gone is left alone.
    pub fn update(&mut self, link: &Pinned, program: BorrowedFd<'_>) -> Result<(), AttachError> {
        let failed = |source| AttachError { name: link.spec.name, target: link.place.clone(), source };
        let Ok(fd) = sys::get(&link.path) else { return Ok(()) };
        let info = sys::link_info(fd.as_fd()).map_err(failed)?;
        if attach_point(link.spec.name).is_none() && info.ifindex == 0 {
            return Ok(());
        }
        self.replace(&link.path, fd.as_fd(), info.program_id, program).map_err(failed)
    }

    fn replace(
        &mut self,
        pin: &Path,
        link: BorrowedFd<'_>,
        old: u32,
        program: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let old = sys::program(old)?;
        sys::link_update(link, program)?;
        self.undo.push(Undo::Restore(pin.to_owned(), old));
        Ok(())
    }
}

impl Drop for Switch<'_> {
    fn drop(&mut self) {
        for step in self.undo.drain(..).rev() {
            let undone = match &step {
                Undo::Restore(pin, old) => {
                    sys::get(pin).and_then(|link| sys::link_update(link.as_fd(), old.as_fd()))
                }
                Undo::Remove(pin) => fs::remove_file(pin),
                Undo::Again(pin, program, ifindex, mode) => {
                    let target = Target::Device(*ifindex);
                    sys::link_create(program.as_fd(), target, AttachType::Xdp, mode.flags())
                        .and_then(|link| sys::pin(link.as_fd(), pin))
                }
            };
            if let Err(error) = undone {
                let (Undo::Restore(pin, _) | Undo::Remove(pin) | Undo::Again(pin, ..)) = &step;
                tracing::error!(pin = %pin.display(), %error, "could not put the earlier program back");
            }
        }
    }
}

fn xdp_specs() -> impl Iterator<Item = &'static ProgramSpec> {
    PROGRAMS.iter().filter(|spec| matches!(spec.hook, Hook::Xdp | Hook::XdpGeneric))
}

/// What follows the program's name in the name of a pin, if it is one of this program.
fn place_of<'a>(spec: &ProgramSpec, name: &'a str) -> Option<&'a str> {
    match name.strip_prefix(spec.name)? {
        "" => Some(""),
        rest => rest.strip_prefix('-'),
    }
}

/// Attach type and flags of a place. On tcx ingress first, on egress last, so that others see packets as they are outside.
fn point(spot: &Spot<'_>) -> Option<(AttachType, u32)> {
    Some(match (spot.spec.hook, spot.mode) {
        (Hook::Xdp | Hook::XdpGeneric, mode) => (AttachType::Xdp, mode?.flags()),
        (Hook::UplinkIngress | Hook::PodIngress | Hook::TunnelIngress, _) => {
            (AttachType::TcxIngress, sys::BPF_F_BEFORE)
        }
        (Hook::UplinkEgress | Hook::PodEgress, _) => (AttachType::TcxEgress, sys::BPF_F_AFTER),
        _ => (attach_point(spot.spec.name)?, 0),
    })
}

/// Attach type of a program of the node's cgroup, by its name.
pub fn attach_point(name: &str) -> Option<AttachType> {
    Some(match name {
        "cg_connect4" => AttachType::Connect4,
        "cg_connect6" => AttachType::Connect6,
        "cg_sendmsg4" => AttachType::Sendmsg4,
        "cg_sendmsg6" => AttachType::Sendmsg6,
        "cg_recvmsg4" => AttachType::Recvmsg4,
        "cg_recvmsg6" => AttachType::Recvmsg6,
        "cg_getpeername4" => AttachType::Getpeername4,
        "cg_getpeername6" => AttachType::Getpeername6,
        "cg_post_bind4" => AttachType::PostBind4,
        "cg_post_bind6" => AttachType::PostBind6,
        "cg_sock_release" => AttachType::SockRelease,
        _ => return None,
    })
}

/// Removes a pin; that it is gone already is as well.
fn unpin(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "could not remove a pinned link");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_of_the_cgroup_has_an_attach_point_and_no_other_has() {
        for spec in PROGRAMS {
            assert_eq!(attach_point(spec.name).is_some(), spec.name.starts_with("cg_"), "{}", spec.name);
        }
    }

    #[test]
    fn pins_tell_program_and_place() {
        let links = Links::new(Path::new("/x"));
        let spec = |name| PROGRAMS.iter().find(|spec| spec.name == name);
        for (program, device, mode, expected) in [
            ("cg_connect4", "", None, "cg_connect4"),
            ("tcx_up_in", "eth0.12", None, "tcx_up_in-eth0.12"),
            ("xdp_ns", "bond-1", Some(XdpMode::Generic), "xdp_ns-bond-1-generic"),
        ] {
            let Some(spec) = spec(program) else { panic!("no program {program}") };
            let pin = links.pin(spec, device, mode);
            assert_eq!(pin, Path::new("/x/links").join(expected));
            let place = match mode {
                Some(mode) => format!("{device}-{}", mode.as_str()),
                None => device.to_owned(),
            };
            assert_eq!(place_of(spec, expected), Some(place.as_str()));
        }
        assert_eq!(spec("tcx_up_in").and_then(|spec| place_of(spec, "tcx_up_inx")), None);
    }
}
