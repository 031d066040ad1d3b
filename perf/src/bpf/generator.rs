//! Programs made of a packet: one writes it anew and calls another program on it, one sends it, one counts what comes.

use super::assemble::{Assembler, Helper, Label, Program, R0, R1, R2, R3, R6, R7, R8, R10, Size};
use super::object::Hook;

/// The map that holds the program to be called: one entry.
pub(crate) const CALLED: &str = "called";
/// The map that holds the count: one entry for each CPU.
pub(crate) const COUNT: &str = "count";

/// XDP's verdicts.
const XDP_ABORTED: i32 = 0;
const XDP_DROP: i32 = 1;
const XDP_TX: i32 = 3;
/// tc's verdict that drops.
const TC_ACT_SHOT: i32 = 2;

/// What differs from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vary {
    /// Nothing: one flow.
    Nothing,
    /// The source port and the low 16 bits of the source address, at random: a new flow each time. Checksums stay
    /// right, since another field takes what the address and port add: the IP identification, and TCP's sequence
    /// number. A UDP checksum over IPv4 must be zero (none).
    Flow,
    /// The source port only.
    Port,
}

/// Where the fields of an untagged frame without options are.
struct Fields {
    source_low: i16,
    identification: Option<i16>,
    source_port: i16,
    /// TCP's sequence number.
    sequence: Option<i16>,
}

impl Fields {
    fn of(packet: &[u8]) -> Self {
        let four = packet[14] >> 4 == 4;
        let (transport, protocol) = if four { (34, packet[23]) } else { (54, packet[20]) };
        Self {
            source_low: if four { 28 } else { 36 },
            identification: four.then_some(18),
            source_port: transport,
            sequence: (protocol == 6).then_some(transport + 4),
        }
    }
}

/// Writes `packet` over whatever is there. Leaves the context in r6, the packet's start in r7; jumps to `fail` if there
/// is not room for it.
fn restore(a: &mut Assembler, hook: Hook, packet: &[u8], fail: Label) {
    a.copy(R6, R1);
    let load = |a: &mut Assembler| match hook {
        Hook::Tc => {
            // struct __sk_buff: data, data_end.
            a.load(Size::B4, R7, R6, 76);
            a.load(Size::B4, R8, R6, 80);
        }
        Hook::Xdp | Hook::XdpFragments => {
            a.load(Size::B4, R7, R6, 0);
            a.load(Size::B4, R8, R6, 4);
        }
    };
    load(a);
    if hook != Hook::Tc {
        // What the last run put in front is taken off again.
        let same = a.label();
        a.copy(R2, R8);
        a.subtract(R2, R7);
        a.add(R2, -(packet.len() as i32));
        a.jump_if_equal(R2, 0, same);
        a.copy(R1, R6);
        a.call(Helper::XdpAdjustHead);
        load(a);
        a.place(same);
    }
    a.copy(R1, R7);
    a.add(R1, packet.len() as i32);
    a.jump_if_greater(R1, R8, fail);
    let mut at = 0;
    for chunk in packet.chunks(8) {
        if let Ok(bytes) = <[u8; 8]>::try_from(chunk) {
            a.set_wide(R1, u64::from_le_bytes(bytes));
            a.store(Size::B8, R7, at, R1);
        } else {
            for (index, byte) in chunk.iter().enumerate() {
                a.store_value(Size::B1, R7, at + index as i16, i32::from(*byte));
            }
        }
        at += chunk.len() as i16;
    }
}

/// Makes the packet at r7 one of another flow.
fn vary(a: &mut Assembler, packet: &[u8], vary: Vary) {
    if vary == Vary::Nothing {
        return;
    }
    let fields = Fields::of(packet);
    a.call(Helper::PseudoRandom);
    let mut put = |at: i16, balance: Option<i16>| {
        a.store(Size::B2, R7, at, R0);
        if let Some(balance) = balance {
            // A number and its complement add up to the same, in one's complement arithmetic.
            a.copy(R1, R0);
            a.flip(R1, -1);
            a.store(Size::B2, R7, balance, R1);
        }
    };
    put(fields.source_port, fields.sequence);
    if vary == Vary::Flow {
        a.shift_right(R0, 16);
        a.store(Size::B2, R7, fields.source_low, R0);
        a.copy(R1, R0);
        a.flip(R1, -1);
        for balance in [fields.identification, fields.sequence.map(|at| at + 2)].into_iter().flatten() {
            a.store(Size::B2, R7, balance, R1);
        }
    }
}

/// Restores `packet` and goes on with the program in [`CALLED`].
pub(crate) fn restore_and_call(hook: Hook, packet: &[u8], varied: Vary) -> Program {
    let mut a = Assembler::default();
    let fail = a.label();
    restore(&mut a, hook, packet, fail);
    vary(&mut a, packet, varied);
    a.copy(R1, R6);
    a.set_map(R2, CALLED);
    a.set(R3, 0);
    a.call(Helper::TailCall);
    a.place(fail);
    a.exit_with(if hook == Hook::Tc { TC_ACT_SHOT } else { XDP_ABORTED });
    a.finish()
}

/// Does nothing: what is taken off as the cost of the loop.
pub(crate) fn nothing(hook: Hook) -> Program {
    let mut a = Assembler::default();
    a.exit_with(if hook == Hook::Tc { TC_ACT_SHOT } else { XDP_DROP });
    a.finish()
}

/// For live frames: `packet` leaves by the device it is said to have come from.
pub(crate) fn send(packet: &[u8], varied: Vary) -> Program {
    let mut a = Assembler::default();
    let fail = a.label();
    restore(&mut a, Hook::Xdp, packet, fail);
    vary(&mut a, packet, varied);
    a.exit_with(XDP_TX);
    a.place(fail);
    a.exit_with(XDP_ABORTED);
    a.finish()
}

/// Counts frames that hold `marker` at `at`, and drops them; lets all others go on.
pub(crate) fn count(hook: Hook, at: i16, marker: u16) -> Program {
    let mut a = Assembler::default();
    let (pass, drop) = match hook {
        // TCX_NEXT
        Hook::Tc => (-1, TC_ACT_SHOT),
        Hook::Xdp | Hook::XdpFragments => (2, XDP_DROP),
    };
    let (data, end) = if hook == Hook::Tc { (76, 80) } else { (0, 4) };
    let (other, found) = (a.label(), a.label());
    a.load(Size::B4, R7, R1, data);
    a.load(Size::B4, R8, R1, end);
    a.copy(R2, R7);
    a.add(R2, i32::from(at) + 2);
    a.jump_if_greater(R2, R8, other);
    a.load(Size::B2, R3, R7, at);
    a.jump_if_equal(R3, i32::from(u16::from_le_bytes(marker.to_be_bytes())), found);
    a.jump(other);
    a.place(found);
    a.store_value(Size::B4, R10, -4, 0);
    a.set_map(R1, COUNT);
    a.copy(R2, R10);
    a.add(R2, -4);
    a.call(Helper::MapLookup);
    a.jump_if_equal(R0, 0, other);
    a.load(Size::B8, R1, R0, 0);
    a.add(R1, 1);
    a.store(Size::B8, R0, 0, R1);
    a.exit_with(drop);
    a.place(other);
    a.exit_with(pass);
    a.finish()
}
