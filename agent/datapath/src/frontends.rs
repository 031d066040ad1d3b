//! Frontend rows, service addresses and source ranges, and the bitmaps by which programs tell at once that a packet is none of ours.
//!
//! Bits and switches come before the rows that need them, and go after the last one.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;

use abi::config::Config;
use abi::maps::{VIP_ROW, vip_bit};
use abi::source::ALLOWED;
use abi::{Ip4, Ip6};
use service::{Diff, Frontend, FrontendAddress, FrontendKey, Learned, Protocol};

use crate::encode::{self, FrontendBytes, FrontendRow, SourceBytes, Wire};
use crate::maps::{FamilyMaps, Maps};

/// What the tables hold of frontends.
#[derive(Debug, Default)]
pub struct Frontends {
    rows: HashMap<FrontendKey, Frontend>,
    addresses: HashSet<IpAddr>,
    /// How many frontends at all of the node's addresses have a port.
    ports: HashMap<(Protocol, u16), usize>,
    /// How many rows outside the service range have an address with this bit.
    bits: HashMap<u16, usize>,
}

impl Frontends {
    /// Reads what is in the tables.
    pub fn learn(maps: &Maps, config: &Config, learned: &mut Learned) -> io::Result<Self> {
        let mut frontends = Self::default();
        frontends.learn_family(&maps.v4, config, learned)?;
        frontends.learn_family(&maps.v6, config, learned)?;
        frontends.write_all_bits(maps);
        Ok(frontends)
    }

    fn learn_family<F: Wire>(
        &mut self,
        maps: &FamilyMaps<F>,
        config: &Config,
        learned: &mut Learned,
    ) -> io::Result<()> {
        maps.fe.each(|key, row| match key.read() {
            Some(FrontendRow::Frontend(key)) => {
                learned.frontends.push((key, row.service));
                self.rows.insert(key, encode::frontend_from(row));
                self.count(key, config, true);
            }
            Some(FrontendRow::Address(address)) => {
                learned.vips.push(address);
                self.addresses.insert(address);
                self.count_address(address, config, true);
            }
            None => {}
        })?;
        maps.srcr.each(|key, _| learned.source_ranges.push(key.read()))
    }

    /// Numbers of frontends.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Writes what a difference adds or changes.
    pub fn write(&mut self, maps: &Maps, config: &Config, diff: &Diff) -> io::Result<()> {
        let (mut four, mut six) = (Batch::default(), Batch::default());
        let written = diff.frontends.iter().filter_map(|(key, row)| Some((*key, (*row)?)));
        for (key, row) in written {
            if self.rows.insert(key, row).is_none() {
                self.count(key, config, true);
                self.write_bits(maps, key);
            }
            four.push(encode::FrontendBytes::of(&key), encode::frontend(row));
            six.push(encode::FrontendBytes::of(&key), encode::frontend(row));
        }
        for (address, _) in diff.vips.iter().filter(|(_, present)| *present) {
            if self.addresses.insert(*address) {
                self.count_address(*address, config, true);
                self.write_address_bit(maps, *address);
            }
            four.push(encode::FrontendBytes::of_address(*address), encode::address_row());
            six.push(encode::FrontendBytes::of_address(*address), encode::address_row());
        }
        let (mut ranges4, mut ranges6) = (Batch::default(), Batch::default());
        for (service, base, prefix, _) in diff.source_ranges.iter().filter(|range| range.3) {
            ranges4.push(SourceBytes::of(*service, *base, *prefix), ALLOWED);
            ranges6.push(SourceBytes::of(*service, *base, *prefix), ALLOWED);
        }
        // A table that is full must not keep rows out of the others.
        let ranges4 = maps.v4.srcr.insert_all(&ranges4.keys, &ranges4.values);
        let ranges6 = maps.v6.srcr.insert_all(&ranges6.keys, &ranges6.values);
        let four = maps.v4.fe.insert_all(&four.keys, &four.values);
        let six = maps.v6.fe.insert_all(&six.keys, &six.values);
        ranges4.and(ranges6).and(four).and(six)
    }

    /// Removes what a difference removes.
    pub fn remove(&mut self, maps: &Maps, config: &Config, diff: &Diff) -> io::Result<()> {
        let gone = || diff.frontends.iter().filter(|(_, row)| row.is_none()).map(|(key, _)| key);
        let addresses = || diff.vips.iter().filter(|(_, present)| !present).map(|(address, _)| address);
        remove_family(&maps.v4, gone(), addresses(), diff)?;
        remove_family(&maps.v6, gone(), addresses(), diff)?;
        for key in gone() {
            if self.rows.remove(key).is_some() {
                self.count(*key, config, false);
                self.write_bits(maps, *key);
            }
        }
        for address in addresses() {
            if self.addresses.remove(address) {
                self.count_address(*address, config, false);
                self.write_address_bit(maps, *address);
            }
        }
        Ok(())
    }

    /// Counts a frontend in or out of what the bitmaps show.
    fn count(&mut self, key: FrontendKey, config: &Config, add: bool) {
        match key.address {
            FrontendAddress::Exact(address) => self.count_address(address, config, add),
            FrontendAddress::NodePort(_) => {
                step(self.ports.entry((key.protocol, key.port)).or_default(), add);
            }
        }
    }

    fn count_address(&mut self, address: IpAddr, config: &Config, add: bool) {
        if is_outside(address, config) {
            step(self.bits.entry(bit_of(address)).or_default(), add);
        }
    }

    fn write_bits(&self, maps: &Maps, key: FrontendKey) {
        match key.address {
            FrontendAddress::Exact(address) => self.write_address_bit(maps, address),
            FrontendAddress::NodePort(_) => {
                let used = self.ports.get(&(key.protocol, key.port)).is_some_and(|users| *users > 0);
                write_bit(maps, key.protocol.number().port_row(), key.port, used);
            }
        }
    }

    fn write_address_bit(&self, maps: &Maps, address: IpAddr) {
        let bit = bit_of(address);
        let used = self.bits.get(&bit).is_some_and(|users| *users > 0);
        write_bit(maps, VIP_ROW, bit, used);
    }

    /// Makes the bitmaps what the rows say: an earlier process, perhaps of another build, wrote them.
    fn write_all_bits(&self, maps: &Maps) {
        let rows = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let mut bitmaps = rows.map(|protocol| (protocol.number().port_row(), [0_u64; 1024]));
        for ((protocol, port), users) in &self.ports {
            let row = bitmaps.iter_mut().find(|(row, _)| *row == protocol.number().port_row());
            if let Some((_, bitmap)) = row.filter(|_| *users > 0) {
                bitmap[usize::from(*port) / 64] |= 1 << (port % 64);
            }
        }
        let mut addresses = [0_u64; 1024];
        for (bit, _) in self.bits.iter().filter(|(_, users)| **users > 0) {
            addresses[usize::from(*bit) / 64] |= 1 << (bit % 64);
        }
        for (row, bitmap) in bitmaps.iter().chain([&(VIP_ROW, addresses)]) {
            if maps.ports.get(*row).is_some_and(|current| current != *bitmap) {
                maps.ports.set(*row, bitmap);
            }
        }
    }
}

/// Keys and values to be written at once.
struct Batch<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K, V> Default for Batch<K, V> {
    fn default() -> Self {
        Self { keys: Vec::new(), values: Vec::new() }
    }
}

impl<K, V> Batch<K, V> {
    /// Adds an element if its key is one of this family.
    fn push(&mut self, key: Option<K>, value: V) {
        if let Some(key) = key {
            self.keys.push(key);
            self.values.push(value);
        }
    }
}

fn remove_family<'a, F: Wire>(
    maps: &FamilyMaps<F>,
    frontends: impl Iterator<Item = &'a FrontendKey>,
    addresses: impl Iterator<Item = &'a IpAddr>,
    diff: &Diff,
) -> io::Result<()> {
    let frontends = frontends.filter_map(F::FrontendKey::of);
    let addresses = addresses.filter_map(|address| F::FrontendKey::of_address(*address));
    let keys: Vec<_> = addresses.chain(frontends).collect();
    maps.fe.remove_all(&keys)?;
    let ranges = diff.source_ranges.iter().filter(|range| !range.3);
    let keys: Vec<_> =
        ranges.filter_map(|(service, base, prefix, _)| F::SourceKey::of(*service, *base, *prefix)).collect();
    maps.srcr.remove_all(&keys).map(drop)
}

/// Whether the address is not recognised by the service range.
fn is_outside(address: IpAddr, config: &Config) -> bool {
    match address {
        IpAddr::V4(address) => !config.services4.contains(Ip4::from(address)),
        IpAddr::V6(address) => !config.services6.contains(Ip6::from(address)),
    }
}

fn bit_of(address: IpAddr) -> u16 {
    vip_bit(match address {
        IpAddr::V4(address) => Ip4::from(address).mix(),
        IpAddr::V6(address) => Ip6::from(address).mix(),
    })
}

fn step(count: &mut usize, up: bool) {
    *count = if up { *count + 1 } else { count.saturating_sub(1) };
}

fn write_bit(maps: &Maps, row: u32, number: u16, set: bool) {
    let (word, bit) = (usize::from(number) / 64, number % 64);
    let Some(current) = maps.ports.word(row, word) else { return };
    let value = if set { current | 1 << bit } else { current & !(1 << bit) };
    if value != current {
        maps.ports.publish(row, word, value);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use abi::config::Cidr4;
    use service::Family;

    use super::*;

    #[test]
    fn only_rows_outside_the_service_range_are_counted_by_address() {
        let services4 = Cidr4::new("10.96.0.0".parse::<std::net::Ipv4Addr>().unwrap().into(), 16);
        let config = Config { services4, ..Config::EMPTY };
        let mut frontends = Frontends::default();
        let key = |address, port| FrontendKey { address, port, protocol: Protocol::Tcp };
        let exact = |text: &str| FrontendAddress::Exact(text.parse().unwrap());
        let outside = key(exact("192.0.2.1"), 80);
        for key in [outside, key(exact("10.96.0.1"), 80), key(FrontendAddress::NodePort(Family::V4), 30_080)]
        {
            frontends.count(key, &config, true);
        }
        frontends.count_address("192.0.2.1".parse().unwrap(), &config, true);
        let bit = bit_of("192.0.2.1".parse().unwrap());
        assert_eq!(frontends.bits, HashMap::from([(bit, 2)]));
        assert_eq!(frontends.ports, HashMap::from([((Protocol::Tcp, 30_080), 1)]));
        frontends.count(outside, &config, false);
        assert_eq!(frontends.bits[&bit], 1, "the address as such is still there");
    }
}
