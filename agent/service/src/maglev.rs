//! Maglev tables (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4): consistent
//! hashing by a table of cells, filled by each member in the order of its own permutation of the cells.
//!
//! # The same on every node
//! A member's permutation comes from its address and port, and members take turns in the order of address and port: nodes that have the
//! same members, weights and size have the same table. They may differ where topology hints give them different members, where a
//! Service has policy Local (each node's members are its own), and in size for a while, see [`size`].
//!
//! # Weights
//! Each member collects its weight in every round and takes a turn when it has collected the largest weight of all, as Katran's second
//! version does: a member of weight 1 among members of weight 4 takes every fourth turn.

use std::net::IpAddr;

/// Sizes of tables, in cells; primes.
pub const SIZES: [u16; 4] = [1_021, 4_093, 16_381, 65_521];
/// Up to so many members, each size has about a hundred cells or more for each: shares differ by a few percent.
const MEMBERS: [usize; 4] = [10, 40, 160, usize::MAX];

/// A member of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Address.
    pub address: IpAddr,
    /// Target port.
    pub port: u16,
    /// Weight, from 1.
    pub weight: u8,
}

/// The size for this many members, if the table had `current` cells (0: none). Grows at once; shrinks only when the members are three
/// quarters of what the next smaller size holds, so that one endpoint that comes and goes does not change every cell each time.
///
/// A node that starts within that quarter has no memory of a larger table, unless it finds one in its maps, and disagrees with the others
/// until the number of members leaves it. `fixed` (an annotation) rules that out; it is enlarged only if it could not hold the members.
pub fn size(members: usize, current: u16, fixed: Option<u16>) -> u16 {
    if let Some(fixed) = fixed {
        return SIZES
            .into_iter()
            .find(|size| *size >= fixed && usize::from(*size) >= members)
            .unwrap_or(SIZES[3]);
    }
    let class = MEMBERS.iter().position(|limit| members <= *limit).unwrap_or(3);
    let held = SIZES.iter().position(|size| *size == current).unwrap_or(0);
    if held > class && (members == 0 || members * 4 > MEMBERS[held - 1] * 3) { current } else { SIZES[class] }
}

/// The table: for each cell the position of its member. Empty without members.
pub fn table(members: &[Member], cells: u16) -> Vec<u16> {
    let Some(heaviest) = members.iter().map(|member| u32::from(member.weight)).max() else {
        return Vec::new();
    };
    let size = u32::from(cells);
    let mut table = vec![0; usize::from(cells)];
    let mut taken = vec![0_u64; usize::from(cells).div_ceil(64)];
    let mut walks: Vec<Walk> = members.iter().map(|member| Walk::of(member, size)).collect();
    let mut left = size;
    loop {
        for (position, (walk, member)) in walks.iter_mut().zip(members).enumerate() {
            walk.credit += u32::from(member.weight);
            if walk.credit < heaviest {
                continue;
            }
            walk.credit -= heaviest;
            let cell = walk.next_free(&mut taken, size);
            table[cell as usize] = position as u16;
            left -= 1;
            if left == 0 {
                return table;
            }
        }
    }
}

/// Where a member is in its permutation: the cells `start`, `start + step`, .. modulo the size, which is prime, so all cells come.
struct Walk {
    cell: u32,
    step: u32,
    credit: u32,
}

impl Walk {
    fn of(member: &Member, size: u32) -> Self {
        let hash = hash(member);
        let scale = |word: u32, range: u32| ((u64::from(word) * u64::from(range)) >> 32) as u32;
        Self { cell: scale(hash as u32, size), step: 1 + scale((hash >> 32) as u32, size - 1), credit: 0 }
    }

    /// Takes the next free cell. There must be one.
    fn next_free(&mut self, taken: &mut [u64], size: u32) -> u32 {
        loop {
            let cell = self.cell;
            self.cell += self.step;
            if self.cell >= size {
                self.cell -= size;
            }
            let (word, bit) = (&mut taken[(cell / 64) as usize], 1 << (cell % 64));
            if *word & bit == 0 {
                *word |= bit;
                return cell;
            }
        }
    }
}

fn hash(member: &Member) -> u64 {
    let (high, low) = match member.address {
        IpAddr::V4(address) => (0, u64::from(u32::from(address))),
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            ((bits >> 64) as u64, bits as u64)
        }
    };
    mix(mix(mix(low) ^ high) ^ u64::from(member.port))
}

/// The finaliser of SplitMix64 (Steele et al., 2014): every bit of the input moves every bit of the output.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: u16) -> Vec<Member> {
        let member = |number: u16| Member {
            address: [10, 244, (number >> 8) as u8, number as u8].into(),
            port: 8080,
            weight: 1,
        };
        (1..=count).map(member).collect()
    }

    fn cells_of(table: &[u16], members: usize) -> Vec<usize> {
        let mut counts = vec![0; members];
        for position in table {
            counts[usize::from(*position)] += 1;
        }
        counts
    }

    /// How many cells changed their member, of those whose member is in both sets.
    fn moved(before: &[Member], after: &[Member], cells: u16) -> usize {
        let (old, new) = (table(before, cells), table(after, cells));
        let pairs =
            old.iter().zip(&new).map(|(old, new)| (before[usize::from(*old)], after[usize::from(*new)]));
        pairs.filter(|(old, new)| old != new && after.contains(old) && before.contains(new)).count()
    }

    #[test]
    fn members_of_equal_weight_have_the_same_number_of_cells_but_for_one() {
        for (count, cells) in [(1, 1_021), (3, 1_021), (10, 1_021), (40, 4_093), (160, 16_381), (655, 65_521)]
        {
            let counts = cells_of(&table(&members(count), cells), count.into());
            let (least, most) = (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&0));
            assert!(most - least <= 1, "{count} members: {least} to {most} cells");
            assert_eq!(counts.iter().sum::<usize>(), usize::from(cells));
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        let mut five = members(5);
        for (member, weight) in five.iter_mut().zip([1, 2, 4, 8, 16]) {
            member.weight = weight;
        }
        let counts = cells_of(&table(&five, 16_381), 5);
        for (count, weight) in counts.iter().zip([1, 2, 4, 8, 16]) {
            let fair = 16_381 * weight / 31;
            assert!(count.abs_diff(fair) <= 16, "weight {weight}: {count} cells, {fair} are fair");
        }
    }

    #[test]
    fn a_member_that_goes_or_comes_moves_few_cells_of_the_others() {
        for (count, cells) in [(10, 1_021), (40, 4_093), (100, 16_381)] {
            let all = members(count);
            for gone in [0, usize::from(count) / 2, usize::from(count) - 1] {
                let mut rest = all.clone();
                rest.remove(gone);
                let share = usize::from(cells) / usize::from(count);
                for moved in [moved(&all, &rest, cells), moved(&rest, &all, cells)] {
                    assert!(moved <= 3 * share, "{count} members: {moved} cells moved, {share} are a share");
                }
            }
        }
    }

    #[test]
    fn the_table_depends_on_nothing_but_its_members() {
        // A fixed expectation: an agent of another version must build the same table.
        let table = table(&members(3), 1_021);
        assert_eq!(table[..16], [0, 1, 2, 2, 1, 2, 0, 0, 0, 2, 0, 1, 1, 2, 2, 1]);
        let digest = table.iter().fold(0_u64, |digest, position| mix(digest ^ u64::from(*position)));
        assert_eq!(digest, 4_780_630_297_474_401_386);
    }

    #[test]
    fn no_members_no_table_and_more_members_than_cells_are_cut_off() {
        assert!(table(&[], 1_021).is_empty());
        let counts = cells_of(&table(&members(2_000), 1_021), 2_000);
        assert!(counts[..1_021].iter().all(|count| *count == 1));
    }

    #[test]
    fn addresses_of_both_families_and_ports_have_permutations_of_their_own() {
        let mut hashes: Vec<u64> = members(1_000).iter().map(hash).collect();
        hashes.extend((0..1_000_u16).map(|number| {
            let address = std::net::Ipv6Addr::new(0xfd00, number, 0, 0, 0, 0, 0, 1).into();
            hash(&Member { address, port: 8080, weight: 1 })
        }));
        hashes
            .extend((1..1_000).map(|port| hash(&Member { address: [10, 0, 0, 1].into(), port, weight: 1 })));
        let count = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
    }

    #[test]
    fn the_size_grows_at_once_and_shrinks_late() {
        for (members, current, fixed, expected) in [
            (1, 0, None, 1_021),
            (10, 0, None, 1_021),
            (11, 1_021, None, 4_093),
            (10, 4_093, None, 4_093),
            (8, 4_093, None, 4_093),
            (7, 4_093, None, 1_021),
            (0, 4_093, None, 4_093),
            (161, 1_021, None, 65_521),
            (121, 65_521, None, 65_521),
            (120, 65_521, None, 16_381),
            (5, 65_521, None, 1_021),
            (500, 0, Some(1_021), 1_021),
            (1_022, 0, Some(1_021), 4_093),
            (1, 0, Some(65_521), 65_521),
            (70_000, 0, Some(1_021), 65_521),
        ] {
            assert_eq!(size(members, current, fixed), expected, "{members} members, {current} cells");
        }
    }
}
