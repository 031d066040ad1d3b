//! The hooks that packets are sent through, on the host.

use pipeline::{Verdict, forward::At};

use crate::{frame::Frame, memory::Memory, world};

/// A hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// tcx ingress of a pod's veth.
    PodIn(u32),
    /// tcx egress of a pod's veth.
    PodOut(u32),
    /// tcx ingress of the uplink.
    UpIn,
    /// tcx egress of the uplink.
    UpOut,
    /// XDP on the uplink.
    Xdp,
    /// tcx ingress of the tunnel device.
    TunIn,
}

impl Hook {
    /// Sends a packet through the hook's stages.
    pub fn run(self, frame: &mut Frame, memory: &Memory) -> Verdict {
        frame.xdp = matches!(self, Self::Xdp);
        match self {
            Self::PodIn(_) => pipeline::pod::ingress(frame, memory),
            Self::PodOut(_) | Self::UpOut => pipeline::egress::egress(frame, memory),
            Self::UpIn => pipeline::uplink::ingress(frame, memory, At::Tc),
            Self::Xdp => pipeline::uplink::ingress(frame, memory, At::Xdp),
            Self::TunIn => pipeline::uplink::ingress(frame, memory, At::Tunnel),
        }
    }

    /// Index of the hook's interface.
    pub const fn ifindex(self) -> u32 {
        match self {
            Self::PodIn(n) | Self::PodOut(n) => n,
            Self::UpIn | Self::UpOut | Self::Xdp => world::UPLINK,
            Self::TunIn => world::TUNNEL,
        }
    }
}
