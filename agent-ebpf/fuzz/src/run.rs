//! Plays a script and judges what comes out of each hook.

use std::fmt;

use abi::config::Config;
use golden::case::{Case, Step};
use golden::frame::Frame;
use golden::hook::Hook;
use golden::memory::Memory;
use golden::objects::Objects;
use golden::world::{self, PODS, TUNNEL, UPLINK};
use pipeline::Verdict;

use crate::script::{Move, Operation, Script, Source};
use crate::wire::{self, Layout};

/// Payload of each segment of a packet that the stack has not cut yet: fits the uplink, not the tunnel.
const SEGMENT: u32 = 1_440;

/// Something that must not happen.
#[derive(Debug)]
pub struct Finding {
    /// Which rule is broken.
    pub rule: &'static str,
    /// Where.
    pub hook: Hook,
    /// How the packet ended.
    pub verdict: Verdict,
    /// The packet before and after.
    pub packet: [Vec<u8>; 2],
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, after] = &self.packet;
        write!(f, "{} at {:?}, {:?}:\n  {before:02x?}\n  {after:02x?}", self.rule, self.hook, self.verdict)
    }
}

/// A node with tables in memory, in the middle of a case.
struct Node {
    memory: Memory,
    objects: Objects,
    six: bool,
    changes: Box<dyn Iterator<Item = &'static Step>>,
    /// What came out last, with what XDP noted on it.
    last: Vec<u8>,
    note: Option<u32>,
}

/// Plays an input. Whatever it holds, only a broken rule is an error.
///
/// # Errors
/// The first finding.
pub fn run(input: &[u8]) -> Result<(), Box<Finding>> {
    let Some(script) = Script::read(input) else { return Ok(()) };
    let mut node = Node::new(script.case, script.six, script.features);
    for step in &script.moves {
        match step.operation {
            Operation::At(hook) => node.packet(hook, step)?,
            Operation::Change => node.change(),
            Operation::Wait => node.wait(u32::from(step.number) << 8),
        }
    }
    Ok(())
}

impl Node {
    fn new(case: &'static Case, six: bool, features: u32) -> Self {
        let config = case.config();
        let mut memory = Memory::new(Config { features: config.features | features, ..config });
        world::furnish(&mut memory);
        let changes = case.steps.iter().map(|(_, step)| step);
        let changes =
            changes.filter(|step| matches!(step, Step::Service(_) | Step::Gone(_) | Step::Later(_)));
        let changes = Box::new(changes);
        Self { memory, objects: Objects::default(), six, changes, last: Vec::new(), note: None }
    }

    /// The case's next change. One that cannot be made here (its backend was never named) is none.
    fn change(&mut self) {
        if let Some(step) = self.changes.next() {
            drop(step.prepare(self.six, &mut self.objects, &mut self.memory));
        }
    }

    fn wait(&self, ticks: u32) {
        self.memory.now.set(self.memory.now.get().wrapping_add(ticks));
    }

    fn packet(&mut self, hook: Hook, step: &Move<'_>) -> Result<(), Box<Finding>> {
        let mut before = match step.source {
            Source::Bytes(bytes) => bytes.to_vec(),
            Source::Answer | Source::Again => self.last.clone(),
        };
        if let Some(layout) = Layout::of(&before) {
            if step.source == Source::Answer {
                layout.turn(&mut before);
            }
            if step.mend {
                layout.mend(&mut before);
            }
        }
        let mut frame = Frame::new(before.clone(), hook.ifindex());
        frame.note = self.note.take().filter(|_| step.source == Source::Again);
        frame.segment = if step.segmented { SEGMENT } else { 0 };
        let verdict = hook.run(&mut frame, &self.memory);
        let broken = judge(&before, &frame.bytes, verdict);
        self.last.clone_from(&frame.bytes);
        if let Verdict::HandOff(nexthop) = verdict {
            self.note = Some(nexthop);
        }
        match broken {
            None => Ok(()),
            Some(rule) => Err(Box::new(Finding { rule, hook, verdict, packet: [before, frame.bytes] })),
        }
    }
}

/// The first rule that a packet breaks.
fn judge(before: &[u8], after: &[u8], verdict: Verdict) -> Option<&'static str> {
    if matches!(verdict, Verdict::Drop(_)) {
        return None;
    }
    if let Verdict::Peer(to) | Verdict::Redirect(to) | Verdict::Neighbour(to) = verdict
        && !matches!(to, UPLINK | TUNNEL)
        && !PODS.contains(&to)
    {
        return Some("a packet goes to an interface that nobody has");
    }
    if before == after {
        return None;
    }
    let built =
        |right| if right == Some(true) { None } else { Some("a packet that was built has wrong checksums") };
    let (old, new) = match (Layout::of(before), Layout::of(after)) {
        (Some(old), Some(new)) => (old, new),
        (Some(_), None) => return Some("a whole IP packet became none"),
        // What is cut short may be sent on, also in a tunnel, since its receiver checks the same length; nothing else is made of it.
        (None, Some(new)) if new.is_tunnel(after) => return built(new.right(after)),
        (None, Some(new)) if before.len() != after.len() && !wire::is_cut_short(before) => {
            return built(new.right(after));
        }
        (None, _) if before.len() != after.len() => {
            return Some("something was built from no whole IP packet");
        }
        (None, _) => return None,
    };
    let (was, is) = (old.right(before), new.right(after));
    let answers = new.six == old.six && new.ends(after).1 == old.ends(before).0;
    if before.len() != after.len() {
        let known = answers || new.is_tunnel(after);
        return if known { built(is) } else { Some("a packet changed its length and is no answer") };
    }
    if was == Some(true) && is != Some(true) {
        return Some("right checksums became wrong");
    }
    let (Some(from), Some(to)) = (old.payload(before), new.payload(after)) else { return None };
    let stays = answers || old.proto != new.proto || (from == to && before[from..] == after[to..]);
    (!stays).then_some("bytes behind the headers were changed")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use golden::frame::Spec;

    #[test]
    fn each_rule_can_be_broken() {
        let build = |line: &str| Spec::parse(line).unwrap().build(&[]);
        let good = build("pod5>host5 64 tcp 10.244.1.5:40000>10.96.0.10:80 S +8");
        let other = build("pod5>host5 63 tcp 10.244.1.5:40000>10.244.1.6:8080 S +8");
        let mut wrong = other.clone();
        wrong[40] ^= 1;
        let mut payload = other.clone();
        let last = payload.len() - 1;
        payload[last] = 0xee;
        Layout::of(&payload).unwrap().mend(&mut payload);
        let longer = build("pod5>host5 63 tcp 10.244.1.5:40000>10.244.1.6:8080 S +9");
        let cut = other[..other.len() - 1].to_vec();
        let pass = Verdict::Pass;
        for (after, verdict, expected) in [
            (&other, pass, None),
            (&other, Verdict::Peer(77), Some("a packet goes to an interface that nobody has")),
            (&wrong, pass, Some("right checksums became wrong")),
            (&wrong, Verdict::Drop(abi::Reason::Malformed), None),
            (&payload, pass, Some("bytes behind the headers were changed")),
            (&longer, pass, Some("a packet changed its length and is no answer")),
            (&cut, pass, Some("a whole IP packet became none")),
        ] {
            assert_eq!(judge(&good, after, verdict), expected);
        }
        let built = Some("something was built from no whole IP packet");
        assert_eq!(judge(&cut, &longer, pass), built);
        assert_eq!(judge(&[1; 20], &[1; 21], pass), built);
    }
}
