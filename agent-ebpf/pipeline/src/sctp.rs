//! SCTP (RFC 9260) as far as translation needs it: its checksum when ports change, and which packets open and end an association.
//!
//! The checksum is a CRC32c over the whole packet, not a sum, and has no pseudo header: addresses may change without it. But it is linear:
//! replacing the first four bytes changes it by the CRC (without its initial and final inversions) of the difference followed by as
//! many zero bytes as there are behind, which is the difference times a power of x. So the packet need not be read. Chunks other than the
//! first are not looked at, and addresses inside INIT chunks (multihoming) are not translated.

use abi::Port;

use crate::{packet::Packet, parse::tcp};

/// Where the checksum is.
const CHECKSUM: usize = 8;
/// Where the first chunk's type is.
const CHUNK: usize = 12;

/// CRC32c's polynomial (Castagnoli), lowest power in the highest bit, without its highest power.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// TCP's flags for the first chunk's meaning: INIT and INIT ACK open, ABORT resets, the SHUTDOWN chunks end.
#[inline(always)]
pub fn flags<P: Packet>(pkt: &P, l4: usize) -> u8 {
    match pkt.load::<u8>(l4 + CHUNK) {
        Some(1) => tcp::SYN,
        Some(2) => tcp::SYN | tcp::ACK,
        Some(6) => tcp::RST,
        Some(7 | 8 | 14) => tcp::FIN | tcp::ACK,
        _ => tcp::ACK,
    }
}

/// What replacing source and destination port changes: both words' difference.
#[inline(always)]
pub fn difference(old: (Port, Port), new: (Port, Port)) -> u32 {
    let word = |(sport, dport): (Port, Port)| u32::from(sport.0) | u32::from(dport.0) << 16;
    word(old) ^ word(new)
}

/// Mends the checksum after the ports changed by a [`difference`], in a packet of `len` bytes from its SCTP header on.
#[inline(never)]
pub fn mend<P: Packet>(pkt: &mut P, l4: usize, len: u32, difference: u32) {
    if difference == 0 {
        return;
    }
    if let Some(stored) = pkt.load::<u32>(l4 + CHECKSUM) {
        pkt.store(l4 + CHECKSUM, stored ^ shifted(difference, len, P::times));
    }
}

/// `value` times x^(8 * bytes), for at most 65,535 bytes.
#[inline(always)]
fn shifted(value: u32, bytes: u32, times: impl Fn(u32, u32) -> u32) -> u32 {
    let mut value = value;
    let mut bit = 0;
    while bit < 16 {
        if bytes >> bit & 1 != 0 {
            value = times(value, POWERS[bit]);
        }
        bit += 1;
    }
    value
}

/// Product of two polynomials modulo CRC32c's.
pub const fn times(a: u32, b: u32) -> u32 {
    let (mut a, mut b, mut product) = (a, b, 0);
    let mut i = 0;
    while i < 32 {
        product ^= b & 0_u32.wrapping_sub(a >> 31);
        a <<= 1;
        b = (b >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(b & 1));
        i += 1;
    }
    product
}

/// x^(8 * 2^i).
const POWERS: [u32; 16] = {
    let mut powers = [0; 16];
    // x^8: the lowest power is in the highest bit.
    powers[0] = 1 << 23;
    let mut i = 1;
    while i < 16 {
        powers[i] = times(powers[i - 1], powers[i - 1]);
        i += 1;
    }
    powers
};

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    fn crc(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ if crc & 1 != 0 { POLYNOMIAL } else { 0 };
            }
        }
        !crc
    }

    #[test]
    fn the_check_value_of_crc32c_is_right() {
        assert_eq!(crc(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_mended_checksum_equals_a_full_computation() {
        for len in [4_usize, 5, 12, 28, 100, 1480, 8972, 65_515] {
            let mut packet: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            let before = crc(&packet);
            let mut difference = [0; 4];
            for (i, byte) in [0x12, 0x34, 0xab, 0xcd].into_iter().enumerate() {
                difference[i] = packet[i] ^ byte;
                packet[i] = byte;
            }
            let mended = before ^ shifted(u32::from_le_bytes(difference), len as u32, times);
            assert_eq!(mended, crc(&packet), "{len} bytes");
        }
    }
}
