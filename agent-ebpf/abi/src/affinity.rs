//! Client affinity (`sessionAffinity: ClientIP`): which backend a client of a service had last.
//!
//! Read when a new connection to a service with [`crate::service::flags::AFFINITY`] begins, never for a packet of a known one.
//! Nothing deletes an entry: it counts only as long as the backend's generation is the one that it names
//! ([`crate::backend::Backend4::generation`]), and the kernel evicts those that were not used for longest.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Ip4, Ip6, flow::TICK_SHIFT, sizes};

/// Key of [`crate::maps::AFF4`]: a client that is known by its packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AffinityKey4 {
    /// Service id.
    pub service: u32,
    /// Source address of its packets.
    pub client: Ip4,
}

/// Key of [`crate::maps::AFF6`]: a client that is known by its packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AffinityKey6 {
    /// Service id.
    pub service: u32,
    /// Source address of its packets.
    pub client: Ip6,
}

/// Key of [`crate::maps::AFFSK`]: a client that is known by its sockets. A pod is one client, whichever of its addresses it
/// would use, and so is all that runs in the node's own network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SocketAffinityKey {
    /// Cookie (`SO_NETNS_COOKIE`) of the sockets' network namespace.
    pub netns: u64,
    /// Service id.
    pub service: u32,
    /// Zero.
    pub _pad: u32,
}

/// Value of [`crate::maps::AFF4`], [`crate::maps::AFF6`] and [`crate::maps::AFFSK`].
///
/// An element may be given to another key while it is read. Service and backend lie in one word, which is read by one load:
/// whoever finds another service there has met such an element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Affinity {
    /// Service id, as in the key.
    pub service: u32,
    /// Index of the backend.
    pub backend: u32,
    /// The backend's generation when it was chosen.
    pub generation: u16,
    /// Zero.
    pub _pad: u16,
    /// Tick of the last new connection, see [`TICK_SHIFT`].
    pub last_seen: u32,
}

sizes! { AffinityKey4 = 8, AffinityKey6 = 20, SocketAffinityKey = 16, Affinity = 16 }

impl Affinity {
    /// Whether the last new connection was longer than `timeout_s` seconds before `now`, a tick. Never early, and late by at
    /// most two ticks: seconds are no whole ticks, and neither end's place inside its tick is known.
    #[inline(always)]
    pub const fn expired(&self, now: u32, timeout_s: u32) -> bool {
        let allowed = ((timeout_s as u64 * 1_000_000_000) >> TICK_SHIFT) + 1;
        // Another CPU may have read a later clock: its entry lies in the future and is not old.
        let age = now.wrapping_sub(self.last_seen) as i32;
        age > 0 && age as u64 > allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_expires_after_its_timeout_and_soon_after() {
        let check = |last_seen: u32, now: u32, timeout_s, expired| {
            let entry = Affinity { last_seen, ..Affinity::default() };
            assert_eq!(entry.expired(now, timeout_s), expired, "{last_seen} at {now}, {timeout_s} s");
        };
        // A tick is 1.07 s, and eleven between two clock readings may be little more than ten.
        check(100, 100, 10, false);
        check(100, 110, 10, false);
        check(100, 111, 10, true);
        check(100, 101, 1, false);
        check(100, 102, 1, true);
        check(100, 100 + 80_467, 86_400, false);
        check(100, 100 + 80_468, 86_400, true);
        check(101, 100, 10, false);
        check(u32::MAX - 3, 5, 10, false);
        check(u32::MAX - 3, 12, 10, true);
    }
}
