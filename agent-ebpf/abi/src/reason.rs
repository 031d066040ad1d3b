//! Why a packet was dropped, rejected or could not be served: one list for counters, metrics, status and docs.

/// A reason; its number is the row of [`crate::maps::DROPS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// A header is cut short or its length field is impossible.
    Malformed,
    /// A pod sent from an address that is not its own.
    Spoofed,
    /// The service has no endpoint anywhere: refused (RST, ICMP unreachable, ECONNREFUSED).
    NoEndpoint,
    /// A traffic policy is Local and no endpoint is on this node.
    NoLocalEndpoint,
    /// The address belongs to a service but the port does not: rejected.
    NoService,
    /// The address is a pod's of this node and there is no such pod.
    NoPod,
    /// A next hop says that nothing can be reached there.
    Unreachable,
    /// No free source port towards this backend.
    PortsExhausted,
    /// The table of unanswered flows did not take the entry: others were writing where it belongs.
    FlowTableFull,
    /// A later fragment whose first one was not seen.
    FragmentUnknown,
    /// The hop limit ran out.
    HopLimit,
    /// A slot names a backend that does not exist: a publication went wrong.
    BackendMissing,
    /// The client is outside the service's loadBalancerSourceRanges.
    SourceRange,
    /// The packet is larger than the way allows and must not be fragmented: answered with the size that fits.
    TooBig,
    /// A packet that another node handed over could not be served here.
    HandOver,
}

impl Reason {
    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();

    /// All reasons, by number.
    pub const ALL: [Self; 15] = [
        Self::Malformed,
        Self::Spoofed,
        Self::NoEndpoint,
        Self::NoLocalEndpoint,
        Self::NoService,
        Self::NoPod,
        Self::Unreachable,
        Self::PortsExhausted,
        Self::FlowTableFull,
        Self::FragmentUnknown,
        Self::HopLimit,
        Self::BackendMissing,
        Self::SourceRange,
        Self::TooBig,
        Self::HandOver,
    ];

    /// The reason with this number; [`Reason::Malformed`] if there is none.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Spoofed,
            2 => Self::NoEndpoint,
            3 => Self::NoLocalEndpoint,
            4 => Self::NoService,
            5 => Self::NoPod,
            6 => Self::Unreachable,
            7 => Self::PortsExhausted,
            8 => Self::FlowTableFull,
            9 => Self::FragmentUnknown,
            10 => Self::HopLimit,
            11 => Self::BackendMissing,
            12 => Self::SourceRange,
            13 => Self::TooBig,
            14 => Self::HandOver,
            _ => Self::Malformed,
        }
    }

    /// Label in metrics and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Spoofed => "spoofed",
            Self::NoEndpoint => "no-endpoint",
            Self::NoLocalEndpoint => "no-local-endpoint",
            Self::NoService => "no-service",
            Self::NoPod => "no-pod",
            Self::Unreachable => "unreachable",
            Self::PortsExhausted => "ports-exhausted",
            Self::FlowTableFull => "flow-table-full",
            Self::FragmentUnknown => "fragment-unknown",
            Self::HopLimit => "hop-limit",
            Self::BackendMissing => "backend-missing",
            Self::SourceRange => "source-range",
            Self::TooBig => "too-big",
            Self::HandOver => "hand-over",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_every_reason_at_its_own_number() {
        for (number, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number, "{}", reason.as_str());
            assert_eq!(Reason::from_number(number as u8), reason);
        }
    }

    #[test]
    fn labels_are_distinct() {
        for (i, a) in Reason::ALL.iter().enumerate() {
            for b in &Reason::ALL[i + 1..] {
                assert_ne!(a.as_str(), b.as_str());
            }
        }
    }
}
