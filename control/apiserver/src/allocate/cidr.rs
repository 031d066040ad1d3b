//! Address ranges as numbers: which addresses of a range services may have, and in which order they are tried.
//!
//! Pure: randomness is an argument.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address range in CIDR form, e.g. `10.96.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

/// Why a text is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {0}")]
pub struct InvalidCidr(String);

/// Address family, under its name in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// `IPv4`
    V4,
    /// `IPv6`
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The family called `name` in the API.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

impl Cidr {
    /// The family of its addresses.
    pub fn family(&self) -> Family {
        Family::of(self.base)
    }

    /// Whether a service may have `address`: it is in the range, and neither the network's nor the broadcast address.
    pub fn serves(&self, address: IpAddr) -> bool {
        self.family() == Family::of(address)
            && number(address)
                .checked_sub(number(self.base))
                .is_some_and(|at| at >= 1 && at <= self.last_offset())
    }

    /// The first address that a service may have; the `kubernetes` service has it.
    pub fn first(&self) -> IpAddr {
        self.at(1)
    }

    /// The last usable address as an offset from the base.
    fn last_offset(&self) -> u128 {
        let host_bits = u32::from(self.width() - self.prefix);
        let all_ones = 1_u128.checked_shl(host_bits).unwrap_or(0).wrapping_sub(1);
        // The last address of an IPv4 range is the broadcast address; IPv6 has none.
        if self.family() == Family::V4 { all_ones.saturating_sub(1) } else { all_ones }
    }

    fn width(&self) -> u8 {
        if self.family() == Family::V4 { 32 } else { 128 }
    }

    /// The address `offset` behind the base.
    fn at(&self, offset: u128) -> IpAddr {
        let sum = number(self.base) + offset;
        match self.family() {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(sum as u32)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(sum)),
        }
    }

    /// Addresses to try for a service that asks for none: from a random point of the upper band onwards and around
    /// it, then the lower band, which is thereby kept for addresses asked for by number (KEP-3070).
    ///
    /// `random` picks the point; at most `limit` addresses are tried.
    pub fn candidates(&self, random: u128, limit: usize) -> impl Iterator<Item = IpAddr> + '_ {
        let size = self.last_offset();
        let band = static_band(size);
        let (upper_start, upper_size) = (band + 1, size - band);
        let upper = (0..upper_size).map(move |step| upper_start + (random % upper_size + step) % upper_size);
        let lower = 1..=band;
        upper.chain(lower).take(limit).map(|offset| self.at(offset))
    }
}

/// Size of the band at the start of a range that is used last: a sixteenth, between 16 and 256, none in tiny ranges.
fn static_band(size: u128) -> u128 {
    if size < 16 { 0 } else { (size / 16).clamp(16, 256).min(size - 1) }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let invalid = || InvalidCidr(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let base: IpAddr = address.parse().map_err(|_| invalid())?;
        let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
        let cidr = Self { base, prefix };
        if prefix > cidr.width() {
            return Err(invalid());
        }
        let host_bits = u32::from(cidr.width() - prefix);
        let network = number(base).checked_shr(host_bits).unwrap_or(0).checked_shl(host_bits).unwrap_or(0);
        let base = match cidr.family() {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(network as u32)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(network)),
        };
        Ok(Self { base, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_are_read_and_written_in_network_form() {
        for (text, expected) in [
            ("10.96.0.0/16", Some("10.96.0.0/16")),
            ("10.96.7.9/16", Some("10.96.0.0/16")),
            ("fd00:10:96::/112", Some("fd00:10:96::/112")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("::/0", Some("::/0")),
            ("10.96.0.0/33", None),
            ("10.96.0.0", None),
            ("x/8", None),
        ] {
            assert_eq!(text.parse::<Cidr>().ok().map(|c| c.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn network_and_broadcast_addresses_are_not_for_services() {
        let table = [
            ("10.0.0.0/24", "10.0.0.0", false),
            ("10.0.0.0/24", "10.0.0.1", true),
            ("10.0.0.0/24", "10.0.0.254", true),
            ("10.0.0.0/24", "10.0.0.255", false),
            ("10.0.0.0/24", "10.0.1.0", false),
            ("10.0.0.0/24", "9.255.255.255", false),
            ("fd00::/120", "fd00::", false),
            ("fd00::/120", "fd00::ff", true),
            ("fd00::/120", "10.0.0.1", false),
        ];
        for (range, address, expected) in table {
            assert_eq!(cidr(range).serves(address.parse().unwrap()), expected, "{address} in {range}");
        }
        assert_eq!(cidr("fd00:10:96::/112").first().to_string(), "fd00:10:96::1");
    }

    #[test]
    fn every_usable_address_is_a_candidate_once_the_lower_band_last() {
        for (range, random, size, band) in [
            ("10.0.0.0/24", 0, 254, 16),
            ("10.0.0.0/24", u128::MAX, 254, 16),
            ("10.0.0.0/29", 3, 6, 0),
            ("10.0.0.0/30", 7, 2, 0),
            ("10.96.0.0/16", 12345, 65534, 256),
            ("fd00::/120", 77, 255, 16),
        ] {
            let range = cidr(range);
            let all: Vec<IpAddr> = range.candidates(random, usize::MAX).collect();
            let distinct: BTreeSet<IpAddr> = all.iter().copied().collect();
            assert_eq!((all.len(), distinct.len()), (size, size), "{range}");
            assert!(all.iter().all(|address| range.serves(*address)), "{range}");
            let lower: Vec<IpAddr> = all[size - band..].to_vec();
            assert!(
                lower.iter().all(|address| all[..size - band].iter().all(|upper| upper > address)),
                "{range}"
            );
        }
    }

    #[test]
    fn a_huge_range_is_not_walked_to_its_end() {
        assert_eq!(cidr("fd00::/64").candidates(u128::MAX, 1000).count(), 1000);
    }
}
