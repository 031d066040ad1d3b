//! Cases from text. A case is a list of steps on one node; tables and flows live from its first step to its last.
//!
//! ```text
//! == name
//! service 10.96.0.10:80/tcp -> 10.244.1.5:8080
//! at pod 5                     hook: `pod N`, `to-pod N` (egress), `up`, `up-out`, `xdp`, `tunnel`
//! in PACKET                    see `frame`
//! peer 6 PACKET                what must come out: `pass`, `drop REASON`, `peer N`, `redirect N`, `neighbour N`,
//! ```                          `tx`, `handoff N` (XDP's note of a next hop), `tunnel VNI` (tc's tunnel to node 4);
//!                              without PACKET the bytes must be those that went in
//!
//! `only 4` or `only 6` restricts the family, `only host` leaves the kernel out; `with metadata`, `with xdp`, `with both`, `with next` (the
//! flow tables grow), `with ports=A-B` (of translated clients) load the programs otherwise; `note N` puts a note before the next packet,
//! `segments N` makes the next packet one that will be cut into segments; `gone BACKEND` removes a backend; `later SECONDS` lets time pass for client affinity; lines that start with `#` are comments.

use abi::{Config, Reason, config::features};
use pipeline::Verdict;

pub use crate::hook::Hook;
use crate::{frame::Spec, memory::Memory, objects::Objects, world};

/// The table of cases.
pub const CASES: &str = concat!(
    include_str!("../cases/base.txt"),
    "\n",
    include_str!("../cases/choice.txt"),
    "\n",
    include_str!("../cases/paths.txt")
);

/// One line of a case.
#[derive(Clone, Debug)]
pub enum Step {
    /// Publish a service.
    Service(String),
    /// Remove a backend.
    Gone(String),
    /// Let this many ticks of [`abi::flow::TICK_SHIFT`] pass for client affinity.
    Later(u32),
    /// Go to a hook.
    At(Hook),
    /// Send a packet.
    In(Box<Spec>),
    /// The next packet has XDP's note of a next hop.
    Note(u32),
    /// The next packet will be cut into segments with this payload.
    Segments(u32),
    /// What must have come out, and in which network of the tunnel to node 4 tc sends it.
    Out(Verdict, Option<Box<Spec>>, Option<u32>),
}

impl Step {
    /// Changes the world, if the step is one that does.
    ///
    /// # Errors
    /// Names what is not understood.
    pub fn prepare(&self, six: bool, objects: &mut Objects, memory: &mut Memory) -> Result<bool, String> {
        match self {
            Self::Service(text) => objects.service(text, six, memory)?,
            Self::Gone(text) => objects.gone(text, six, memory)?,
            Self::Later(ticks) => memory.now.set(memory.now.get().wrapping_add(*ticks)),
            Self::At(_) | Self::In(_) | Self::Note(_) | Self::Segments(_) | Self::Out(..) => {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// A sentence.
    pub name: String,
    /// Runs with IPv4.
    pub four: bool,
    /// Runs with IPv6.
    pub six: bool,
    /// Runs in the kernel, too.
    pub kernel: bool,
    /// Features besides the world's.
    pub features: u32,
    /// Source ports of translated clients, if not the default ones.
    pub ports: Option<(u16, u16)>,
    /// Lines, with their numbers.
    pub steps: Vec<(usize, Step)>,
}

impl Case {
    /// The node's constants for the case.
    pub fn config(&self) -> Config {
        let mut config = world::config();
        config.features |= self.features;
        if let Some((first, last)) = self.ports {
            (config.snat_port_first, config.snat_port_last) = (first, last);
            (config.snat_high_first, config.snat_high_last) = (1, 0);
        }
        config
    }

    fn with(&mut self, word: &str) -> Result<(), String> {
        self.features |= match word {
            "metadata" => features::METADATA,
            "xdp" => features::XDP,
            "both" => features::FLOWS_BOTH,
            "next" => features::FLOWS_BOTH | features::FLOWS_NEXT,
            _ => {
                let range = word.strip_prefix("ports=").and_then(|range| range.split_once('-'));
                let (first, last) = range.ok_or_else(|| format!("with {word:?}"))?;
                let number = |text: &str| text.parse::<u16>().map_err(|e| format!("with {word:?}: {e}"));
                self.ports = Some((number(first)?, number(last)?));
                0
            }
        };
        Ok(())
    }
}

/// Reads all cases.
///
/// # Errors
/// Names the line that is not understood.
pub fn parse(text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("==") {
            cases.push(Case {
                name: name.trim().to_owned(),
                four: true,
                six: true,
                kernel: true,
                features: 0,
                ports: None,
                steps: Vec::new(),
            });
            continue;
        }
        let case = cases.last_mut().ok_or_else(|| format!("line {number}: before the first case"))?;
        match line {
            "only 4" => case.six = false,
            "only 6" => case.four = false,
            "only host" => case.kernel = false,
            _ if line.starts_with("with ") => {
                case.with(&line[5..]).map_err(|e| format!("line {number}: {e}"))?;
            }
            _ => case.steps.push((number, step(line).map_err(|e| format!("line {number}: {e}"))?)),
        }
    }
    Ok(cases)
}

fn step(line: &str) -> Result<Step, String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let number = |text: &str| text.parse::<u32>().map_err(|e| format!("{text:?}: {e}"));
    let packet = |text: &str| match text.trim() {
        "" => Ok(None),
        text => Spec::parse(text).map(|spec| Some(Box::new(spec))),
    };
    let (first, after) = rest.split_once(' ').unwrap_or((rest, ""));
    Ok(match word {
        "service" => Step::Service(rest.to_owned()),
        "later" => Step::Later(((u64::from(number(rest)?) * 1_000_000_000) >> abi::flow::TICK_SHIFT) as u32),
        "gone" => Step::Gone(rest.to_owned()),
        "at" => Step::At(match (first, after) {
            ("pod", n) => Hook::PodIn(number(n)?),
            ("to-pod", n) => Hook::PodOut(number(n)?),
            ("up", "") => Hook::UpIn,
            ("up-out", "") => Hook::UpOut,
            ("xdp", "") => Hook::Xdp,
            ("tunnel", "") => Hook::TunIn,
            _ => return Err(format!("hook {rest:?}")),
        }),
        "in" => Step::In(packet(rest)?.ok_or("in: no packet")?),
        "note" => Step::Note(number(rest)?),
        "segments" => Step::Segments(number(rest)?),
        "pass" => Step::Out(Verdict::Pass, packet(rest)?, None),
        "tx" => Step::Out(Verdict::Transmit, packet(rest)?, None),
        "peer" => Step::Out(Verdict::Peer(number(first)?), packet(after)?, None),
        "redirect" => Step::Out(Verdict::Redirect(number(first)?), packet(after)?, None),
        "neighbour" => Step::Out(Verdict::Neighbour(number(first)?), packet(after)?, None),
        "handoff" => Step::Out(Verdict::HandOff(number(first)?), packet(after)?, None),
        "tunnel" => Step::Out(Verdict::Redirect(world::TUNNEL), packet(after)?, Some(number(first)?)),
        "drop" => {
            let reason = Reason::ALL.into_iter().find(|r| r.as_str() == first);
            Step::Out(Verdict::Drop(reason.ok_or_else(|| format!("reason {first:?}"))?), None, None)
        }
        _ => return Err(format!("{word:?} is not understood")),
    })
}

/// The packets of a case, of one family, as they go by.
///
/// An error that goes in quotes what came out last; if it is translated, what comes out must quote what went in before, with
/// the hops that it had left. An error that a hook makes quotes what went in.
#[derive(Debug, Default)]
pub struct Talk {
    six: bool,
    before: Option<Spec>,
    last: Option<Spec>,
    went_in: Vec<u8>,
    came_out: Vec<u8>,
}

impl Talk {
    /// Nothing was said yet.
    pub fn new(six: bool) -> Self {
        Self { six, ..Self::default() }
    }

    /// The bytes of the next packet to go in.
    pub fn send(&mut self, spec: &Spec) -> Vec<u8> {
        let spec = if self.six { spec.to_v6() } else { spec.clone() };
        self.went_in = spec.build(&self.came_out);
        self.before = self.last.replace(spec);
        self.went_in.clone()
    }

    /// Notes what came out.
    pub fn came(&mut self, bytes: &[u8]) {
        self.came_out = bytes.to_vec();
    }

    /// The bytes that must come out; without a description those that went in. `actual` are those that came: an outer packet's
    /// source port may be any of the range.
    pub fn expected(&self, spec: Option<&Spec>, quoted_out: &[u8], actual: &[u8]) -> Vec<u8> {
        let Some(spec) = spec else { return self.went_in.clone() };
        let spec = if self.six { spec.to_v6() } else { spec.clone() };
        let mut bytes = self.described(&spec, quoted_out);
        if spec.is_tunnelled()
            && let Some(port @ [0xc0..=0xff, _]) = actual.get(34..36)
        {
            bytes[34..36].copy_from_slice(port);
        }
        bytes
    }

    fn described(&self, spec: &Spec, quoted_out: &[u8]) -> Vec<u8> {
        match (&self.before, &self.last) {
            (Some(before), Some(last)) if last.is_error() => {
                spec.build(&before.with_hops_of(quoted_out).build(&[]))
            }
            _ => spec.build(&self.went_in),
        }
    }

    /// What came out last.
    pub fn last_out(&self) -> &[u8] {
        &self.came_out
    }
}
