//! Rules for IP addresses and CIDRs in fields of objects, with upstream's messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::status::FieldError;

/// The message for a text that is no address.
pub const NOT_AN_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// The message for a text that is no CIDR.
pub const NOT_A_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// An address and a prefix length that fits its family, such as `10.0.0.0/8`.
#[must_use]
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let plain = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let length: u8 = length.parse().ok().filter(|_| plain)?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

/// The error of a field that must hold an address.
#[must_use]
pub fn invalid_ip(path: &str, text: &str) -> Option<FieldError> {
    text.parse::<IpAddr>().is_err().then(|| FieldError::invalid(path, text, NOT_AN_IP))
}

/// The error of a field that must hold a CIDR.
#[must_use]
pub fn invalid_cidr(path: &str, text: &str) -> Option<FieldError> {
    parse_cidr(text).is_none().then(|| FieldError::invalid(path, text, NOT_A_CIDR))
}

/// The error of an endpoint's address that no packet can be sent to from another machine.
#[must_use]
pub fn special_ip(path: &str, text: &str) -> Option<FieldError> {
    let message = match text.parse::<IpAddr>() {
        Err(_) => "must be a valid IP address".to_owned(),
        Ok(ip) if ip.is_unspecified() => format!("may not be unspecified ({text})"),
        Ok(ip) if ip.is_loopback() => "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned(),
        Ok(ip) if is_link_local(ip) => {
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()
        }
        Ok(ip) if is_link_local_multicast(ip) => {
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()
        }
        Ok(_) => return None,
    };
    Some(FieldError::invalid(path, text, message))
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

/// The error of an address that is not of the family that `family` names (`IPv4` or `IPv6`).
#[must_use]
pub fn of_family(path: &str, text: &str, family: &str) -> Option<FieldError> {
    let valid =
        if family == "IPv4" { text.parse::<Ipv4Addr>().is_ok() } else { text.parse::<Ipv6Addr>().is_ok() };
    (!valid).then(|| FieldError::invalid(path, text, format!("must be a valid {family} address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_can_be_reached_from_elsewhere() {
        for (text, expected) in [
            ("10.0.0.1", None),
            ("fd00::1", None),
            (
                "127.0.0.1",
                Some(
                    "a: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                ),
            ),
            (
                "169.254.1.1",
                Some(
                    "a: Invalid value: \"169.254.1.1\": may not be in the link-local range (169.254.0.0/16, fe80::/10)",
                ),
            ),
            ("0.0.0.0", Some("a: Invalid value: \"0.0.0.0\": may not be unspecified (0.0.0.0)")),
            (
                "ff02::1",
                Some(
                    "a: Invalid value: \"ff02::1\": may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
                ),
            ),
            ("x", Some("a: Invalid value: \"x\": must be a valid IP address")),
        ] {
            assert_eq!(special_ip("a", text).map(|error| error.to_string()).as_deref(), expected);
        }
    }

    #[test]
    fn cidrs_have_a_length_that_fits() {
        assert!(parse_cidr("10.0.0.0/8").is_some() && parse_cidr("fd00::/112").is_some());
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/", "fd00::/+1", "x/8"] {
            assert!(parse_cidr(text).is_none(), "{text}");
        }
    }
}
