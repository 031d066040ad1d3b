//! Gives every node its pod ranges, one a family, out of the cluster's (upstream: pkg/controller/nodeipam, range allocator).
//! One key stands for all nodes: one plan serves all that wait, and it is not made again before its own writes were seen,
//! so no range is given twice. What is taken is read off the nodes each time; there is no other memory.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use crate::plan::{self, Action, Context, EventKind, PatchStyle, Plan, Target};
use crate::table::{Change, Key};
use crate::view::{View, Watch};

/// What wakes this controller.
pub const WATCHES: &[Watch] = &[Watch::Node(of_node)];

/// Prefix length of a node's IPv4 range.
const NODE_MASK_V4: u32 = 24;
/// Prefix length of a node's IPv6 range.
const NODE_MASK_V6: u32 = 64;

fn of_node(_: &View, change: &Change<Node>) -> Vec<Key> {
    let ranges = |node: &Node| node.spec.as_ref().and_then(|it| it.pod_cidrs.clone());
    let changed = change.old.as_ref().map(|it| ranges(it)) != change.new.as_ref().map(|it| ranges(it));
    changed.then(|| Key::cluster("nodes")).into_iter().collect()
}

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    base: u128,
    prefix: u32,
    is_v6: bool,
}

impl Range {
    /// Parses `10.244.0.0/16`. None if it is no address range.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let prefix: u32 = prefix.parse().ok()?;
        let (bits, is_v6) = match address.parse().ok()? {
            IpAddr::V4(it) => (u128::from(it.to_bits()), false),
            IpAddr::V6(it) => (it.to_bits(), true),
        };
        let width = if is_v6 { 128 } else { 32 };
        let host = width - (prefix <= width).then_some(prefix)?;
        let base = bits.checked_shr(host).unwrap_or(0).checked_shl(host).unwrap_or(0);
        Some(Self { base, prefix, is_v6 })
    }

    const fn width(self) -> u32 {
        if self.is_v6 { 128 } else { 32 }
    }

    /// The blocks of `prefix` bits inside this one, in order.
    fn blocks(self, prefix: u32) -> impl Iterator<Item = Range> {
        let count = if prefix < self.prefix {
            0
        } else {
            1u128.checked_shl(prefix - self.prefix).unwrap_or(u128::MAX)
        };
        let step = self.width() - prefix;
        (0..count).map(move |at| Range {
            base: self.base + at.checked_shl(step).unwrap_or(0),
            prefix,
            is_v6: self.is_v6,
        })
    }

    fn overlaps(self, other: Self) -> bool {
        let host = self.width() - self.prefix.min(other.prefix);
        self.is_v6 == other.is_v6 && self.base.checked_shr(host) == other.base.checked_shr(host)
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address: IpAddr = if self.is_v6 {
            Ipv6Addr::from_bits(self.base).into()
        } else {
            Ipv4Addr::from_bits(self.base as u32).into()
        };
        write!(f, "{address}/{}", self.prefix)
    }
}

/// Decides about all nodes that have no ranges yet.
pub fn plan(view: &View, _: &Key, context: &Context<'_>) -> Plan {
    let pools: Vec<Range> = context.settings.cluster_cidrs.iter().filter_map(|it| Range::parse(it)).collect();
    if pools.is_empty() {
        return Plan::await_change();
    }
    let nodes = view.nodes.all();
    let listed = |node: &Node| node.spec.as_ref().and_then(|it| it.pod_cidrs.clone()).unwrap_or_default();
    let mut taken: Vec<Range> =
        nodes.iter().flat_map(|it| listed(it)).filter_map(|it| Range::parse(&it)).collect();
    let mut exact: BTreeSet<(bool, u128, u32)> =
        taken.iter().map(|it| (it.is_v6, it.base, it.prefix)).collect();
    let mut writes = Vec::new();
    for node in nodes.iter().filter(|it| listed(it).is_empty() && it.metadata.deletion_timestamp.is_none()) {
        let chosen: Option<Vec<Range>> = pools.iter().map(|pool| free(*pool, &taken, &exact)).collect();
        match chosen {
            Some(ranges) => {
                exact.extend(ranges.iter().map(|it| (it.is_v6, it.base, it.prefix)));
                taken.extend(&ranges);
                writes.push(assign(node, &ranges));
            }
            None => {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                let text = format!("Node {name} status is now: CIDRNotAvailable");
                writes.push(plan::event(&**node, EventKind::Normal, "CIDRNotAvailable", text));
            }
        }
    }
    Plan::of(writes)
}

fn free(pool: Range, taken: &[Range], exact: &BTreeSet<(bool, u128, u32)>) -> Option<Range> {
    let prefix = if pool.is_v6 { NODE_MASK_V6 } else { NODE_MASK_V4 };
    // Blocks given by us are found in the set; odd sizes, given by hand, need the slow comparison.
    let odd: Vec<Range> =
        taken.iter().copied().filter(|it| it.is_v6 == pool.is_v6 && it.prefix != prefix).collect();
    pool.blocks(prefix).find(|it| {
        !exact.contains(&(it.is_v6, it.base, it.prefix)) && !odd.iter().any(|other| other.overlaps(*it))
    })
}

fn assign(node: &Node, ranges: &[Range]) -> Action {
    let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    let patch = json!({"spec": {"podCIDR": texts.first(), "podCIDRs": texts}});
    Action::Patch { target: Target::of(node), subresource: None, style: PatchStyle::Strategic, patch }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::fake::{NOW, describe};
    use crate::plan::Settings;

    /// `nodes`: name, then ranges.
    fn check(pools: &[&str], nodes: &[&str], want: Expect) {
        let view = View::default();
        for line in nodes {
            let mut words = line.split(' ');
            let mut node = Node::default();
            node.metadata.name = words.next().map(Into::into);
            let ranges: Vec<String> = words.map(Into::into).collect();
            node.spec = Some(k8s_openapi::api::core::v1::NodeSpec {
                pod_cidrs: (!ranges.is_empty()).then_some(ranges),
                ..Default::default()
            });
            view.nodes.apply(node);
        }
        let settings = Settings {
            cluster_cidrs: pools.iter().map(ToString::to_string).collect(),
            ..Settings::default()
        };
        let context = Context::at(NOW, &settings);
        want.assert_eq(&describe(&plan(&view, &Key::cluster("nodes"), &context)));
    }

    #[test]
    fn both_families_and_the_lowest_free_block() {
        check(
            &["10.244.0.0/16", "fd00:10:244::/56"],
            &["a 10.244.0.0/24 fd00:10:244::/64", "b", "c", "d 10.244.1.0/24"],
            expect![[r#"
            patch Node b {"spec":{"podCIDR":"10.244.2.0/24","podCIDRs":["10.244.2.0/24","fd00:10:244:1::/64"]}}
            patch Node c {"spec":{"podCIDR":"10.244.3.0/24","podCIDRs":["10.244.3.0/24","fd00:10:244:2::/64"]}}
        "#]],
        );
    }

    #[test]
    fn a_block_of_another_size_is_avoided() {
        check(
            &["10.244.0.0/16"],
            &["a 10.244.0.0/22", "b"],
            expect![[r#"
            patch Node b {"spec":{"podCIDR":"10.244.4.0/24","podCIDRs":["10.244.4.0/24"]}}
        "#]],
        );
    }

    #[test]
    fn an_empty_pool_is_said_aloud() {
        check(
            &["10.244.0.0/24"],
            &["a 10.244.0.0/24", "b"],
            expect![[r#"
            event Normal CIDRNotAvailable Node b status is now: CIDRNotAvailable
        "#]],
        );
    }
}
