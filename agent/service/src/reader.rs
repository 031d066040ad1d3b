//! Reading API objects: what cannot be understood becomes a [`Problem`] that names the field, and is left out.

use std::net::IpAddr;

use crate::{ObjectKey, Problem};

/// Problems of one object, collected while it is read.
pub struct Reader<'a> {
    object: &'a ObjectKey,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// A reader of this object.
    pub fn new(object: &'a ObjectKey, problems: &'a mut Vec<Problem>) -> Self {
        Self { object, problems }
    }

    /// Notes a problem.
    pub fn problem(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem {
            object: self.object.clone(),
            field: field.into(),
            message: message.into(),
        });
    }

    /// Reads an address.
    pub fn address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        let address = parse_address(text);
        if address.is_none() {
            self.problem(field, format!("\"{text}\" is no IP address"));
        }
        address
    }

    /// Reads a port number.
    pub fn port(&mut self, field: &str, number: i32) -> Option<u16> {
        match u16::try_from(number) {
            Ok(port) if port != 0 => Some(port),
            _ => {
                self.problem(field, format!("{number} is no port (1-65535)"));
                None
            }
        }
    }
}

/// Reads an address. IPv4 octets with leading zeros, which old stores may hold, are decimal (as upstream reads them).
pub fn parse_address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = parts.next()?.parse().ok()?;
    }
    parts.next().is_none().then(|| IpAddr::from(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_decimal_and_four() {
        for (text, expected) in [
            ("010.000.0.007", Some(IpAddr::from([10, 0, 0, 7]))),
            ("10.0.0.7", Some(IpAddr::from([10, 0, 0, 7]))),
            ("1.2.3", None),
            ("1.2.3.4.5", None),
            ("1.2.3.256", None),
            ("", None),
        ] {
            assert_eq!(parse_address(text), expected, "{text}");
        }
    }
}
