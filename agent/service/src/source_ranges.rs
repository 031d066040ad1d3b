//! Source ranges: which clients may use a Service's load balancer addresses.
//!
//! They count by family, as upstream's proxy has it: a family in which no range is named is open to all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::Service;

use crate::Family;
use crate::reader::{Reader, parse_address};

/// The field of old, read where spec.loadBalancerSourceRanges is empty: ranges separated by commas.
pub const ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const FIELD: &str = "spec.loadBalancerSourceRanges";

/// A range: base address and prefix length.
pub type Range = (IpAddr, u8);

/// The ranges of one Service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceRanges {
    /// Sorted, each once.
    ranges: Box<[Range]>,
    /// Something was named that is no range: whoever it was meant for, it was meant to keep others out.
    unreadable: bool,
}

impl SourceRanges {
    /// Reads the ranges of a Service.
    pub fn of(service: &Service, reader: &mut Reader<'_>) -> Self {
        let listed = service.spec.iter().flat_map(|spec| spec.load_balancer_source_ranges.iter().flatten());
        let mut texts: Vec<(&str, &str)> = listed.map(|text| (FIELD, text.as_str())).collect();
        if texts.is_empty() {
            let annotation =
                service.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION));
            let listed = annotation.into_iter().flat_map(|text| text.split(','));
            texts =
                listed.map(|text| (ANNOTATION, text)).filter(|(_, text)| !text.trim().is_empty()).collect();
        }
        let mut ranges = Vec::new();
        let mut unreadable = false;
        for (field, text) in texts {
            // Validation upstream lets white space around a range pass.
            match parse(text.trim()) {
                Some(range) => ranges.push(range),
                None => {
                    unreadable = true;
                    reader.problem(field, format!("\"{text}\" is no range of addresses; it allows nobody"));
                }
            }
        }
        ranges.sort_unstable();
        ranges.dedup();
        Self { ranges: ranges.into(), unreadable }
    }

    /// The ranges that restrict clients of this family; `None` if all are allowed.
    pub fn family(&self, family: Family) -> Option<Vec<Range>> {
        let ranges: Vec<Range> =
            self.ranges.iter().filter(|(base, _)| Family::from(*base) == family).copied().collect();
        let open = ranges.iter().any(|(_, prefix)| *prefix == 0) || (ranges.is_empty() && !self.unreadable);
        (!open).then_some(ranges)
    }
}

/// Reads a range; bits behind the prefix are cleared.
fn parse(text: &str) -> Option<Range> {
    let (address, prefix) = text.split_once('/')?;
    let prefix: u8 = prefix.parse().ok()?;
    match parse_address(address)? {
        IpAddr::V4(address) => {
            let rest = 32_u32.checked_sub(prefix.into())?;
            let mask = u32::MAX.checked_shl(rest).unwrap_or(0);
            Some((Ipv4Addr::from(u32::from(address) & mask).into(), prefix))
        }
        IpAddr::V6(address) => {
            let rest = 128_u32.checked_sub(prefix.into())?;
            let mask = u128::MAX.checked_shl(rest).unwrap_or(0);
            Some((Ipv6Addr::from(u128::from(address) & mask).into(), prefix))
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::{ObjectKey, Problem};
    use serde_json::json;

    /// The ranges of both families as texts ("all" if open), and the problems.
    #[track_caller]
    fn check(ranges: &[&str], annotation: Option<&str>, expected: [&str; 2], problems: &[&str]) {
        let mut json = json!({"metadata": {}, "spec": {"loadBalancerSourceRanges": ranges}});
        if let Some(text) = annotation {
            json["metadata"]["annotations"] = json!({ANNOTATION: text});
        }
        let (key, mut found) = (ObjectKey::new("ns", "a"), Vec::new());
        let service = serde_json::from_value(json).unwrap();
        let ranges = SourceRanges::of(&service, &mut Reader::new(&key, &mut found));
        let text = |family| match ranges.family(family) {
            None => "all".to_owned(),
            Some(ranges) => {
                ranges.iter().map(|(base, prefix)| format!("{base}/{prefix}")).collect::<Vec<_>>().join(" ")
            }
        };
        assert_eq!([text(Family::V4), text(Family::V6)], expected);
        assert_eq!(found.iter().map(Problem::to_string).collect::<Vec<_>>(), problems);
    }

    #[test]
    fn ranges_restrict_their_own_family() {
        check(&[], None, ["all", "all"], &[]);
        check(&["10.0.0.7/8", " 192.0.2.0/24 "], None, ["10.0.0.0/8 192.0.2.0/24", "all"], &[]);
        check(&["fd00::7/64", "198.51.100.1/32"], None, ["198.51.100.1/32", "fd00::/64"], &[]);
    }

    #[test]
    fn a_range_of_everything_is_no_restriction() {
        check(&["10.0.0.0/8", "0.0.0.0/0"], None, ["all", "all"], &[]);
        check(&["10.0.0.0/8", "::/0"], None, ["10.0.0.0/8", "all"], &[]);
    }

    #[test]
    fn the_annotation_counts_where_the_field_is_empty() {
        check(&[], Some("10.0.0.0/8, fd00::/8"), ["10.0.0.0/8", "fd00::/8"], &[]);
        check(&["192.0.2.0/24"], Some("10.0.0.0/8"), ["192.0.2.0/24", "all"], &[]);
        check(&[], Some(" "), ["all", "all"], &[]);
    }

    #[test]
    fn what_is_no_range_allows_nobody() {
        check(
            &["10.0.0.0", "10.0.0.0/33"],
            None,
            ["", ""],
            &[
                "ns/a: spec.loadBalancerSourceRanges: \"10.0.0.0\" is no range of addresses; it allows nobody",
                "ns/a: spec.loadBalancerSourceRanges: \"10.0.0.0/33\" is no range of addresses; it allows nobody",
            ],
        );
    }
}
