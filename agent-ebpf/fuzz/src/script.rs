//! Inputs as scripts: how bytes are read, and the scripts that golden's cases make.
//!
//! | bytes | what |
//! |---|---|
//! | 2 | case (its services and changes), little endian, modulo their number |
//! | 1 | bit 0: IPv6 |
//! | 1 | features that are on beside golden's: [`FEATURES`] by bit |
//! | 1 | operation of a step: low four bits [`OPERATIONS`], high bits [`MEND`], [`ANSWER`], [`AGAIN`], [`SEGMENTED`] |
//! | 2 | time in units of 256 ticks, or length of the packet (little endian; what is missing is cut) |
//! | n | the packet, unless it is an answer or a repetition |
//!
//! Every input is a script, and small changes of an input are small changes of the script: no checksum, no magic.

use std::sync::OnceLock;

use abi::config::features;
use golden::case::{self, CASES, Case, Step};
use golden::hook::Hook;

/// Features that a script may switch on.
pub const FEATURES: [u32; 5] = [
    features::XDP,
    features::METADATA,
    features::TUNNEL,
    features::FLOWS_BOTH,
    features::FLOWS_BOTH | features::FLOWS_NEXT,
];

/// What a step may do.
pub const OPERATIONS: [Operation; 16] = [
    Operation::At(Hook::PodIn(5)),
    Operation::At(Hook::PodIn(6)),
    Operation::At(Hook::PodOut(5)),
    Operation::At(Hook::PodOut(6)),
    Operation::At(Hook::UpIn),
    Operation::At(Hook::UpOut),
    Operation::At(Hook::Xdp),
    Operation::Change,
    Operation::Wait,
    Operation::At(Hook::TunIn),
    Operation::At(Hook::PodIn(5)),
    Operation::At(Hook::PodIn(6)),
    Operation::At(Hook::UpIn),
    Operation::At(Hook::Xdp),
    Operation::At(Hook::UpOut),
    Operation::Change,
];

/// The packet's checksums are made right first.
pub const MEND: u8 = 0x10;
/// The packet is what came out last, with its ends exchanged.
pub const ANSWER: u8 = 0x20;
/// The packet is what came out last.
pub const AGAIN: u8 = 0x40;

/// The stack will cut the packet into segments.
pub const SEGMENTED: u8 = 0x80;

/// More steps add time and no new states.
const MAX_STEPS: usize = 24;
/// More bytes than any header chain that is read, and as many as a frame has.
const MAX_PACKET: usize = 1600;

/// One step's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A packet at a hook.
    At(Hook),
    /// The case's next change: a service, a backend that goes, time.
    Change,
    /// Time passes.
    Wait,
}

/// Where a step's packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// The input.
    Bytes(&'a [u8]),
    /// What came out last, answered.
    Answer,
    /// What came out last.
    Again,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move<'a> {
    /// What is done.
    pub operation: Operation,
    /// The packet, if it is one.
    pub source: Source<'a>,
    /// Whether its checksums are made right first.
    pub mend: bool,
    /// Whether it is one that the stack will cut.
    pub segmented: bool,
    /// The two bytes behind the operation.
    pub number: u16,
}

/// A script.
#[derive(Clone, Debug)]
pub struct Script<'a> {
    /// Services and changes.
    pub case: &'static Case,
    /// The family of the case's services.
    pub six: bool,
    /// Features beside golden's.
    pub features: u32,
    /// Steps in order.
    pub moves: Vec<Move<'a>>,
}

/// Golden's cases.
pub fn cases() -> &'static [Case] {
    static PARSED: OnceLock<Vec<Case>> = OnceLock::new();
    PARSED.get_or_init(|| case::parse(CASES).unwrap_or_default())
}

impl<'a> Script<'a> {
    /// Reads an input; `None` if it is shorter than a script's head.
    pub fn read(input: &'a [u8]) -> Option<Self> {
        let ([low, high, family, on], mut rest) = input.split_first_chunk()?;
        let number = usize::from(u16::from_le_bytes([*low, *high]));
        let case = cases().get(number % cases().len().max(1))?;
        let chosen = FEATURES.iter().enumerate().filter(|(bit, _)| on >> bit & 1 != 0);
        let features = chosen.fold(0, |all, (_, feature)| all | feature);
        let mut moves = Vec::new();
        while let Some(([word, low, high], after)) = rest.split_first_chunk() {
            let number = u16::from_le_bytes([*low, *high]);
            let operation = OPERATIONS[usize::from(word & 15)];
            let takes = matches!(operation, Operation::At(_)) && word & (ANSWER | AGAIN) == 0;
            let length = if takes { usize::from(number).min(after.len()).min(MAX_PACKET) } else { 0 };
            let (bytes, after) = after.split_at(length);
            let source = match (word & ANSWER != 0, word & AGAIN != 0) {
                (true, _) => Source::Answer,
                (false, true) => Source::Again,
                (false, false) => Source::Bytes(bytes),
            };
            let (mend, segmented) = (word & MEND != 0, word & SEGMENTED != 0);
            moves.push(Move { operation, source, mend, segmented, number });
            if moves.len() == MAX_STEPS {
                break;
            }
            rest = after;
        }
        Some(Self { case, six: family & 1 != 0, features, moves })
    }
}

/// The inputs that golden's cases make, with their names: each case in each of its families, and packets as they are described (ICMP
/// errors quote what the case sent last).
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for (number, case) in cases().iter().enumerate() {
        for six in [false, true] {
            if if six { case.six } else { case.four } {
                let family = if six { 6 } else { 4 };
                all.push((format!("{number:03}-{family}"), seed(number as u16, case, six)));
            }
        }
    }
    all
}

fn seed(number: u16, case: &Case, six: bool) -> Vec<u8> {
    let mut input = number.to_le_bytes().to_vec();
    input.extend([u8::from(six), 0]);
    let mut at = 0;
    let mut last: Vec<u8> = Vec::new();
    for (_, step) in &case.steps {
        match step {
            Step::At(hook) => {
                let same = |operation: &Operation| *operation == Operation::At(*hook);
                at = OPERATIONS.iter().position(same).unwrap_or_default() as u8;
            }
            Step::In(spec) => {
                let spec = if six { spec.to_v6() } else { (**spec).clone() };
                // An error quotes a packet; without one before it there is nothing to send.
                if spec.is_error() && last.is_empty() {
                    continue;
                }
                let packet = spec.build(&last);
                input.push(at);
                input.extend((packet.len() as u16).to_le_bytes());
                input.extend(&packet);
                last = packet;
            }
            Step::Service(_) | Step::Gone(_) | Step::Later(_) => input.extend([7, 0, 0]),
            Step::Note(_) | Step::Segments(_) | Step::Out(..) => {}
        }
    }
    input
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_script_is_read_to_its_last_byte() {
        let input = [0, 0, 1, 1, 0, 2, 0, 0xaa, 0xbb, 4 | ANSWER, 9, 9, 8, 5, 0, 6 | MEND, 200, 0, 0xcc];
        let script = Script::read(&input).unwrap();
        assert!(script.six);
        assert_eq!(script.features, features::XDP);
        let [first, second, third, fourth] = script.moves[..] else { panic!("{:?}", script.moves) };
        assert_eq!(first.source, Source::Bytes(&[0xaa, 0xbb]));
        assert_eq!((second.operation, second.source), (Operation::At(Hook::UpIn), Source::Answer));
        assert_eq!((third.operation, third.number), (Operation::Wait, 5));
        assert_eq!((fourth.mend, fourth.source), (true, Source::Bytes(&[0xcc])));
    }

    #[test]
    fn every_case_makes_a_seed_that_is_read_back_with_its_packets() {
        for (name, seed) in seeds() {
            let script = Script::read(&seed).unwrap();
            let sent = script.case.steps.iter().filter(|(_, step)| matches!(step, Step::In(_))).count();
            let read = script.moves.iter().filter(|step| matches!(step.operation, Operation::At(_))).count();
            assert!(
                read == sent.min(MAX_STEPS) || read + 1 >= sent.min(MAX_STEPS),
                "{name}: {read} of {sent}"
            );
        }
    }
}
