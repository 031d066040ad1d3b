//! Service addresses as such: those that answer echo requests and reject ports that no frontend has.
//!
//! Several Services may share an address: it stays until the last one leaves it. A node's address is never one, whoever lists it (an
//! externalIP, a load balancer that hands out node addresses): its other ports are the node's own business.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::Diff;
use crate::places::Places;

/// Addresses with the number of Services that have them.
#[derive(Debug, Default)]
pub struct Vips {
    users: HashMap<IpAddr, u32>,
    /// What an earlier process left and nobody has claimed yet.
    inherited: HashSet<IpAddr>,
}

impl Vips {
    /// Takes note of what an earlier process left.
    pub fn adopt(&mut self, addresses: Vec<IpAddr>) {
        self.inherited.extend(addresses);
    }

    /// One Service's addresses change from `old` to `new`, each sorted and without repetition.
    pub fn exchange(&mut self, old: &[IpAddr], new: &[IpAddr], places: &Places, diff: &mut Diff) {
        for address in new.iter().filter(|address| old.binary_search(address).is_err()) {
            let users = self.users.entry(*address).or_default();
            *users += 1;
            if *users == 1 && !places.is_node_address(address) {
                self.inherited.remove(address);
                diff.vips.push((*address, true));
            }
        }
        for address in old.iter().filter(|address| new.binary_search(address).is_err()) {
            let Some(users) = self.users.get_mut(address) else { continue };
            *users -= 1;
            if *users == 0 {
                self.users.remove(address);
                if !places.is_node_address(address) {
                    diff.vips.push((*address, false));
                }
            }
        }
    }

    /// These addresses became a node's, or are one no more.
    pub fn nodes_moved(&self, moved: &[IpAddr], places: &Places, diff: &mut Diff) {
        let listed = moved.iter().filter(|address| self.users.contains_key(*address));
        diff.vips.extend(listed.map(|address| (*address, !places.is_node_address(address))));
    }

    /// Removes what an earlier process left and nobody claimed.
    pub fn drop_inheritance(&mut self, diff: &mut Diff) {
        diff.vips.extend(std::mem::take(&mut self.inherited).into_iter().map(|address| (address, false)));
    }

    /// Whether there is none.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.inherited.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeFacts;

    fn address(last: u8) -> IpAddr {
        [203, 0, 113, last].into()
    }

    #[test]
    fn an_address_stays_until_the_last_service_leaves_it() {
        let (mut vips, places) = (Vips::default(), Places::new("here".into()));
        let mut check = |old: &[IpAddr], new: &[IpAddr], expected: &[(IpAddr, bool)]| {
            let mut diff = Diff::default();
            vips.exchange(old, new, &places, &mut diff);
            assert_eq!(diff.vips, expected);
        };
        check(&[], &[address(1), address(2)], &[(address(1), true), (address(2), true)]);
        check(&[], &[address(2)], &[]);
        check(&[address(1), address(2)], &[address(3)], &[(address(3), true), (address(1), false)]);
        check(&[address(2)], &[], &[(address(2), false)]);
        check(&[address(3)], &[], &[(address(3), false)]);
        assert!(vips.is_empty());
    }

    #[test]
    fn a_nodes_address_is_none_as_long_as_it_is_a_nodes() {
        let (mut vips, mut places) = (Vips::default(), Places::new("here".into()));
        let node = NodeFacts { name: "there".into(), number: 2, addresses: vec![address(1)] };
        places.set_nodes(std::slice::from_ref(&node), "");
        let mut diff = Diff::default();
        vips.exchange(&[], &[address(1)], &places, &mut diff);
        assert_eq!(diff.vips, []);
        let moved = places.set_nodes(&[], "");
        vips.nodes_moved(&moved.addresses, &places, &mut diff);
        assert_eq!(diff.vips, [(address(1), true)]);
        let moved = places.set_nodes(&[node], "");
        vips.nodes_moved(&moved.addresses, &places, &mut diff);
        vips.exchange(&[address(1)], &[], &places, &mut diff);
        assert_eq!(diff.vips, [(address(1), true), (address(1), false)]);
    }

    #[test]
    fn what_nobody_claims_of_an_inheritance_goes() {
        let (mut vips, places) = (Vips::default(), Places::new("here".into()));
        vips.adopt(vec![address(1), address(2)]);
        let mut diff = Diff::default();
        vips.exchange(&[], &[address(1)], &places, &mut diff);
        vips.drop_inheritance(&mut diff);
        assert_eq!(diff.vips, [(address(1), true), (address(2), false)]);
    }
}
