//! Programs and tables in the kernel, in a network namespace of their own: loaded from the object, filled in golden's
//! words, run by BPF_PROG_TEST_RUN.

use std::path::Path;
use std::process::Command;
use std::thread;

use abi::config::CONFIG_GLOBAL;
use abi::maps::{self, MapKind, MapSpec};
use anyhow::{Context, Result, anyhow, bail, ensure};
use aya::maps::{Array, HashMap, MapData, ProgramArray};
use aya::programs::{ProgramFd, SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use golden::case::{self, Hook, Step, Talk};
use golden::objects::Objects;
use golden::world::{self, Sink};
use rustix::thread::{CpuSet, UnshareFlags, sched_setaffinity};
use zerocopy::IntoBytes;

use super::{Case, Plan, Seen, difference};
use crate::bpf::generator;
use crate::bpf::object::{self, Map};

/// Entries of each flow table: small enough to be full soon.
const FLOW_ENTRIES: u32 = 65_536;
/// Entries of other big tables.
const ENTRIES: u32 = 256;
/// Programs are asked to run at most so often in one call, so that a signal is answered.
const LONGEST: u32 = 100_000;

/// Runs `work` on a thread with a network namespace of its own that holds the world's devices, on one CPU.
pub(crate) fn in_namespace<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let prepared = || {
        leave_network().context("make a network namespace (this needs root)")?;
        let mut first = CpuSet::new();
        first.set(0);
        sched_setaffinity(None, &first).context("stay on one CPU")?;
        for index in world::PODS {
            let (name, peer) = (format!("perf{index}"), format!("perfp{index}"));
            let index = index.to_string();
            let link = ["link", "add", &name, "index", &index, "type", "veth", "peer", "name", &peer];
            ensure!(Command::new("ip").args(link).status()?.success(), "ip {} failed", link.join(" "));
        }
        work()
    };
    thread::scope(|scope| scope.spawn(prepared).join())
        .map_err(|_| anyhow!("the measuring thread panicked"))?
}

#[expect(
    deprecated,
    reason = "its unsafe successor is for flags that split file descriptors; this one does not"
)]
fn leave_network() -> rustix::io::Result<()> {
    rustix::thread::unshare(UnshareFlags::NEWNET)
}

/// The size of a table that is made smaller. Arrays of flows, and of rotors, have sizes that the programs know.
fn small(map: &MapSpec) -> Option<u32> {
    let lru = map.kind == MapKind::LruHash;
    match map.name.contains("flow") {
        _ if map.entries <= ENTRIES as usize || map.name == maps::ROTOR.name => None,
        true => lru.then_some(FLOW_ENTRIES),
        false => Some(ENTRIES),
    }
}

/// Beeline's programs with small tables.
pub(crate) struct Tables {
    pub(crate) ebpf: Ebpf,
    problems: Vec<String>,
}

impl Tables {
    /// Loads the object at `path` with these features of `abi::config`.
    pub(crate) fn load(path: &Path, features: u32) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        for map in maps::MAPS {
            if let Some(entries) = small(map) {
                loader.map_max_entries(map.name, entries);
            }
        }
        let config = abi::Config { features, ..world::config() };
        let ebpf = loader
            .override_global(CONFIG_GLOBAL, config.as_bytes(), true)
            .load_file(path)
            .with_context(|| format!("load {}", path.display()))?;
        Ok(Self { ebpf, problems: Vec::new() })
    }

    /// Whether every entry could be written.
    pub(crate) fn check(&mut self) -> Result<()> {
        let problems = std::mem::take(&mut self.problems);
        ensure!(problems.is_empty(), "{}", problems.join("; "));
        Ok(())
    }
}

/// Writes one entry by the sizes of its map.
macro_rules! put {
    ($map:ident, $spec:ident, $key:ident, $value:ident, arrays: [$($array:literal),*], hashes: [$(($k:literal, $v:literal)),*]) => {
        match ($spec.kind, $spec.key_size, $spec.value_size) {
            $((MapKind::MappedArray, 4, $array) => {
                let index = u32::from_ne_bytes($key.try_into()?);
                Array::<_, [u8; $array]>::try_from($map)?.set(index, <[u8; $array]>::try_from($value)?, 0)?;
            })*
            $((MapKind::Hash, $k, $v) => {
                let (key, value) = (<[u8; $k]>::try_from($key)?, <[u8; $v]>::try_from($value)?);
                HashMap::<_, [u8; $k], [u8; $v]>::try_from($map)?.insert(key, value, 0)?;
            })*
            other => bail!("a map of {other:?} is not known here"),
        }
    };
}

fn put(ebpf: &mut Ebpf, name: &str, key: &[u8], value: &[u8]) -> Result<()> {
    let spec = maps::MAPS.iter().find(|spec| spec.name == name).context("no such map in abi")?;
    let map = ebpf.map_mut(name).context("no such map in the object")?;
    put!(map, spec, key, value,
        arrays: [4, 8, 16, 32, 64, 128, 8192],
        hashes: [(4, 4), (8, 8), (8, 4), (24, 8), (4, 16), (16, 16), (16, 4), (16, 8)]);
    Ok(())
}

impl Sink for Tables {
    fn put(&mut self, map: &'static str, key: &[u8], value: &[u8]) {
        if let Err(error) = put(&mut self.ebpf, map, key, value) {
            self.problems.push(format!("map {map}: {error}"));
        }
    }
}

/// One case, ready to be timed.
pub(crate) struct Bench {
    tables: Tables,
    case: &'static Case,
    hook: Hook,
    packet: Vec<u8>,
}

/// The program at a hook, as the object names it.
fn program(hook: Hook) -> Result<&'static str> {
    Ok(match hook {
        Hook::Xdp => "xdp_ns",
        Hook::PodIn(_) => "tcx_pod_in",
        Hook::UpIn => "tcx_up_in",
        other => bail!("{other:?} is not timed"),
    })
}

impl Bench {
    /// Loads the programs, fills the tables and lets the packets go by that come before the timed one.
    pub(crate) fn new(path: &Path, case: &'static Case) -> Result<Self> {
        let mut tables = Tables::load(path, world::config().features | abi::config::features::XDP)?;
        world::furnish(&mut tables);
        let parsed =
            case::parse(&format!("== {}\n{}", case.name, case.text)).map_err(|error| anyhow!(error))?;
        let mut bench = Self { tables, case, hook: Hook::Xdp, packet: Vec::new() };
        let (mut objects, mut talk) = (Objects::default(), Talk::new(case.six));
        for (_, step) in &parsed.first().context("no case")?.steps {
            match step {
                Step::Service(text) => {
                    objects.service(text, case.six, &mut bench.tables).map_err(|error| anyhow!(error))?;
                }
                Step::At(hook) => bench.go_to(*hook)?,
                Step::In(spec) => {
                    bench.packet = talk.send(spec);
                    let packet = bench.packet.clone();
                    bench.run_once(&packet)?;
                }
                other => bail!("{other:?} is no step of a timed case"),
            }
        }
        bench.tables.check()?;
        let verdict = bench.run_once(&bench.packet.clone())?;
        ensure!(verdict == case.verdict, "the program returns {verdict}, and {} was meant", case.verdict);
        Ok(bench)
    }

    /// Loads the program at a hook, if no packet has been there.
    fn go_to(&mut self, hook: Hook) -> Result<()> {
        self.hook = hook;
        let name = program(hook)?;
        let program = self.tables.ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
        if program.fd().is_ok() {
            return Ok(());
        }
        match hook {
            Hook::Xdp => <&mut Xdp>::try_from(program)?.load(),
            _ => <&mut SchedClassifier>::try_from(program)?.load(),
        }
        .with_context(|| format!("load {name}"))
    }

    /// `struct __sk_buff` of the hook's interface, or nothing for XDP.
    fn context(&self) -> Option<[u32; 48]> {
        let mut skb = [0; 48];
        // Its eleventh word.
        skb[10] = match self.hook {
            Hook::PodIn(index) => index,
            Hook::Xdp => return None,
            _ => world::UPLINK,
        };
        Some(skb)
    }

    fn run_once(&self, packet: &[u8]) -> Result<u32> {
        let mut out = vec![0; 4096];
        let context = self.context();
        let mut options =
            TestRunOptions { data_in: Some(packet), data_out: Some(&mut out), ..TestRunOptions::new() };
        options.ctx_in = context.as_ref().map(IntoBytes::as_bytes);
        let program = self.tables.ebpf.program(program(self.hook)?).context("the program")?;
        let result = match self.hook {
            Hook::Xdp => <&Xdp>::try_from(program)?.test_run(options),
            _ => <&SchedClassifier>::try_from(program)?.test_run(options),
        };
        Ok(result?.return_value)
    }

    fn fd(&self) -> Result<ProgramFd> {
        let program = self.tables.ebpf.program(program(self.hook)?).context("the program")?;
        Ok(match self.hook {
            Hook::Xdp => <&Xdp>::try_from(program)?.fd()?.try_clone()?,
            _ => <&SchedClassifier>::try_from(program)?.fd()?.try_clone()?,
        })
    }

    /// Times it.
    pub(crate) fn measure(&self, plan: &Plan) -> Result<Seen> {
        let kind = if self.hook == Hook::Xdp { object::Hook::XdpFragments } else { object::Hook::Tc };
        let nothing = Loaded::new("nothing", kind, &generator::nothing(kind), &[])?;
        let wrap = |called: &ProgramFd| -> Result<(Loaded, ProgramArray<MapData>)> {
            let wrapper = generator::restore_and_call(kind, &self.packet, self.case.vary);
            let map = Map {
                name: generator::CALLED,
                kind: object::MapKind::ProgramArray,
                value_size: 4,
                entries: 1,
            };
            let mut loaded = Loaded::new("wrapper", kind, &wrapper, &[map])?;
            let map = loaded.ebpf.take_map(generator::CALLED).context("the wrapper's map")?;
            // The array empties itself when nobody holds it: it is given back, to live as long as the wrapper.
            let mut array = ProgramArray::try_from(map)?;
            array.set(0, called, 0).context("point the wrapper to its program")?;
            Ok((loaded, array))
        };
        let (empty, _empty_array) = wrap(&nothing.fd()?)?;
        let (full, _full_array) = wrap(&self.fd()?)?;
        let run = |wrapper: &Loaded, repeat: u32| self.slice(wrapper, repeat);
        run(&full, plan.warm_up)?;
        run(&empty, plan.repeat)?;
        let (mut gross, mut loops) = (Vec::new(), Vec::new());
        for _ in 0..plan.pairs {
            let first = run(&empty, plan.repeat)?;
            gross.push(f64::midpoint(run(&full, plan.repeat)?, run(&full, plan.repeat)?));
            loops.push(f64::midpoint(first, run(&empty, plan.repeat)?));
        }
        Ok(Seen {
            net: difference(&gross, &loops),
            gross_ns: crate::statistics::mean(&gross).value,
            loop_ns: crate::statistics::mean(&loops).value,
            runs: u64::from(plan.repeat) * plan.pairs as u64 * 2,
            method: "BPF_PROG_TEST_RUN",
        })
    }

    /// The mean time of a run, in nanoseconds.
    fn slice(&self, wrapper: &Loaded, repeat: u32) -> Result<f64> {
        let context = self.context();
        let (mut done, mut time) = (0, 0.0);
        while done < repeat {
            let part = (repeat - done).min(LONGEST);
            let mut options =
                TestRunOptions { data_in: Some(&self.packet), repeat: part, ..TestRunOptions::new() };
            options.ctx_in = context.as_ref().map(IntoBytes::as_bytes);
            time += wrapper.run(options)? * f64::from(part);
            done += part;
        }
        Ok(time / f64::from(repeat))
    }
}

/// An assembled program in the kernel.
pub(crate) struct Loaded {
    pub(crate) ebpf: Ebpf,
    name: &'static str,
    kind: object::Hook,
}

impl Loaded {
    pub(crate) fn new(
        name: &'static str,
        kind: object::Hook,
        program: &crate::bpf::assemble::Program,
        maps: &[Map],
    ) -> Result<Self> {
        let bytes = object::write(name, kind, program, maps)?;
        let mut ebpf =
            EbpfLoader::new().load(&bytes).with_context(|| format!("read the object of {name}"))?;
        let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
        match kind {
            object::Hook::Tc => <&mut SchedClassifier>::try_from(program)?.load(),
            _ => <&mut Xdp>::try_from(program)?.load(),
        }
        .with_context(|| format!("load {name}"))?;
        Ok(Self { ebpf, name, kind })
    }

    pub(crate) fn fd(&self) -> Result<ProgramFd> {
        let program = self.ebpf.program(self.name).context(self.name)?;
        Ok(match self.kind {
            object::Hook::Tc => <&SchedClassifier>::try_from(program)?.fd()?.try_clone()?,
            _ => <&Xdp>::try_from(program)?.fd()?.try_clone()?,
        })
    }

    /// Runs it; nanoseconds a run, as the kernel says (whole ones).
    pub(crate) fn run(&self, options: TestRunOptions<'_>) -> Result<f64> {
        let program = self.ebpf.program(self.name).context(self.name)?;
        let result = match self.kind {
            object::Hook::Tc => <&SchedClassifier>::try_from(program)?.test_run(options),
            _ => <&Xdp>::try_from(program)?.test_run(options),
        };
        Ok(result.with_context(|| format!("run {}", self.name))?.duration.as_nanos() as f64)
    }
}
