//! Which endpoints a node uses: the rules of upstream's `pkg/proxy/topology.go`.
//!
//! Cluster set: the ready endpoints that topology hints allow; if none is ready anywhere, those that serve while they terminate.
//! Local set: the same decision among this node's endpoints alone, without hints. A pod of a Service with publishNotReadyAddresses
//! arrives as a ready one.
//!
//! Not here: which set a packet is given (`abi::service::Service`), and whether a Service uses the local one at all.

use std::net::IpAddr;

/// Number of no node and of no list of zones (see [`crate::places`]).
pub const NONE: u32 = 0;

/// What is known of an endpoint's state, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks(u8);

impl Marks {
    /// conditions.ready.
    pub const READY: Self = Self(1);
    /// conditions.serving.
    pub const SERVING: Self = Self(2);
    /// conditions.terminating.
    pub const TERMINATING: Self = Self(4);
    /// hints.forNodes is not empty.
    pub const NODE_HINTS: Self = Self(8);
    /// hints.forNodes names this node.
    pub const HINTED_HERE: Self = Self(16);

    /// These marks, and `other` if `set`.
    #[must_use]
    pub fn with(self, other: Self, set: bool) -> Self {
        if set { Self(self.0 | other.0) } else { self }
    }

    /// Whether all of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    fn serves_while_terminating(self) -> bool {
        self.has(Self(Self::SERVING.0 | Self::TERMINATING.0))
    }
}

/// An endpoint of a slice. Small, because a cluster has hundreds of thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Address.
    pub address: IpAddr,
    /// State.
    pub marks: Marks,
    /// nodeName as a number, [`NONE`] if unknown.
    pub node: u32,
    /// hints.forZones as a number, [`NONE`] if there are none.
    pub zones: u32,
}

/// An endpoint of a service port, and the sets that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Target port.
    pub port: u16,
    /// Weight, 1 to 16.
    pub weight: u8,
    /// In the cluster set.
    pub cluster: bool,
    /// In the local set.
    pub local: bool,
}

impl Candidate {
    fn ready(&self) -> bool {
        self.endpoint.marks.has(Marks::READY)
    }
}

/// Where the decision is made.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    /// This node's number.
    pub node: u32,
    /// By number of a list of zones: whether this node's zone is in it.
    pub zone_fits: &'a [bool],
}

impl Here<'_> {
    /// Whether the endpoint is on this node.
    pub fn owns(&self, endpoint: &Endpoint) -> bool {
        self.node != NONE && endpoint.node == self.node
    }

    fn zone_fits(&self, endpoint: &Endpoint) -> bool {
        self.zone_fits.get(endpoint.zones as usize).copied().unwrap_or(false)
    }
}

/// Which endpoints a set takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Ready ones.
    Ready,
    /// Ready ones that are hinted for this node.
    SameNode,
    /// Ready ones that are hinted for this node's zone.
    SameZone,
    /// Those that serve while they terminate.
    Terminating,
}

impl Rule {
    fn takes(self, candidate: &Candidate, here: Here<'_>) -> bool {
        let marks = candidate.endpoint.marks;
        match self {
            Self::Ready => candidate.ready(),
            Self::SameNode => candidate.ready() && marks.has(Marks::HINTED_HERE),
            Self::SameZone => candidate.ready() && here.zone_fits(&candidate.endpoint),
            Self::Terminating => marks.serves_while_terminating(),
        }
    }
}

/// Fills in both sets.
pub fn categorise(candidates: &mut [Candidate], here: Here<'_>) {
    let cluster = cluster_rule(candidates, here);
    let own_ready = candidates.iter().any(|candidate| candidate.ready() && here.owns(&candidate.endpoint));
    let local = if own_ready { Rule::Ready } else { Rule::Terminating };
    for candidate in candidates {
        candidate.cluster = cluster.takes(candidate, here);
        candidate.local = here.owns(&candidate.endpoint) && local.takes(candidate, here);
    }
}

/// Hints count only when every ready endpoint carries them and one is meant for here; node hints win over zone hints.
fn cluster_rule(candidates: &[Candidate], here: Here<'_>) -> Rule {
    let ready = || candidates.iter().filter(|candidate| candidate.ready()).map(|ready| &ready.endpoint);
    if ready().next().is_none() {
        return Rule::Terminating;
    }
    if ready().all(|endpoint| endpoint.marks.has(Marks::NODE_HINTS))
        && ready().any(|endpoint| endpoint.marks.has(Marks::HINTED_HERE))
    {
        Rule::SameNode
    } else if ready().all(|endpoint| endpoint.zones != NONE)
        && ready().any(|endpoint| here.zone_fits(endpoint))
    {
        Rule::SameZone
    } else {
        Rule::Ready
    }
}

#[cfg(test)]
mod tests;
