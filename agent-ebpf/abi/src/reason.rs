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
    /// The flow table refused the entry.
    FlowTableFull,
    /// A later fragment whose first one was not seen.
    FragmentUnknown,
    /// The hop limit ran out.
    HopLimit,
    /// A slot names a backend that does not exist: a publication went wrong.
    BackendMissing,
}

impl Reason {
    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();

    /// All reasons, by number.
    pub const ALL: [Self; 12] = [
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
