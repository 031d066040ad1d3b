//! The connect hook, by the kernel's own run-time statistics: there is no BPF_PROG_TEST_RUN for it. Real connects are
//! made in a namespace where nobody listens, from a cgroup of their own.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use abi::config::features;
use anyhow::{Context, Result, anyhow, ensure};
use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use aya::sys::Stats;
use golden::objects::Objects;
use golden::world;

use super::Seen;
use super::kernel::Tables;
use crate::statistics;

/// A case.
pub(crate) struct Case {
    /// A sentence.
    pub(crate) name: &'static str,
    six: bool,
    /// The address that getpeername gives is remembered.
    peer_name: bool,
}

/// All of them.
pub(crate) const CASES: &[Case] = &[
    Case { name: "connect4 to a ClusterIP", six: false, peer_name: false },
    Case { name: "connect4 to a ClusterIP, with the address for getpeername", six: false, peer_name: true },
    Case { name: "connect6 to a ClusterIP, with the address for getpeername", six: true, peer_name: true },
];

/// A cgroup that this process is in while it lives.
struct Cgroup {
    path: PathBuf,
    before: PathBuf,
}

impl Cgroup {
    fn enter() -> Result<Self> {
        let root = unified()?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own =
            own.lines().find_map(|line| line.strip_prefix("0::")).context("no line of cgroup v2")?.to_owned();
        let path = root.join(format!("perf-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        let cgroup = Self { path, before: root.join(own.trim_start_matches('/')) };
        cgroup.move_to(&cgroup.path)?;
        Ok(cgroup)
    }

    fn move_to(&self, group: &Path) -> Result<()> {
        fs::write(group.join("cgroup.procs"), std::process::id().to_string())
            .with_context(|| format!("enter {}", group.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = self.move_to(&self.before).and_then(|()| Ok(fs::remove_dir(&self.path)?)) {
            eprintln!("perf: {} is left behind: {error:#}", self.path.display());
        }
    }
}

/// The mount of cgroup v2.
pub(crate) fn unified() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut words = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = words.find(|words| words.get(2) == Some(&"cgroup2")).context("cgroup v2 is not mounted")?;
    Ok(PathBuf::from(mount[1]))
}

/// Times a case.
pub(crate) fn measure(path: &Path, case: &Case, quick: bool) -> Result<Seen> {
    let feature = if case.peer_name { features::PEER_NAME } else { 0 };
    let mut tables = Tables::load(path, (world::config().features & !features::PEER_NAME) | feature)?;
    world::furnish(&mut tables);
    Objects::default()
        .service("10.96.0.10:80/tcp -> 10.244.2.9:8080", case.six, &mut tables)
        .map_err(|error| anyhow!(error))?;
    tables.check()?;
    let name = if case.six { "cg_connect6" } else { "cg_connect4" };
    // Where the connections are led to refuses them at once.
    for arguments in [
        ["link", "set", "lo", "up"].as_slice(),
        &["route", "add", "local", "10.244.0.0/16", "dev", "lo"],
        &["-6", "route", "add", "local", "fd00:10:244::/56", "dev", "lo"],
    ] {
        ensure!(Command::new("ip").args(arguments).status()?.success(), "ip {} failed", arguments.join(" "));
    }
    let cgroup = Cgroup::enter()?;
    let program: &mut CgroupSockAddr = tables.ebpf.program_mut(name).context(name)?.try_into()?;
    program.load().with_context(|| format!("load {name}"))?;
    program
        .attach(File::open(&cgroup.path)?, CgroupAttachMode::Single)
        .with_context(|| format!("attach {name}"))?;
    let _statistics = aya::sys::enable_stats(Stats::RunTime).context("turn on run-time statistics")?;
    let target = if case.six { "[fd00:10:96::a]:80" } else { "10.96.0.10:80" };
    let (slices, connects) = if quick { (3, 50) } else { (20, 2000) };
    let times: Vec<f64> =
        (0..=slices).map(|_| slice(&tables, name, target, connects)).collect::<Result<_>>()?;
    let net = statistics::mean(&times[1..]);
    Ok(Seen {
        net,
        gross_ns: net.value,
        loop_ns: 0.0,
        runs: slices * connects,
        method: "run-time statistics; about 60 ns of it are theirs",
    })
}

/// The mean time of a run of the hook over some connects, in nanoseconds.
fn slice(tables: &Tables, name: &str, target: &str, connects: u64) -> Result<f64> {
    let seen = || anyhow::Ok(tables.ebpf.program(name).context("the program")?.info()?);
    let before = seen()?;
    for _ in 0..connects {
        // Nobody listens at the backend: the hook has done its work when the connection is refused.
        match TcpStream::connect(target) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            other => anyhow::bail!("connect to {target}: {other:?}"),
        }
    }
    let after = seen()?;
    let runs = after.run_count() - before.run_count();
    ensure!(runs == connects, "{connects} connects made {runs} runs of the hook");
    Ok((after.run_time() - before.run_time()).as_nanos() as f64 / runs as f64)
}
