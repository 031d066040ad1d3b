//! How a packet ends. The numbers of the hooks (`TC_ACT_*`, `XDP_*`) appear only in `agent-ebpf/src/ctx.rs`.

use core::ops::ControlFlow;

use abi::Reason;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On to the stack.
    Pass,
    /// Away, counted.
    Drop(Reason),
    /// Into the pod behind the veth whose host end is this interface.
    Peer(u32),
    /// Out of this interface, with the Ethernet header as it stands.
    Redirect(u32),
    /// Out of this interface, with an Ethernet header by the stack's routes and neighbours. Never from XDP.
    Neighbour(u32),
    /// Back out of the interface that the packet came from, with the Ethernet header as it stands.
    Transmit,
    /// On to tcx with a note that the packet is for this next hop, a pod's. From XDP only.
    HandOff(u32),
}

/// A verdict as one number, for the boundary of a BPF subprogram. An enum would be returned in a register whose unused
/// half is undefined, and the verifier refuses to read that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Packed(u64);

impl Packed {
    const PASS: u64 = 0;
    const DROP: u64 = 1;
    const PEER: u64 = 2;
    const REDIRECT: u64 = 3;
    const NEIGHBOUR: u64 = 4;
    const TRANSMIT: u64 = 5;
    const GO_ON: u64 = 6;
    const HAND_OFF: u64 = 7;
    const REJECT: u64 = 8;

    /// No verdict yet: the next stage decides.
    pub const CONTINUE: Self = Self::new(Self::GO_ON, 0);

    const fn new(kind: u64, argument: u32) -> Self {
        Self(kind << 32 | argument as u64)
    }

    /// No verdict yet: the packet is to be rejected for this reason.
    #[inline(always)]
    pub const fn reject(reason: Reason) -> Self {
        Self::new(Self::REJECT, reason as u32)
    }

    /// The reason of [`Packed::reject`].
    #[inline(always)]
    pub fn rejected(self) -> Option<Reason> {
        if self.0 >> 32 == Self::REJECT { Some(Reason::from_number(self.0 as u8)) } else { None }
    }

    /// Whether the packet goes to the stack.
    #[inline(always)]
    pub const fn passes(self) -> bool {
        self.0 >> 32 == Self::PASS
    }

    /// Whether there is no verdict yet.
    #[inline(always)]
    pub const fn continues(self) -> bool {
        self.0 >> 32 == Self::GO_ON
    }
}

impl From<Verdict> for Packed {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::new(Self::PASS, 0),
            Verdict::Drop(reason) => Self::new(Self::DROP, reason as u32),
            Verdict::Peer(ifindex) => Self::new(Self::PEER, ifindex),
            Verdict::Redirect(ifindex) => Self::new(Self::REDIRECT, ifindex),
            Verdict::Neighbour(ifindex) => Self::new(Self::NEIGHBOUR, ifindex),
            Verdict::Transmit => Self::new(Self::TRANSMIT, 0),
            Verdict::HandOff(nexthop) => Self::new(Self::HAND_OFF, nexthop),
        }
    }
}

impl From<Step<()>> for Packed {
    #[inline(always)]
    fn from(step: Step<()>) -> Self {
        match step {
            ControlFlow::Continue(()) => Self::CONTINUE,
            ControlFlow::Break(verdict) => verdict.into(),
        }
    }
}

impl From<Packed> for Step<()> {
    #[inline(always)]
    fn from(packed: Packed) -> Self {
        if packed.0 >> 32 == Packed::GO_ON {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(packed.into())
        }
    }
}

impl From<Packed> for Verdict {
    #[inline(always)]
    fn from(packed: Packed) -> Self {
        let argument = packed.0 as u32;
        match packed.0 >> 32 {
            Packed::PASS => Self::Pass,
            Packed::DROP | Packed::REJECT => Self::Drop(Reason::from_number(argument as u8)),
            Packed::PEER => Self::Peer(argument),
            Packed::REDIRECT => Self::Redirect(argument),
            Packed::NEIGHBOUR => Self::Neighbour(argument),
            Packed::HAND_OFF => Self::HandOff(argument),
            _ => Self::Transmit,
        }
    }
}

/// A stage's outcome: go on with `T`, or end here.
pub type Step<T> = ControlFlow<Verdict, T>;

/// Ends the packet with a counted drop.
#[inline(always)]
pub fn drop<T>(reason: Reason) -> Step<T> {
    ControlFlow::Break(Verdict::Drop(reason))
}

/// Leaves the packet to the stack.
#[inline(always)]
pub fn pass<T>() -> Step<T> {
    ControlFlow::Break(Verdict::Pass)
}

/// The verdict of a chain of stages that ends in one.
#[inline(always)]
pub fn settle(outcome: Step<Verdict>) -> Packed {
    match outcome {
        ControlFlow::Continue(verdict) | ControlFlow::Break(verdict) => verdict.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_loses_nothing() {
        let mut verdicts = [
            Verdict::HandOff(9),
            Verdict::Peer(7),
            Verdict::Redirect(u32::MAX),
            Verdict::Neighbour(1),
            Verdict::Transmit,
            Verdict::Drop(Reason::Malformed),
            Verdict::Pass,
        ];
        for reason in Reason::ALL {
            verdicts[5] = Verdict::Drop(reason);
            for verdict in verdicts {
                assert_eq!(Verdict::from(Packed::from(verdict)), verdict);
            }
        }
    }
}
