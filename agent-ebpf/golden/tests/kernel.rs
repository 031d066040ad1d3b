//! The cases in the kernel: the built programs, run by `BPF_PROG_TEST_RUN` on fresh maps in a network namespace of
//! their own. Needs root and the object (`cargo xtask build`); skips aloud without.
//!
//! The kernel tells a redirect's target to nobody, so verdicts are compared by kind, bytes and drop counters in full.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bpf;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use abi::{
    Config, Reason,
    affinity::Affinity,
    config::features,
    maps::{self, MapKind},
    programs::{Hook as Attach, PROGRAMS, ProgramSpec},
    route::HandOff,
};
use aya::{
    Ebpf,
    maps::{HashMap, LpmTrie, PerCpuArray, PerCpuValues},
    programs::{
        CgroupSock, CgroupSockAddr, ProgramError, SchedClassifier, TestRun as _, TestRunOptions, Xdp,
    },
};
use bpf::{Loaded, load};
use golden::{
    case::{self, CASES, Case, Hook, Step, Talk},
    frame::Spec,
    objects::Objects,
    world::{self, Sink},
};
use pipeline::Verdict;
use rustix::thread::{CpuSet, sched_setaffinity};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// Runs in a network namespace that lives as long as the call, with the world's veths, on one CPU (the rotors are per
/// CPU).
fn in_namespace<T: Send + 'static>(run: impl FnOnce(PathBuf) -> T + Send + 'static) -> Option<T> {
    bpf::in_namespace(move |path| {
        let mut first = CpuSet::new();
        first.set(0);
        sched_setaffinity(None, &first).unwrap();
        for index in world::PODS {
            let (name, peer) = (format!("golden{index}"), format!("goldenp{index}"));
            let link =
                ["link", "add", &name, "index", &index.to_string(), "type", "veth", "peer", "name", &peer];
            assert!(Command::new("ip").args(link).status().unwrap().success(), "ip {link:?}");
        }
        let index = world::TUNNEL.to_string();
        let mtu = world::TUNNEL_MTU.to_string();
        let link = ["link", "add", "goldenvx", "index", &index, "mtu", &mtu, "type", "vxlan", "external"];
        let link = link.into_iter().chain(["dstport", "4789"]);
        assert!(Command::new("ip").args(link).status().unwrap().success(), "ip link add vxlan");
        run(path)
    })
}

struct Kernel {
    ebpf: Ebpf,
    /// Array elements that were written.
    written: Vec<(&'static str, u32)>,
}

impl Sink for Kernel {
    fn put(&mut self, map: &'static str, key: &[u8], value: &[u8]) {
        if maps::MAPS.iter().any(|spec| spec.name == map && spec.kind == MapKind::MappedArray) {
            self.written.push((map, u32::from_ne_bytes(key.try_into().unwrap())));
        }
        Loaded(&mut self.ebpf).put(map, key, value);
    }
}

/// Deletes all entries of a hash by the sizes of its map.
macro_rules! clear {
    ($self:ident, $spec:ident, [$(($k:literal, $v:literal)),*]) => {
        match ($spec.key_size, $spec.value_size) {
            $(($k, $v) => {
                let map = $self.ebpf.map_mut($spec.name).unwrap();
                let mut map = HashMap::<_, [u8; $k], [u8; $v]>::try_from(map).unwrap();
                let keys: Vec<_> = map.keys().map(Result::unwrap).collect();
                keys.iter().for_each(|key| map.remove(key).unwrap());
            })*
            other => panic!("map {} of {other:?}", $spec.name),
        }
    };
}

/// What a run gave: kind of verdict, bytes.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Pass,
    Drop,
    Transmit,
    Redirect,
}

impl Kernel {
    fn new(path: &Path, config: &Config) -> Self {
        let mut ebpf = load(path, config);
        for name in ["tcx_pod_in", "tcx_pod_out", "tcx_up_in", "tcx_up_out", "tcx_tun_in"] {
            let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap_or_else(|e| panic!("{name}: {e:?}"));
        }
        let program: &mut Xdp = ebpf.program_mut("xdp_ns").unwrap().try_into().unwrap();
        program.load().unwrap_or_else(|e| panic!("xdp_ns: {e:?}"));
        Self { ebpf, written: Vec::new() }
    }

    /// Empties all tables: what a fresh load would give, without verifying the programs again.
    fn empty(&mut self) {
        for (map, index) in std::mem::take(&mut self.written) {
            let size = maps::MAPS.iter().find(|spec| spec.name == map).unwrap().value_size;
            self.put(map, index.as_bytes(), &vec![0; size]);
        }
        for spec in maps::MAPS {
            if matches!(spec.kind, MapKind::Hash | MapKind::LruHash) {
                clear!(
                    self,
                    spec,
                    [
                        (4, 16),
                        (8, 4),
                        (8, 8),
                        (16, 16),
                        (24, 8),
                        (16, 64),
                        (40, 104),
                        (16, 4),
                        (40, 4),
                        (8, 16),
                        (20, 16)
                    ]
                );
            }
        }
        clear_ranges::<8>(&mut self.ebpf, maps::SRCR4.name);
        clear_ranges::<20>(&mut self.ebpf, maps::SRCR6.name);
        for index in world::PODS {
            for map in [maps::EPSEEN4.name, maps::EPSEEN6.name] {
                self.put(map, index.as_bytes(), &[0; 4]);
            }
        }
        for index in 0..bpf::SETS {
            self.put(maps::FLOWQ4.name, index.as_bytes(), &[0; 384]);
            self.put(maps::FLOWQ6.name, index.as_bytes(), &[0; 640]);
        }
        self.written.clear();
        // What the programs write besides: loads of backends and turns of services, numbered from 1.
        for index in 1..16 {
            for map in [maps::LOAD4.name, maps::LOAD6.name] {
                self.put(map, u32::as_bytes(&index), &[0; 8]);
            }
        }
        self.written.clear();
        let zeros = || PerCpuValues::try_from(vec![[0_u64; 4]; aya::util::nr_cpus().unwrap()]).unwrap();
        let map = self.ebpf.map_mut(maps::SVCSTAT.name).unwrap();
        let mut counters: PerCpuArray<_, [u64; 4]> = PerCpuArray::try_from(map).unwrap();
        for service in 1..16 {
            counters.set(service, zeros(), 0).unwrap();
        }
        let map = self.ebpf.map_mut(maps::ROTOR.name).unwrap();
        let mut rotors: PerCpuArray<_, u32> = PerCpuArray::try_from(map).unwrap();
        let zeros = || PerCpuValues::try_from(vec![0; aya::util::nr_cpus().unwrap()]).unwrap();
        // Backends are numbered from 1; connections that have none share the last row.
        for row in (0..16).chain([maps::ROTOR.entries as u32 - 1]) {
            rotors.set(row, zeros(), 0).unwrap();
        }
    }

    fn run(&mut self, hook: Hook, packet: &[u8], segment: u32) -> (Kind, Vec<u8>, Duration) {
        let mut out = vec![0; 4096];
        // `struct __sk_buff`: the interface's index is its eleventh word.
        let mut skb = [0_u32; 48];
        let name = match hook {
            Hook::PodIn(_) => "tcx_pod_in",
            Hook::PodOut(_) => "tcx_pod_out",
            Hook::UpIn => "tcx_up_in",
            Hook::UpOut => "tcx_up_out",
            Hook::Xdp => "xdp_ns",
            Hook::TunIn => "tcx_tun_in",
        };
        skb[10] = hook.ifindex();
        // The 45th is the payload of segments.
        skb[44] = segment;
        let mut options =
            TestRunOptions { data_in: Some(packet), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = if hook == Hook::Xdp {
            let program: &mut Xdp = self.ebpf.program_mut(name).unwrap().try_into().unwrap();
            program.test_run(options)
        } else {
            options.ctx_in = Some(skb.as_bytes());
            let program: &mut SchedClassifier = self.ebpf.program_mut(name).unwrap().try_into().unwrap();
            program.test_run(options)
        }
        .unwrap_or_else(|e| panic!("{name}, {} bytes: {e:?}", packet.len()));
        let kind = match (hook, result.return_value) {
            // XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT.
            (Hook::Xdp, 1) => Kind::Drop,
            (Hook::Xdp, 2) => Kind::Pass,
            (Hook::Xdp, 3) => Kind::Transmit,
            (Hook::Xdp, 4) => Kind::Redirect,
            // TCX_NEXT, TC_ACT_SHOT, TC_ACT_REDIRECT.
            (_, u32::MAX) => Kind::Pass,
            (_, 2) => Kind::Drop,
            (_, 7) => Kind::Redirect,
            (_, code) => panic!("{name} returned {code}"),
        };
        out.truncate(result.data_size_out as usize);
        (kind, out, result.duration)
    }

    /// Makes what affinity knows older: the kernel's clock cannot be moved.
    fn age_affinity(&mut self, ticks: u32) {
        age::<8>(&mut self.ebpf, maps::AFF4.name, ticks);
        age::<20>(&mut self.ebpf, maps::AFF6.name, ticks);
    }

    fn drops(&self, reason: Reason) -> u64 {
        let drops: PerCpuArray<_, u64> =
            PerCpuArray::try_from(self.ebpf.map(maps::DROPS.name).unwrap()).unwrap();
        drops.get(&(reason as u32), 0).unwrap().iter().sum()
    }

    /// Runs a case in one family; gives what differs.
    fn case(&mut self, case: &Case, six: bool) -> Vec<String> {
        world::furnish(self);
        let mut objects = Objects::default();
        let mut hook = Hook::Xdp;
        let mut talk = Talk::new(six);
        let mut came_out = None;
        let mut segment = 0;
        let mut wrong = Vec::new();
        for (line, step) in &case.steps {
            match step {
                Step::Service(text) => objects.service(text, six, self).unwrap(),
                Step::Gone(text) => objects.gone(text, six, self).unwrap(),
                Step::Later(ticks) => self.age_affinity(*ticks),
                Step::At(at) => hook = *at,
                Step::Note(_) => panic!("no notes in test runs: {}", case.name),
                Step::Segments(bytes) => segment = *bytes,
                Step::In(spec) => {
                    let quoted = talk.last_out().to_vec();
                    let went_in = talk.send(spec);
                    let before = Reason::ALL.map(|reason| self.drops(reason));
                    let (kind, bytes, _) = self.run(hook, &went_in, std::mem::take(&mut segment));
                    came_out = Some((kind, bytes, before, quoted));
                }
                Step::Out(verdict, spec, _) => {
                    let (kind, bytes, before, quoted) = came_out.take().unwrap();
                    let (note, bytes) = match verdict {
                        Verdict::HandOff(nexthop) => {
                            let note = HandOff { magic: HandOff::MAGIC, nexthop: *nexthop };
                            (bytes.starts_with(note.as_bytes()), bytes.get(8..).unwrap_or_default().to_vec())
                        }
                        _ => (true, bytes),
                    };
                    if !note {
                        wrong.push(format!("line {line}: not noted for tcx"));
                    }
                    let expected = talk.expected(spec.as_deref(), &quoted, &bytes);
                    talk.came(&bytes);
                    let wanted = wanted(*verdict, hook);
                    if kind != wanted {
                        wrong.push(format!("line {line}: {kind:?} instead of {wanted:?}"));
                    } else if let Verdict::Drop(reason) = verdict {
                        if self.drops(*reason) != before[*reason as usize] + 1 {
                            wrong.push(format!("line {line}: not counted as {}", reason.as_str()));
                        }
                    } else if bytes != expected {
                        wrong.push(format!("line {line}:\n  came {bytes:02x?}\n  want {expected:02x?}"));
                    }
                }
            }
        }
        wrong
    }
}

fn clear_ranges<const BITS: usize>(ebpf: &mut Ebpf, name: &str)
where
    [u8; BITS]: aya::Pod,
{
    let mut map = LpmTrie::<_, [u8; BITS], u32>::try_from(ebpf.map_mut(name).unwrap()).unwrap();
    let keys: Vec<_> = map.keys().map(Result::unwrap).collect();
    keys.iter().for_each(|key| map.remove(key).unwrap());
}

fn age<const KEY: usize>(ebpf: &mut Ebpf, name: &str, ticks: u32)
where
    [u8; KEY]: aya::Pod,
{
    let mut map = HashMap::<_, [u8; KEY], [u8; 16]>::try_from(ebpf.map_mut(name).unwrap()).unwrap();
    let entries: Vec<_> = map.iter().map(Result::unwrap).collect();
    for (key, bytes) in entries {
        let mut entry = Affinity::read_from_bytes(&bytes).unwrap();
        entry.last_seen = entry.last_seen.wrapping_sub(ticks);
        map.insert(key, <[u8; 16]>::try_from(entry.as_bytes()).unwrap(), 0).unwrap();
    }
}

/// The kind of a verdict at a hook.
fn wanted(verdict: Verdict, hook: Hook) -> Kind {
    match (verdict, hook) {
        (Verdict::Pass | Verdict::HandOff(_), _) => Kind::Pass,
        (Verdict::Drop(_), _) => Kind::Drop,
        (Verdict::Transmit, Hook::Xdp) => Kind::Transmit,
        _ => Kind::Redirect,
    }
}

#[test]
fn golden_packets_in_the_kernel() {
    in_namespace(|path| {
        let mut failures = Vec::new();
        let cases = case::parse(CASES).unwrap();
        // Programs are verified once for each set of constants.
        let mut kernels: Vec<(Config, Kernel)> = Vec::new();
        for case in cases.iter().filter(|case| case.kernel) {
            let config = case.config();
            let known = kernels.iter().position(|(known, _)| *known == config);
            let known = known.unwrap_or_else(|| {
                kernels.push((config, Kernel::new(&path, &config)));
                kernels.len() - 1
            });
            let kernel = &mut kernels[known].1;
            for six in [false, true] {
                if if six { case.six } else { case.four } {
                    kernel.empty();
                    failures.extend(
                        kernel
                            .case(case, six)
                            .iter()
                            .map(|w| format!("{} (IPv{}): {w}", case.name, if six { 6 } else { 4 })),
                    );
                }
            }
        }
        assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
    });
}

/// Each feature set removes other code. Not all sets are tried: all, none, each alone, each missing.
#[test]
fn every_program_loads_with_every_feature() {
    in_namespace(|path| {
        let single = [
            features::IPV6,
            features::SPOOF_CHECK,
            features::PEER_NAME,
            features::XDP,
            features::MASQUERADE,
            features::METADATA,
            features::TUNNEL,
            features::FLOWS_BOTH,
        ];
        let all = single.iter().fold(0, |all, bit| all | bit);
        let growing = [features::FLOWS_BOTH | features::FLOWS_NEXT, all | features::FLOWS_NEXT];
        let sets = single.iter().flat_map(|bit| [*bit, all & !bit]).chain([0, all]).chain(growing);
        for bits in sets {
            let mut ebpf = load(&path, &Config { features: bits, netns_cookie: 1, ..world::config() });
            for program in PROGRAMS {
                load_program(&mut ebpf, program)
                    .unwrap_or_else(|e| panic!("{} with features {bits:#b}: {e:?}", program.name));
            }
        }
    });
}

fn load_program(ebpf: &mut Ebpf, program: &ProgramSpec) -> Result<(), ProgramError> {
    let handle = ebpf.program_mut(program.name).unwrap();
    match program.hook {
        Attach::SockAddr => <&mut CgroupSockAddr>::try_from(handle).unwrap().load(),
        Attach::Sock => <&mut CgroupSock>::try_from(handle).unwrap().load(),
        Attach::Xdp | Attach::XdpGeneric => <&mut Xdp>::try_from(handle).unwrap().load(),
        _ => <&mut SchedClassifier>::try_from(handle).unwrap().load(),
    }
}

/// What verifying each program took when it was last looked at; the first line names the kernel.
const VERIFIED: &str = include_str!("../verifier.txt");

/// The verifier gives up at a million instructions, and all state that it walks is time at start. A program that has grown by more
/// than a tenth is either to be made smaller or to be recorded anew, knowingly. Other kernels count otherwise.
#[test]
fn verifying_costs_what_is_recorded() {
    in_namespace(|path| {
        // Without XDP the uplink's tcx program has the most to do.
        let most = world::config().features | features::METADATA;
        let mut ebpf = load(&path, &Config { features: most, netns_cookie: 1, ..world::config() });
        let uname = rustix::system::uname();
        let kernel: Vec<&str> = uname.release().to_str().unwrap().split('.').take(2).collect();
        let (mut now, mut grown) = (format!("kernel {}\n", kernel.join(".")), Vec::new());
        for program in PROGRAMS {
            load_program(&mut ebpf, program).unwrap();
            let info = ebpf.program(program.name).unwrap().info().unwrap();
            let count = info.verified_instruction_count().unwrap();
            now.push_str(&format!("{} {count}\n", program.name));
            let recorded =
                VERIFIED.lines().find_map(|line| line.strip_prefix(program.name)?.trim().parse().ok());
            let recorded: u32 = recorded.unwrap_or_default();
            if count > recorded + recorded / 10 {
                grown.push(format!("{}: {count} instructions instead of {recorded}", program.name));
            }
        }
        println!("{now}");
        if VERIFIED.lines().next() != now.lines().next() {
            println!("skipped: verifier.txt is of another kernel");
            return;
        }
        assert!(grown.is_empty(), "{}\nverifier.txt would be:\n{now}", grown.join("\n"));
    });
}

/// What is timed: name, hook, service, packets. The last packet is the one whose runs are reported.
const TIMED: [(&str, Hook, &str, &[&str]); 7] = [
    (
        "xdp, not ours",
        Hook::Xdp,
        NODE_PORT,
        &["client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:45000 A +50"],
    ),
    (
        "xdp, node port to a remote backend, known flow",
        Hook::Xdp,
        NODE_PORT,
        &[
            "client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 S",
            "node2>uplink 64 tcp 10.244.2.9:8080>172.30.0.11:1024 SA",
            "client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 A +50",
        ],
    ),
    (
        "xdp, reply of a remote backend",
        Hook::Xdp,
        NODE_PORT,
        &[
            "client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 S",
            "node2>uplink 64 tcp 10.244.2.9:8080>172.30.0.11:1024 SA",
        ],
    ),
    (
        "tcx, pod to pod on the node",
        Hook::PodIn(5),
        NODE_PORT,
        &["pod5>host5 64 tcp 10.244.1.5:40000>10.244.1.6:80 A +50"],
    ),
    (
        "tcx, pod to pod of another node",
        Hook::PodIn(5),
        NODE_PORT,
        &["pod5>host5 64 tcp 10.244.1.5:40000>10.244.2.9:80 A +50"],
    ),
    (
        "tcx, from another node to a pod",
        Hook::UpIn,
        NODE_PORT,
        &["node2>uplink 64 tcp 10.244.2.9:80>10.244.1.5:40000 A +50"],
    ),
    (
        "tcx, cluster IP, flow not yet answered",
        Hook::PodIn(5),
        "10.96.0.10:80/tcp -> 10.244.1.6:8080",
        &[
            "pod5>host5 64 tcp 10.244.1.5:40000>10.96.0.10:80 S",
            "pod5>host5 64 tcp 10.244.1.5:40000>10.96.0.10:80 A +50",
        ],
    ),
];
const NODE_PORT: &str = "node:30080/tcp -> 10.244.2.9:8080";

/// Not a benchmark of the product (that is `perf`): what one run of a program takes on warm tables, the kernel's timer and the
/// system call's cold start included, so that a change of the stages shows.
/// `cargo test -p golden --test kernel -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn time_of_a_run() {
    in_namespace(|path| {
        for six in [false, true] {
            for (name, hook, service, packets) in TIMED {
                let mut kernel = Kernel::new(&path, &world::config());
                world::furnish(&mut kernel);
                Objects::default().service(service, six, &mut kernel).unwrap();
                let mut times = Vec::new();
                for line in packets {
                    let spec = Spec::parse(line).unwrap();
                    let packet = if six { spec.to_v6() } else { spec }.build(&[]);
                    times = (0..20_000).map(|_| kernel.run(hook, &packet, 0).2.as_nanos()).collect();
                }
                times.sort_unstable();
                println!("IPv{} {name}: median {} ns", if six { 6 } else { 4 }, times[times.len() / 2]);
            }
        }
    });
}
