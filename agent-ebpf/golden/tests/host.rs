//! The cases on the host: the stages over tables in memory.
#![allow(clippy::unwrap_used, reason = "tests")]

use abi::Ip4;
use golden::{
    case::{self, CASES, Case, Hook, Step, Talk},
    frame::Frame,
    memory::Memory,
    objects::Objects,
    world,
};
use pipeline::Verdict;
use std::net::Ipv4Addr;

/// Runs a case in one family; gives what differs.
fn run(case: &Case, six: bool) -> Vec<String> {
    let mut memory = Memory::new(case.config());
    world::furnish(&mut memory);
    let mut objects = Objects::default();
    let mut hook = Hook::Xdp;
    let mut talk = Talk::new(six);
    let mut came_out = None;
    let (mut note, mut segment) = (None, 0);
    let mut wrong = Vec::new();
    for (line, step) in &case.steps {
        if step.prepare(six, &mut objects, &mut memory).unwrap() {
            continue;
        }
        match step {
            Step::Note(nexthop) => note = Some(*nexthop),
            Step::Segments(bytes) => segment = *bytes,
            Step::At(at) => hook = *at,
            Step::In(spec) => {
                let quoted = talk.last_out().to_vec();
                let went_in = talk.send(spec);
                let (note, segment) = (note.take(), std::mem::take(&mut segment));
                let mut frame = Frame { note, segment, ..Frame::new(went_in, hook.ifindex()) };
                let verdict = hook.run(&mut frame, &memory);
                came_out = Some((verdict, frame, quoted));
            }
            Step::Out(verdict, spec, vni) => {
                let (actual, frame, quoted) = came_out.take().unwrap();
                let expected = talk.expected(spec.as_deref(), &quoted, &frame.bytes);
                talk.came(&frame.bytes);
                let tunnel = vni.map(|vni| (vni, Ip4::from(Ipv4Addr::new(172, 30, 0, 14)).0));
                if actual != *verdict {
                    wrong.push(format!("line {line}: {actual:?} instead of {verdict:?}"));
                } else if !matches!(verdict, Verdict::Drop(_)) && frame.bytes != expected {
                    wrong.push(format!("line {line}:\n  came {:02x?}\n  want {expected:02x?}", frame.bytes));
                } else if frame.tunnel != tunnel {
                    wrong
                        .push(format!("line {line}: into tunnel {:x?} instead of {tunnel:x?}", frame.tunnel));
                }
            }
            Step::Service(_) | Step::Gone(_) | Step::Later(_) => {}
        }
    }
    wrong
}

#[test]
fn golden_packets_on_the_host() {
    let mut failures = Vec::new();
    let cases = case::parse(CASES).unwrap();
    for case in &cases {
        for six in [false, true] {
            if if six { case.six } else { case.four } {
                failures.extend(
                    run(case, six)
                        .iter()
                        .map(|w| format!("{} (IPv{}): {w}", case.name, if six { 6 } else { 4 })),
                );
            }
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
}
