//! An address prefix of either family: parsing, membership and the addresses inside it, by number. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IP prefix in canonical form: the bits behind the prefix length are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

/// Why a text is not a prefix.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CidrError {
    /// No `/`, or what stands before it is no address.
    #[error("\"{0}\" is not an address prefix (ADDRESS/LENGTH)")]
    Syntax(String),
    /// The length is no number or too large for the family.
    #[error("\"{0}\": the prefix length must be 0 to {1}")]
    Length(String, u8),
}

impl Cidr {
    /// The prefix of `prefix` bits that holds `address`; the host bits of `address` are dropped.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, CidrError> {
        let width = width(address);
        if prefix > width {
            return Err(CidrError::Length(format!("{address}/{prefix}"), width));
        }
        let base = from_bits(address.is_ipv4(), bits(address) & mask(width, prefix));
        Ok(Self { base, prefix })
    }

    /// The whole of one address: /32 or /128.
    pub fn host(address: IpAddr) -> Self {
        Self { base: address, prefix: width(address) }
    }

    /// The first address.
    pub fn base(&self) -> IpAddr {
        self.base
    }

    /// Length of the prefix in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether this is an IPv4 prefix.
    pub fn is_ipv4(&self) -> bool {
        self.base.is_ipv4()
    }

    /// Whether `address` is inside. Addresses of the other family never are.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.offset(address).is_some()
    }

    /// The number of `address` within the prefix, counted from its first address.
    pub fn offset(&self, address: IpAddr) -> Option<u128> {
        if address.is_ipv4() != self.is_ipv4() {
            return None;
        }
        let width = width(address);
        let difference = bits(address) ^ bits(self.base);
        (difference & mask(width, self.prefix) == 0).then_some(difference)
    }

    /// How many addresses the prefix has; `None` when that is more than a `u128` holds (::/0).
    pub fn size(&self) -> Option<u128> {
        1u128.checked_shl(u32::from(width(self.base) - self.prefix))
    }

    /// The address with number `offset`, if the prefix is that large.
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        match self.size() {
            Some(size) if offset >= size => None,
            _ => Some(from_bits(self.is_ipv4(), bits(self.base) | offset)),
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Ones where the prefix is, in the low `width` bits.
fn mask(width: u8, prefix: u8) -> u128 {
    let all = if width == 128 { u128::MAX } else { (1 << width) - 1 };
    all & !all.checked_shr(u32::from(prefix)).unwrap_or(0)
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn from_bits(is_ipv4: bool, bits: u128) -> IpAddr {
    if is_ipv4 { Ipv4Addr::from_bits(bits as u32).into() } else { Ipv6Addr::from_bits(bits).into() }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = text.split_once('/').ok_or_else(|| CidrError::Syntax(text.to_owned()))?;
        let address: IpAddr = address.parse().map_err(|_| CidrError::Syntax(text.to_owned()))?;
        let prefix = prefix.parse().map_err(|_| CidrError::Length(text.to_owned(), width(address)))?;
        Self::new(address, prefix)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[track_caller]
    fn check(text: &str, canonical: &str, nth: u128, address: &str) {
        let cidr: Cidr = text.parse().unwrap();
        assert_eq!(cidr.to_string(), canonical);
        let address: IpAddr = address.parse().unwrap();
        assert_eq!(cidr.nth(nth), Some(address));
        assert_eq!(cidr.offset(address), Some(nth));
    }

    #[test]
    fn prefixes_are_made_canonical_and_count_their_addresses() {
        check("10.244.1.77/24", "10.244.1.0/24", 5, "10.244.1.5");
        check("fd00:10:244::/56", "fd00:10:244::/56", 0x1_0000, "fd00:10:244::1:0");
        check("0.0.0.0/0", "0.0.0.0/0", 1, "0.0.0.1");
        check("::/0", "::/0", 1, "::1");
        check("10.0.0.9/32", "10.0.0.9/32", 0, "10.0.0.9");
    }

    #[test]
    fn addresses_outside_or_of_the_other_family_have_no_number() {
        let cidr: Cidr = "10.244.1.0/24".parse().unwrap();
        assert_eq!(cidr.offset("10.244.2.0".parse().unwrap()), None);
        assert_eq!(cidr.offset("::ffff:10.244.1.1".parse().unwrap()), None);
        assert_eq!(cidr.nth(256), None);
    }

    #[test]
    fn bad_texts_are_refused_by_name() {
        for (text, message) in [
            ("10.0.0.0", "\"10.0.0.0\" is not an address prefix (ADDRESS/LENGTH)"),
            ("10.0.0/8", "\"10.0.0/8\" is not an address prefix (ADDRESS/LENGTH)"),
            ("10.0.0.0/33", "\"10.0.0.0/33\": the prefix length must be 0 to 32"),
            ("::/x", "\"::/x\": the prefix length must be 0 to 128"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap_err().to_string(), message);
        }
    }
}
