//! Properties of the flow tables on the host, over random histories: packets of several connections, answers, endpoints that come and
//! go, entries that the kernel evicts, collection, and tables that grow meanwhile.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{HashMap, HashSet};

use abi::{
    config::features,
    flow::{KIND_FORWARD, flags},
    maps,
};
use golden::{
    frame::{Frame, Spec, checksums_are_right},
    hook::Hook,
    memory::Memory,
    objects::Objects,
    world::{self, Sink as _},
};
use pipeline::Verdict;
use proptest::prelude::*;

const BACKENDS: [&str; 4] = ["10.244.1.6:8080", "10.244.2.8:8080", "10.244.2.9:8080", "10.244.1.5:8080"];

/// One event.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Connection n of a client outside sends: 0 opens, 1 data, 2 ends, 3 resets.
    Client(u16, u8),
    /// The backend of connection n answers what it got last.
    Answer(u16),
    /// The service gets this one backend, and what it had goes if the flag is set.
    Endpoint(u8, bool),
    /// The kernel evicts both entries of an unanswered connection (the nth of those that there are).
    Evict(u8),
    /// The tables take the next step of growing.
    Grow,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0_u16..6, 0_u8..4).prop_map(|(n, what)| Event::Client(n, what)),
        4 => (0_u16..6).prop_map(Event::Answer),
        1 => (0_u8..4, any::<bool>()).prop_map(|(n, goes)| Event::Endpoint(n, goes)),
        1 => any::<u8>().prop_map(Event::Evict),
        1 => Just(Event::Grow),
    ]
}

/// An entry, in words that fit both families.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    key: Vec<u8>,
    /// Key of the opposite direction's entry.
    opposite: Vec<u8>,
    kind: u8,
    flags: u16,
}

impl Entry {
    fn of(key: Vec<u8>, value: &[u8]) -> Self {
        let len = if key.len() == 16 { 4 } else { 16 };
        let state = &value[2 * len..];
        let ports = [&state[2..4], &state[..2]].concat();
        let opposite = [&value[len..2 * len], &value[..len], &ports, &key[2 * len + 4..]].concat();
        Self { key, opposite, kind: state[10], flags: u16::from_ne_bytes([state[44], state[45]]) }
    }
}

/// A connection as the client knows it.
#[derive(Clone, Debug)]
struct Known {
    /// What the backend got: all from the addresses on.
    sent: Vec<u8>,
    /// It has not ended, and its entries were not evicted.
    lives: bool,
    /// Its backend has gone: it stays, but whoever opens a connection anew gets another one.
    gone: bool,
    backend: &'static str,
}

struct History {
    memory: Memory,
    objects: Objects,
    six: bool,
    serving: &'static str,
    phase: u32,
    known: HashMap<u16, Known>,
}

impl History {
    fn new(six: bool) -> Self {
        let mut memory = Memory::new(world::config());
        world::furnish(&mut memory);
        let mut objects = Objects::default();
        objects.service("node:30080/tcp -> 10.244.2.9:8080", six, &mut memory).unwrap();
        let serving = "10.244.2.9:8080";
        Self { memory, objects, six, serving, phase: 0, known: HashMap::new() }
    }

    fn tables(&self) -> [&'static str; 3] {
        if self.six {
            [maps::FLOW6.name, maps::FLOW6_NEXT.name, maps::FLOWQ6.name]
        } else {
            [maps::FLOW4.name, maps::FLOW4_NEXT.name, maps::FLOWQ4.name]
        }
    }

    fn entries(&self, table: &'static str) -> Vec<Entry> {
        self.memory.entries(table).into_iter().map(|(key, value)| Entry::of(key, &value)).collect()
    }

    fn all(&self) -> Vec<Entry> {
        self.tables().into_iter().flat_map(|table| self.entries(table)).collect()
    }

    /// Source and destination address and ports of an untagged frame.
    fn ends(&self, frame: &[u8]) -> Vec<u8> {
        if self.six { frame[22..58].to_vec() } else { frame[26..38].to_vec() }
    }

    fn packet(&self, line: &str) -> Vec<u8> {
        let spec = Spec::parse(line).unwrap();
        if self.six { spec.to_v6() } else { spec }.build(&[])
    }

    /// The backend that a packet with these ends goes to.
    fn backend(&self, ends: &[u8]) -> Option<&'static str> {
        let at = if self.six { 16..32 } else { 4..8 };
        BACKENDS.into_iter().find(|end| {
            let to = self.packet(&format!("client>uplink 64 tcp 172.30.0.3:1>{end} S"));
            self.ends(&to)[at.clone()] == ends[at.clone()]
        })
    }

    fn client(&mut self, n: u16, what: u8) -> Result<(), TestCaseError> {
        let flags = ["S", "A +10", "FA", "R"][usize::from(what)];
        let line = format!("client>uplink 64 tcp 172.30.0.3:{}>172.30.0.11:30080 {flags}", 40_000 + n);
        let mut frame = Frame::new(self.packet(&line), world::UPLINK);
        let verdict = Hook::Xdp.run(&mut frame, &self.memory);
        prop_assert!(!matches!(verdict, Verdict::Drop(_)), "{verdict:?}");
        prop_assert!(checksums_are_right(&frame.bytes));
        let ends = self.ends(&frame.bytes);
        let before = self.known.get(&n).cloned();
        let old = before.clone().filter(|known| known.lives && !(what == 0 && known.gone));
        match &old {
            Some(known) => prop_assert_eq!(&known.sent, &ends, "connection {} changed its backend", n),
            // What has ended may have left entries, which the next packet meets.
            None if before.is_none() => {
                prop_assert_eq!(self.backend(&ends), Some(self.serving), "not to the serving backend");
            }
            None => {}
        }
        let lives = what == 0 || what == 1 && before.is_none_or(|known| known.lives);
        let known = match old {
            Some(known) => Known { lives, ..known },
            None => Known {
                sent: ends.clone(),
                lives,
                gone: false,
                backend: self.backend(&ends).unwrap_or_default(),
            },
        };
        self.known.insert(n, known);
        Ok(())
    }

    fn answer(&self, n: u16) -> Result<(), TestCaseError> {
        let Some(known) = self.known.get(&n).filter(|known| known.lives) else { return Ok(()) };
        let mut bytes = self.packet("node2>uplink 64 tcp 10.244.2.9:1>172.30.0.11:1 A +10");
        let len = if self.six { 16 } else { 4 };
        let at = if self.six { 22 } else { 26 };
        let (src, dst, ports) = (&known.sent[..len], &known.sent[len..2 * len], &known.sent[2 * len..]);
        let ends = [dst, src, &ports[2..], &ports[..2]].concat();
        bytes[at..at + ends.len()].copy_from_slice(&ends);
        // From a pod of this node or through the uplink; checksums do not matter here.
        let local = dst[len - 1] == 6 || dst[len - 1] == 5;
        let hook = if local { Hook::PodIn(u32::from(dst[len - 1])) } else { Hook::Xdp };
        let mut frame = Frame::new(bytes, hook.ifindex());
        let verdict = hook.run(&mut frame, &self.memory);
        prop_assert!(!matches!(verdict, Verdict::Drop(_) | Verdict::Pass), "{verdict:?}");
        let client =
            self.packet(&format!("client>uplink 64 tcp 172.30.0.11:30080>172.30.0.3:{} A", 40_000 + n));
        prop_assert_eq!(self.ends(&frame.bytes), self.ends(&client), "not the answer that the client awaits");
        Ok(())
    }

    fn endpoint(&mut self, n: u8, goes: bool) {
        let old = std::mem::replace(&mut self.serving, BACKENDS[usize::from(n)]);
        self.objects
            .service(&format!("node:30080/tcp -> {}", self.serving), self.six, &mut self.memory)
            .unwrap();
        if goes && old != self.serving {
            self.objects.gone(old, self.six, &mut self.memory).unwrap();
            self.known.values_mut().filter(|known| known.backend == old).for_each(|known| known.gone = true);
        }
    }

    fn evict(&mut self, n: u8) {
        let queue = self.tables()[2];
        let forward: Vec<_> =
            self.entries(queue).into_iter().filter(|entry| entry.kind == KIND_FORWARD).collect();
        let Some(entry) = forward.get(usize::from(n) % forward.len().max(1)) else { return };
        self.memory.retain(queue, |key, _| key != entry.key && key != entry.opposite);
        let at = if self.six { 32 } else { 8 };
        let port = u16::from_be_bytes([entry.key[at], entry.key[at + 1]]);
        if let Some(known) = self.known.get_mut(&(port - 40_000)) {
            known.lives = false;
        }
    }

    /// What the agent does: see `pipeline::growth`.
    fn grow(&mut self) {
        let [current, next, _] = self.tables();
        self.phase = (self.phase + 1) % 3;
        let features = world::config().features;
        let more = [0, features::FLOWS_BOTH, features::FLOWS_BOTH | features::FLOWS_NEXT];
        self.memory.set_features(features | more[self.phase as usize]);
        match self.phase {
            2 => {
                let there: HashSet<_> = self.memory.entries(next).into_iter().map(|(key, _)| key).collect();
                for (key, value) in self.memory.entries(current) {
                    if !there.contains(&key) {
                        self.memory.put(next, &key, &value);
                    }
                }
            }
            0 => {
                self.memory.retain(current, |_, _| false);
                for (key, value) in self.memory.entries(next) {
                    self.memory.put(current, &key, &value);
                }
                self.memory.retain(next, |_, _| false);
            }
            _ => {}
        }
    }

    /// What holds after every event.
    fn invariants(&self) -> Result<(), TestCaseError> {
        let all = self.all();
        let keys: HashMap<_, _> = all.iter().map(|entry| (entry.key.clone(), entry.clone())).collect();
        let mut taken = HashMap::new();
        for entry in &all {
            if entry.flags & flags::DSR != 0 {
                continue;
            }
            let other = keys.get(&entry.opposite);
            prop_assert!(other.is_some(), "half of a pair: {entry:?}");
            prop_assert_eq!(&other.unwrap().opposite, &entry.key, "a pair whose halves do not agree");
            if entry.kind == KIND_FORWARD {
                let owner = taken.insert(entry.opposite.clone(), entry.key.clone());
                let same = owner.is_none_or(|owner| owner == entry.key);
                prop_assert!(same, "one source port for two connections");
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn connections_keep_their_backends_and_pairs_stay_whole(
        six: bool, events in proptest::collection::vec(event(), 1..60),
    ) {
        let mut history = History::new(six);
        for event in events {
            match event {
                Event::Client(n, what) => history.client(n, what)?,
                Event::Answer(n) => history.answer(n)?,
                Event::Endpoint(n, goes) => history.endpoint(n, goes),
                Event::Evict(n) => history.evict(n),
                Event::Grow => history.grow(),
            }
            history.invariants()?;
        }
    }
}
