//! The programs: loaded from the object against the pinned maps, attached by pinned links.
//!
//! A link that is pinned already gets the new program by `BPF_LINK_UPDATE`: no packet and no connect passes without a program.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use abi::config::Config;
use abi::maps::MAPS;
use abi::programs::{Hook, PROGRAMS};
use aya::programs::{Program, ProgramError, ProgramFd};
use aya::{Ebpf, EbpfError, EbpfLoader};

use crate::sys::{self, AttachType, Target, Wire};
use crate::{maps, object};

/// Why programs could not be loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// The binary was built without the programs.
    #[error(
        "this build carries no BPF object (build it with `cargo xtask build`, or set BEELINE_BPF_OBJECT)"
    )]
    NoObject,
    /// The object or its maps were refused.
    #[error("loading the BPF object: {0}")]
    Object(#[from] EbpfError),
    /// A program was refused, with the verifier's log.
    #[error("loading program {name}: {source}")]
    Load {
        /// Name.
        name: &'static str,
        /// aya's error.
        source: ProgramError,
    },
    /// The object lacks a program.
    #[error("the BPF object has no program {0}")]
    Missing(&'static str),
    /// A program could not be attached.
    #[error("attaching {name} to {target}: {source}")]
    Attach {
        /// Name.
        name: &'static str,
        /// Device or cgroup.
        target: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A directory of the BPF filesystem.
    #[error("{path}: {source}")]
    Directory {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

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

/// Loaded programs: their descriptors. The object they came from is not kept, it would hold megabytes.
pub struct Programs {
    loaded: HashMap<&'static str, OwnedFd>,
    links: PathBuf,
}

impl Programs {
    /// Loads all programs with `config` in their constants. Maps that are not pinned yet are created with the entries given by name.
    pub fn load(
        bpf_dir: &Path,
        config: &Config,
        entries: &[(&'static str, u32)],
    ) -> Result<Self, ProgramsError> {
        let bytes = object::embedded().ok_or(ProgramsError::NoObject)?;
        let maps_directory = maps::directory(bpf_dir);
        let links = bpf_dir.join("links");
        for directory in [&maps_directory, &links] {
            fs::create_dir_all(directory)
                .map_err(|source| ProgramsError::Directory { path: directory.clone(), source })?;
        }
        let mut loader = EbpfLoader::new();
        for map in MAPS {
            loader.map_pin_path(map.name, maps_directory.join(map.name));
        }
        for (name, entries) in entries {
            loader.map_max_entries(name, *entries);
        }
        let config = Wire(*config);
        loader.override_global(abi::config::CONFIG_GLOBAL, &config, true);
        let mut object = loader.load(bytes)?;
        let mut loaded = HashMap::new();
        for spec in PROGRAMS {
            match load_one(&mut object, spec.name) {
                Ok(program) => drop(loaded.insert(spec.name, program)),
                Err(error) if spec.hook == Hook::SockAddr => return Err(error),
                Err(error @ ProgramsError::Missing(_)) => {
                    tracing::warn!(%error, "without it: no {}", spec.does);
                }
                // Without XDP the tcx programs of the uplink do its work.
                Err(error) if spec.hook == Hook::Xdp => tracing::warn!(%error, "going on without XDP"),
                Err(error) => return Err(error),
            }
        }
        Ok(Self { loaded, links })
    }

    /// Attaches the socket programs to the node's cgroup.
    pub fn attach_cgroup(&self, cgroup: BorrowedFd<'_>) -> Result<(), ProgramsError> {
        for spec in PROGRAMS.iter().filter(|spec| spec.hook == Hook::SockAddr) {
            let attach = sock_addr(spec.name).ok_or(ProgramsError::Missing(spec.name))?;
            self.attach(
                spec.name,
                &self.links.join(spec.name),
                Target::Cgroup(cgroup),
                "the node's cgroup",
                attach,
                0,
            )?;
        }
        Ok(())
    }

    /// Attaches the tcx programs of an uplink: first on ingress, last on egress, so that others see packets as they are outside.
    pub fn attach_uplink(&self, device: &str, ifindex: u32) -> Result<(), ProgramsError> {
        for spec in PROGRAMS {
            let (attach, flags) = match spec.hook {
                Hook::UplinkIngress => (AttachType::TcxIngress, sys::BPF_F_BEFORE),
                Hook::UplinkEgress => (AttachType::TcxEgress, sys::BPF_F_AFTER),
                _ => continue,
            };
            let pin = self.links.join(format!("{}-{device}", spec.name));
            self.attach(spec.name, &pin, Target::Device(ifindex), device, attach, flags)?;
        }
        Ok(())
    }

    /// Attaches the programs of a pod's veth.
    pub fn attach_pod(&self, device: &str, ifindex: u32) -> Result<(), ProgramsError> {
        for spec in PROGRAMS {
            let (attach, flags) = match spec.hook {
                Hook::PodIngress => (AttachType::TcxIngress, sys::BPF_F_BEFORE),
                Hook::PodEgress => (AttachType::TcxEgress, sys::BPF_F_AFTER),
                _ => continue,
            };
            let pin = self.links.join(format!("{}-{device}", spec.name));
            self.attach(spec.name, &pin, Target::Device(ifindex), device, attach, flags)?;
        }
        Ok(())
    }

    /// Attaches XDP to an uplink, in this mode only.
    pub fn attach_xdp(&self, device: &str, ifindex: u32, mode: XdpMode) -> Result<(), ProgramsError> {
        for spec in PROGRAMS.iter().filter(|spec| spec.hook == Hook::Xdp) {
            self.program(spec.name).ok_or(ProgramsError::Missing(spec.name))?;
            let pin = self.xdp_pin(spec.name, device, mode);
            self.attach(spec.name, &pin, Target::Device(ifindex), device, AttachType::Xdp, mode.flags())?;
        }
        Ok(())
    }

    /// Takes XDP in this mode off the device.
    pub fn detach_xdp(&self, device: &str, mode: XdpMode) {
        for spec in PROGRAMS.iter().filter(|spec| spec.hook == Hook::Xdp) {
            unpin(&self.xdp_pin(spec.name, device, mode));
        }
    }

    /// The mode in which XDP is pinned on the device by an earlier process.
    pub fn pinned_xdp(bpf_dir: &Path, device: &str) -> Option<XdpMode> {
        let links = bpf_dir.join("links");
        let pinned = |mode: &XdpMode| {
            let specs = PROGRAMS.iter().filter(|spec| spec.hook == Hook::Xdp);
            specs
                .map(|spec| links.join(format!("{}-{device}-{}", spec.name, mode.as_str())))
                .any(|pin| pin.exists())
        };
        [XdpMode::Native, XdpMode::Generic].into_iter().find(pinned)
    }

    /// Forgets a pod's link; the device may be gone.
    pub fn detach_pod(&self, device: &str) {
        for spec in PROGRAMS.iter().filter(|spec| matches!(spec.hook, Hook::PodIngress | Hook::PodEgress)) {
            unpin(&self.links.join(format!("{}-{device}", spec.name)));
        }
    }

    /// Removes the links of devices that are gone.
    pub fn sweep(&self) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.links)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let on_device = PROGRAMS
                .iter()
                .any(|spec| spec.hook != Hook::SockAddr && name.starts_with(&format!("{}-", spec.name)));
            let alive = sys::get(&path)
                .and_then(|link| sys::link_info(link.as_fd()))
                .is_ok_and(|info| info.ifindex != 0);
            if on_device && !alive {
                unpin(&path);
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn xdp_pin(&self, name: &str, device: &str, mode: XdpMode) -> PathBuf {
        self.links.join(format!("{name}-{device}-{}", mode.as_str()))
    }

    /// Attaches a program, or puts it into the link that is pinned already. What the object lacks is skipped.
    fn attach(
        &self,
        name: &'static str,
        pin: &Path,
        target: Target<'_>,
        target_name: &str,
        attach: AttachType,
        flags: u32,
    ) -> Result<(), ProgramsError> {
        let failed = |source| ProgramsError::Attach { name, target: target_name.to_owned(), source };
        let Some(program) = self.program(name) else { return Ok(()) };
        if let Ok(link) = sys::get(pin) {
            let info = sys::link_info(link.as_fd()).map_err(failed)?;
            let same_device = !matches!(target, Target::Device(index) if info.ifindex != index);
            if same_device && sys::link_update(link.as_fd(), program).is_ok() {
                return Ok(());
            }
            // The device or cgroup that the link was on is gone.
            unpin(pin);
        }
        let link = sys::link_create(program, target, attach, flags).map_err(failed)?;
        sys::pin(link.as_fd(), pin).map_err(failed)
    }

    fn program(&self, name: &'static str) -> Option<BorrowedFd<'_>> {
        self.loaded.get(name).map(AsFd::as_fd)
    }
}

/// Loads one program into the kernel.
fn load_one(object: &mut Ebpf, name: &'static str) -> Result<OwnedFd, ProgramsError> {
    let failed = |source| ProgramsError::Load { name, source };
    let descriptor =
        |fd: Result<&ProgramFd, ProgramError>| fd.and_then(|fd| Ok(fd.as_fd().try_clone_to_owned()?));
    let program = object.program_mut(name).ok_or(ProgramsError::Missing(name))?;
    match program {
        Program::Xdp(program) => program.load().and_then(|()| descriptor(program.fd())),
        Program::SchedClassifier(program) => program.load().and_then(|()| descriptor(program.fd())),
        Program::CgroupSockAddr(program) => program.load().and_then(|()| descriptor(program.fd())),
        _ => return Err(ProgramsError::Missing(name)),
    }
    .map_err(failed)
}

/// Removes a pin; that it is gone already is as well.
fn unpin(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "could not remove a pinned link");
    }
}

/// The attach point of a socket program, by its name in `abi::programs`.
fn sock_addr(name: &str) -> Option<AttachType> {
    Some(match name {
        "cg_connect4" => AttachType::Connect4,
        "cg_connect6" => AttachType::Connect6,
        "cg_sendmsg4" => AttachType::Sendmsg4,
        "cg_sendmsg6" => AttachType::Sendmsg6,
        "cg_recvmsg4" => AttachType::Recvmsg4,
        "cg_recvmsg6" => AttachType::Recvmsg6,
        "cg_getpeername4" => AttachType::Getpeername4,
        "cg_getpeername6" => AttachType::Getpeername6,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_program_has_an_attach_point() {
        for spec in PROGRAMS.iter().filter(|spec| spec.hook == Hook::SockAddr) {
            assert!(sock_addr(spec.name).is_some(), "{}", spec.name);
        }
    }
}
