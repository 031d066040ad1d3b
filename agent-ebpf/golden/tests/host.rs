//! The cases on the host: the stages over tables in memory.
#![allow(clippy::unwrap_used, reason = "tests")]

use golden::{
    case::{self, CASES, Case, Hook, Step, Talk},
    frame::Frame,
    memory::Memory,
    objects::Objects,
    world,
};
use pipeline::{Verdict, forward::At};

fn run_hook(hook: Hook, frame: &mut Frame, memory: &Memory) -> Verdict {
    match hook {
        Hook::PodIn(_) => pipeline::pod::ingress(frame, memory),
        Hook::PodOut(_) | Hook::UpOut => pipeline::egress::egress(frame, memory),
        Hook::UpIn => pipeline::uplink::ingress(frame, memory, At::Tc),
        Hook::Xdp => pipeline::uplink::ingress(frame, memory, At::Xdp),
    }
}

fn ifindex(hook: Hook) -> u32 {
    match hook {
        Hook::PodIn(n) | Hook::PodOut(n) => n,
        Hook::UpIn | Hook::UpOut | Hook::Xdp => world::UPLINK,
    }
}

/// Runs a case in one family; gives what differs.
fn run(case: &Case, six: bool) -> Vec<String> {
    let mut memory = Memory::new(world::config());
    world::furnish(&mut memory);
    let mut objects = Objects::default();
    let mut hook = Hook::Xdp;
    let mut talk = Talk::new(six);
    let mut came_out = None;
    let mut wrong = Vec::new();
    for (line, step) in &case.steps {
        match step {
            Step::Service(text) => objects.service(text, six, &mut memory).unwrap(),
            Step::Gone(text) => objects.gone(text, six, &mut memory).unwrap(),
            Step::Later(ticks) => memory.now.set(memory.now.get() + ticks),
            Step::At(at) => hook = *at,
            Step::In(spec) => {
                let quoted = talk.last_out().to_vec();
                let went_in = talk.send(spec);
                let mut frame = Frame { bytes: went_in, ifindex: ifindex(hook) };
                let verdict = run_hook(hook, &mut frame, &memory);
                came_out = Some((verdict, frame.bytes, quoted));
            }
            Step::Out(verdict, spec) => {
                let (actual, bytes, quoted) = came_out.take().unwrap();
                let expected = talk.expected(spec.as_deref(), &quoted);
                talk.came(&bytes);
                if actual != *verdict {
                    wrong.push(format!("line {line}: {actual:?} instead of {verdict:?}"));
                } else if !matches!(verdict, Verdict::Drop(_)) && bytes != expected {
                    wrong.push(format!("line {line}:\n  came {bytes:02x?}\n  want {expected:02x?}"));
                }
            }
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
