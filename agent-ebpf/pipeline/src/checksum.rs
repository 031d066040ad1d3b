//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are taken over 16-bit words as they lie in memory: one's-complement addition does not care about byte order.

use abi::{Ip4, Ip6, Port};

/// One's-complement sum of two words.
#[inline(always)]
pub const fn add(a: u16, b: u16) -> u16 {
    fold(a as u32 + b as u32)
}

/// Folds carries of a sum of at most 65,537 words into 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum + (sum >> 16)) as u16
}

/// The checksum field after its data changed by `difference` (RFC 1624, equation 3).
#[inline(always)]
pub const fn mend(stored: u16, difference: u16) -> u16 {
    !add(!stored, difference)
}

/// The difference that replacing word `old` by `new` makes.
#[inline(always)]
pub const fn word(old: u16, new: u16) -> u16 {
    add(!old, new)
}

/// The difference that replacing a port makes.
#[inline(always)]
pub const fn port(old: Port, new: Port) -> u16 {
    word(old.0, new.0)
}

/// Sum of the two halves of a 32-bit word.
#[inline(always)]
const fn halves(value: u32) -> u32 {
    (value & 0xffff) + (value >> 16)
}

/// Sum of an address's words, not folded.
#[inline(always)]
pub const fn ip4(addr: Ip4) -> u32 {
    halves(addr.0)
}

/// Sum of an address's words, not folded.
#[inline(always)]
pub const fn ip6(addr: Ip6) -> u32 {
    halves(addr.0[0]) + halves(addr.0[1]) + halves(addr.0[2]) + halves(addr.0[3])
}

/// The difference between two unfolded sums.
#[inline(always)]
pub const fn difference(old: u32, new: u32) -> u16 {
    fold(!fold(old) as u32 + fold(new) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(words: &[u16]) -> u16 {
        !words.iter().fold(0, |sum, &w| add(sum, w))
    }

    #[test]
    fn an_incremental_update_equals_a_full_recomputation() {
        let mut state = 0x2545_f491_u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u16
        };
        for _ in 0..10_000 {
            // A zero word sum would make +0 and -0 both right; real packets have a version field.
            let mut data = [next() | 0x45, next(), next(), next()];
            let stored = full(&data);
            let new = next();
            let delta = word(data[2], new);
            data[2] = new;
            assert_eq!(mend(stored, delta), full(&data));
        }
    }

    #[test]
    fn the_example_of_rfc_1624_keeps_its_result() {
        // Section 4: HC = 0xDD2F, m = 0x5555, m' = 0x3285 gives 0x0000 with equation 3.
        assert_eq!(mend(0xdd2f, word(0x5555, 0x3285)), 0x0000);
    }
}
