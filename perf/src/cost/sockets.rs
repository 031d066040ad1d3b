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
use crate::cgroup;
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

/// A group of our own; it is removed when it goes out of scope.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("perf: {} is left behind: {error}", self.0.display());
        }
    }
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
    let group = Group(cgroup::unified()?.join(format!("perf-{}", std::process::id())));
    fs::create_dir_all(&group.0).with_context(|| format!("make {}", group.0.display()))?;
    let _entered = cgroup::Entered::new(&group.0)?;
    let program: &mut CgroupSockAddr = tables.ebpf.program_mut(name).context(name)?.try_into()?;
    program.load().with_context(|| format!("load {name}"))?;
    program
        .attach(File::open(&group.0)?, CgroupAttachMode::Single)
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
