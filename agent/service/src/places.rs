//! Where endpoints are, in numbers: node names and lists of zones are repeated by every endpoint of the cluster, so an endpoint holds
//! a number and the words stand here once. Numbers of words that nobody uses are given again after a sweep.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::topology::{Endpoint, Here, NONE};

/// What the tables need of a node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Name.
    pub name: String,
    /// Number in backend rows; from 1.
    pub number: u16,
    /// status.addresses that are IP addresses.
    pub addresses: Vec<IpAddr>,
}

/// With fewer words than this no sweep is worth while.
const SMALL: usize = 1_024;

/// Words with their numbers. [`NONE`] is no word's number.
#[derive(Debug, Default)]
struct Words {
    numbers: HashMap<Box<str>, u32>,
    free: Vec<u32>,
}

impl Words {
    /// The number of a word, and whether it is new.
    fn number(&mut self, word: &str) -> (u32, bool) {
        if let Some(number) = self.numbers.get(word) {
            return (*number, false);
        }
        let number = self.free.pop().unwrap_or(self.numbers.len() as u32 + 1);
        self.numbers.insert(word.into(), number);
        (number, true)
    }

    fn retain(&mut self, used: &HashSet<u32>) {
        let free = &mut self.free;
        self.numbers.retain(|_, number| {
            used.contains(number) || {
                free.push(*number);
                false
            }
        });
    }
}

/// What changed with the nodes: endpoints to look at again.
#[derive(Debug, Default)]
pub struct Moved {
    /// By number of a node: its number in backend rows is another one.
    nodes: Vec<bool>,
    /// By number of a list of zones: whether it fits is another answer.
    zones: Vec<bool>,
    /// Addresses that became a node's or are one no more, sorted.
    pub addresses: Vec<IpAddr>,
    /// This node's number in backend rows changed.
    pub own: bool,
}

impl Moved {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.zones.is_empty() && self.addresses.is_empty()
    }

    /// Whether the rows of this endpoint may be others now.
    pub fn concerns(&self, endpoint: &Endpoint) -> bool {
        let marked = |marks: &[bool], number: u32| marks.get(number as usize).copied().unwrap_or(false);
        marked(&self.nodes, endpoint.node)
            || marked(&self.zones, endpoint.zones)
            || self.addresses.binary_search(&endpoint.address).is_ok()
    }
}

/// Nodes and zones.
#[derive(Debug)]
pub struct Places {
    /// This node's name.
    name: String,
    /// This node's zone, empty without.
    zone: String,
    /// Numbers for backend rows by name.
    row_numbers: HashMap<String, u16>,
    addresses: HashSet<IpAddr>,
    /// Those of them that are this node's.
    own_addresses: HashSet<IpAddr>,
    nodes: Words,
    /// Numbers for backend rows by number of the name.
    node_rows: Vec<u16>,
    here: u32,
    zones: Words,
    zone_fits: Vec<bool>,
    /// Number of words from which on a sweep is due.
    sweep_at: usize,
}

impl Places {
    /// The places around the node with this name.
    pub fn new(name: String) -> Self {
        let mut places = Self {
            name: String::new(),
            zone: String::new(),
            row_numbers: HashMap::new(),
            addresses: HashSet::new(),
            own_addresses: HashSet::new(),
            nodes: Words::default(),
            node_rows: vec![0],
            here: NONE,
            zones: Words::default(),
            zone_fits: vec![false],
            sweep_at: SMALL,
        };
        places.here = places.node(&name);
        places.name = name;
        places
    }

    /// This node, for the decision on topology.
    pub fn here(&self) -> Here<'_> {
        Here { node: self.here, zone_fits: &self.zone_fits }
    }

    /// This node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of a node name; [`NONE`] for an empty one.
    pub fn node(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return NONE;
        }
        let (number, new) = self.nodes.number(name);
        if new {
            put(&mut self.node_rows, number, self.row_numbers.get(name).copied().unwrap_or(0));
        }
        number
    }

    /// The number of a list of zones, which are label values and hold no comma; [`NONE`] for an empty one.
    pub fn zones<'a>(&mut self, mut zones: impl ExactSizeIterator<Item = &'a str>) -> u32 {
        let list: String;
        let word = match (zones.len(), zones.next()) {
            (1, Some(zone)) => zone,
            (_, Some(first)) => {
                list = zones.fold(first.to_owned(), |list, zone| list + "," + zone);
                &list
            }
            _ => return NONE,
        };
        let (number, new) = self.zones.number(word);
        if new {
            put(&mut self.zone_fits, number, fits(word, &self.zone));
        }
        number
    }

    /// The number of an endpoint's node in backend rows, 0 if unknown.
    pub fn row_number(&self, node: u32) -> u16 {
        self.node_rows.get(node as usize).copied().unwrap_or(0)
    }

    /// Whether an address is a node's.
    pub fn is_node_address(&self, address: &IpAddr) -> bool {
        self.addresses.contains(address)
    }

    /// Whether an address is this node's.
    pub fn is_own_address(&self, address: &IpAddr) -> bool {
        self.own_addresses.contains(address)
    }

    /// The nodes of the cluster, and the zone of this one.
    pub fn set_nodes(&mut self, nodes: &[NodeFacts], zone: &str) -> Moved {
        let mut moved = Moved::default();
        let addresses: HashSet<IpAddr> =
            nodes.iter().flat_map(|node| node.addresses.iter().copied()).collect();
        if addresses != self.addresses {
            moved.addresses = addresses.symmetric_difference(&self.addresses).copied().collect();
            moved.addresses.sort_unstable();
            self.addresses = addresses;
        }
        let own = nodes.iter().filter(|node| node.name == self.name);
        self.own_addresses = own.flat_map(|node| node.addresses.iter().copied()).collect();
        let same = nodes.len() == self.row_numbers.len()
            && nodes.iter().all(|node| self.row_numbers.get(&node.name) == Some(&node.number));
        if !same {
            self.row_numbers = nodes.iter().map(|node| (node.name.clone(), node.number)).collect();
            for (name, number) in &self.nodes.numbers {
                let row = self.row_numbers.get(&**name).copied().unwrap_or(0);
                let current = &mut self.node_rows[*number as usize];
                if std::mem::replace(current, row) != row {
                    put(&mut moved.nodes, *number, true);
                    moved.own |= *number == self.here;
                }
            }
        }
        if zone != self.zone {
            zone.clone_into(&mut self.zone);
            for (list, number) in &self.zones.numbers {
                let fit = fits(list, zone);
                if std::mem::replace(&mut self.zone_fits[*number as usize], fit) != fit {
                    put(&mut moved.zones, *number, true);
                }
            }
        }
        moved
    }

    /// Whether so many words have come that some may be unused.
    pub fn wants_sweep(&self) -> bool {
        self.nodes.numbers.len() + self.zones.numbers.len() >= self.sweep_at
    }

    /// Forgets the words that none of these endpoints uses.
    pub fn sweep<'a>(&mut self, endpoints: impl Iterator<Item = &'a Endpoint>) {
        let mut nodes = HashSet::from([self.here]);
        let mut zones = HashSet::new();
        for endpoint in endpoints {
            nodes.insert(endpoint.node);
            zones.insert(endpoint.zones);
        }
        self.nodes.retain(&nodes);
        self.zones.retain(&zones);
        self.sweep_at = SMALL.max(2 * (self.nodes.numbers.len() + self.zones.numbers.len()));
    }
}

fn fits(list: &str, zone: &str) -> bool {
    !zone.is_empty() && list.split(',').any(|listed| listed == zone)
}

/// Sets the value of a number, which may lie behind the end.
fn put<T: Copy + Default>(values: &mut Vec<T>, number: u32, value: T) {
    let index = number as usize;
    if index >= values.len() {
        values.resize(index + 1, T::default());
    }
    values[index] = value;
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::topology::Marks;

    fn node(name: &str, number: u16, address: &str) -> NodeFacts {
        NodeFacts { name: name.into(), number, addresses: vec![address.parse().unwrap()] }
    }

    fn endpoint(node: u32, zones: u32) -> Endpoint {
        Endpoint { address: [10, 0, 0, 1].into(), marks: Marks::READY, node, zones }
    }

    #[test]
    fn a_change_of_nodes_concerns_only_the_endpoints_on_them() {
        let mut places = Places::new("here".into());
        let (b, c) = (places.node("b"), places.node("c"));
        let moved = places.set_nodes(&[node("here", 1, "172.30.0.1"), node("b", 2, "172.30.0.2")], "");
        assert!(moved.concerns(&endpoint(b, NONE)) && !moved.concerns(&endpoint(c, NONE)) && moved.own);
        assert_eq!((places.row_number(b), places.row_number(c)), (2, 0));
        let same = places.set_nodes(&[node("b", 2, "172.30.0.2"), node("here", 1, "172.30.0.1")], "");
        assert!(same.is_empty());
        let moved = places.set_nodes(&[node("here", 1, "172.30.0.1"), node("c", 3, "172.30.0.2")], "");
        assert!(moved.concerns(&endpoint(b, NONE)) && moved.concerns(&endpoint(c, NONE)) && !moved.own);
        assert!(moved.addresses.is_empty());
    }

    #[test]
    fn the_zone_of_this_node_may_be_learned_after_the_hints() {
        let mut places = Places::new("here".into());
        let (one, two) = (places.zones(["a"].into_iter()), places.zones(["a", "b"].into_iter()));
        assert_eq!(places.zones([].into_iter()), NONE);
        let moved = places.set_nodes(&[], "b");
        assert!(!moved.concerns(&endpoint(NONE, one)) && moved.concerns(&endpoint(NONE, two)));
        assert_eq!(places.here().zone_fits[one as usize..=two as usize], [false, true]);
        let later = places.zones(["c", "b"].into_iter());
        assert!(places.here().zone_fits[later as usize]);
    }

    #[test]
    fn words_that_nobody_uses_are_forgotten_and_their_numbers_given_again() {
        let mut places = Places::new("here".into());
        let numbers: Vec<u32> = (0..SMALL).map(|number| places.node(&format!("n{number}"))).collect();
        assert!(places.wants_sweep());
        let kept = endpoint(numbers[7], NONE);
        places.sweep([kept].iter());
        assert!(!places.wants_sweep());
        assert_eq!(places.node("n7"), numbers[7]);
        assert_eq!(places.nodes.numbers.len(), 2);
        let again = places.node("new");
        assert!(numbers.contains(&again) && again != numbers[7]);
        assert_eq!(places.node_rows.len(), SMALL + 2);
    }
}
