//! The programs: loaded from the object against the pinned maps. What is attached where is not decided here.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use abi::config::Config;
use abi::maps::MAPS;
use abi::programs::{Hook, PROGRAMS, ProgramSpec};
use aya::programs::{Program, ProgramError, ProgramFd};
use aya::{Ebpf, EbpfError, EbpfLoader};

use crate::links::XdpMode;
use crate::object;
use crate::pins::{self, Pins};
use crate::sys::Wire;

/// Why programs could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// The binary was built without the programs.
    #[error(
        "this build carries no BPF object (build it with `cargo xtask build`, or set BEELINE_BPF_OBJECT)"
    )]
    NoObject,
    /// The object or its maps were refused.
    #[error("loading the BPF object: {0}")]
    Object(#[from] EbpfError),
    /// A program was refused, with the verifier's log.
    #[error("loading program {name}: {source}")]
    Load {
        /// Name.
        name: &'static str,
        /// aya's error.
        source: ProgramError,
    },
    /// The object lacks a program.
    #[error("the BPF object has no program {0}")]
    Missing(&'static str),
    /// A map that no program of the object uses could not be made.
    #[error("making map {name}: {source}")]
    Map {
        /// Name.
        name: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A program that is not there although the table of programs has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    /// Program.
    pub program: &'static str,
    /// Why.
    pub reason: String,
}

/// Loaded programs: their descriptors. The object they came from is not kept, it would hold megabytes.
#[derive(Debug, Default)]
pub struct Programs {
    loaded: HashMap<&'static str, OwnedFd>,
    /// What the object or the kernel does not have.
    pub absent: Vec<Absent>,
}

/// What a load needs to know of the tables.
#[derive(Debug, Clone)]
pub struct Tables<'a> {
    /// Where they are pinned.
    pub pins: &'a Pins,
    /// Sizes of new ones that differ from `abi::limits`.
    pub entries: BTreeMap<&'static str, u32>,
    /// Whether the flow tables grow: the next ones are pinned, too.
    pub growing: bool,
}

impl Programs {
    /// Loads the programs that `wanted` picks, with `config` in their constants. Maps that are not pinned yet are made.
    pub fn load(
        tables: &Tables<'_>,
        config: &Config,
        wanted: impl Fn(&ProgramSpec) -> bool,
    ) -> Result<Self, ProgramsError> {
        let bytes = object::embedded().ok_or(ProgramsError::NoObject)?;
        let mut loader = EbpfLoader::new();
        for map in MAPS.iter().filter(|map| tables.growing || !pins::is_next(map)) {
            loader.map_pin_path(map.name, tables.pins.path(map));
        }
        for (name, entries) in &tables.entries {
            loader.map_max_entries(name, *entries);
        }
        let config = Wire(*config);
        loader.override_global(abi::config::CONFIG_GLOBAL, &config, true);
        let mut object = loader.load(bytes)?;
        // The agent has its tables even if the object does without one.
        tables
            .pins
            .make_missing(&tables.entries)
            .map_err(|(name, source)| ProgramsError::Map { name, source })?;
        let mut programs = Self::default();
        for (spec, loaded) in load_all(&mut object, wanted) {
            match loaded {
                Ok(program) => drop(programs.loaded.insert(spec.name, program)),
                Err(error) if is_optional(spec) || matches!(error, ProgramsError::Missing(_)) => {
                    tracing::warn!(%error, "without it: no {}", spec.does);
                    programs.absent.push(Absent { program: spec.name, reason: error.to_string() });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(programs)
    }

    /// The program that runs as XDP in a mode. Generic mode has one of its own, or else that of native mode.
    pub fn xdp(&self, mode: XdpMode) -> Option<(&'static ProgramSpec, BorrowedFd<'_>)> {
        let of = |hook: Hook| {
            let mut specs = PROGRAMS.iter().filter(move |spec| spec.hook == hook);
            specs.find_map(|spec| Some((spec, self.get(spec)?)))
        };
        match mode {
            XdpMode::Native => of(Hook::Xdp),
            XdpMode::Generic => of(Hook::XdpGeneric).or_else(|| of(Hook::Xdp)),
        }
    }

    /// A program's descriptor.
    pub fn get(&self, spec: &ProgramSpec) -> Option<BorrowedFd<'_>> {
        self.loaded.get(spec.name).map(AsFd::as_fd)
    }
}

/// Whether a node serves without the program: XDP's work falls to tcx, nodes on the segment need no tunnel, and nothing keeps processes
/// off node ports. (Without `cg_sock_release`, what sockets have in the tables would never be freed.)
fn is_optional(spec: &ProgramSpec) -> bool {
    match spec.hook {
        Hook::Xdp | Hook::XdpGeneric | Hook::TunnelIngress => true,
        Hook::Sock => spec.name != "cg_sock_release",
        _ => false,
    }
}

/// A program and what became of it.
type Outcome = (&'static ProgramSpec, Result<OwnedFd, ProgramsError>);

/// Loads programs into the kernel, several at a time: nearly all of it is the verifier's work, which uses one CPU a program.
fn load_all(object: &mut Ebpf, wanted: impl Fn(&ProgramSpec) -> bool) -> Vec<Outcome> {
    let mut found: HashMap<String, &mut Program> =
        object.programs_mut().map(|(name, program)| (name.to_owned(), program)).collect();
    let waiting: Vec<_> =
        PROGRAMS.iter().filter(|spec| wanted(spec)).map(|spec| (spec, found.remove(spec.name))).collect();
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(waiting.len().max(1));
    let waiting = Mutex::new(waiting.into_iter());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        std::iter::from_fn(&next)
            .map(|(spec, program)| {
                let missing = ProgramsError::Missing(spec.name);
                (spec, program.map_or(Err(missing), |program| load_one(program, spec.name)))
            })
            .collect::<Vec<Outcome>>()
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
        let mut outcomes = work();
        for other in others {
            outcomes.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        outcomes
    })
}

/// Loads one program into the kernel.
fn load_one(program: &mut Program, name: &'static str) -> Result<OwnedFd, ProgramsError> {
    let failed = |source| ProgramsError::Load { name, source };
    let descriptor =
        |fd: Result<&ProgramFd, ProgramError>| fd.and_then(|fd| Ok(fd.as_fd().try_clone_to_owned()?));
    match program {
        Program::Xdp(program) => program.load().and_then(|()| descriptor(program.fd())),
        Program::SchedClassifier(program) => program.load().and_then(|()| descriptor(program.fd())),
        Program::CgroupSockAddr(program) => program.load().and_then(|()| descriptor(program.fd())),
        Program::CgroupSock(program) => program.load().and_then(|()| descriptor(program.fd())),
        _ => return Err(ProgramsError::Missing(name)),
    }
    .map_err(failed)
}
