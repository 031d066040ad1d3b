//! `cargo xtask build`: the eBPF object, the two binaries, the benchmark and the programs of the example images.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::flags::Profile;
use crate::{setup, shell, tree};

/// The BPF target of this machine's byte order.
const BPF_TARGET: &str =
    if cfg!(target_endian = "little") { "bpfel-unknown-none" } else { "bpfeb-unknown-none" };

/// Builds everything a cluster runs.
pub(crate) fn run(profile: Profile) -> Result<()> {
    setup::ensure()?;
    bpf_object()?;
    programs(profile)?;
    echo()
}

/// Builds the eBPF object and puts it where `agent/datapath` embeds it from.
pub(crate) fn bpf_object() -> Result<()> {
    let mut build = cargo();
    // A stable compiler builds `core` for the BPF target only with the bootstrap switch.
    build.env("RUSTC_BOOTSTRAP", "1").args(["--profile", "bpf", "--package", "agent-ebpf"]);
    shell::run(build.args(["--target", BPF_TARGET, "-Zbuild-std=core"]))?;
    let built = tree::target().join(BPF_TARGET).join("bpf/agent-ebpf");
    copy_if_changed(&built, &tree::bpf_object())
}

/// Builds everything a cluster runs, and every test, with one choice of features: what cargo builds for programs alone
/// would be built a second time for tests.
pub(crate) fn with_tests() -> Result<()> {
    setup::ensure()?;
    // The agent's crates embed the object: it is built before anything that depends on them.
    bpf_object()?;
    shell::run(cargo().args(["--workspace", "--bins", "--tests"]))?;
    echo()
}

/// Builds what measures, and what it measures against.
pub(crate) fn benchmark() -> Result<()> {
    setup::ensure()?;
    bpf_object()?;
    shell::run(cargo().args(["--release", "--package", "perf"]))?;
    echo()
}

fn programs(profile: Profile) -> Result<()> {
    let mut build = cargo();
    build.args(["--package", "beeline-control", "--package", "beeline-agent", "--package", "perf"]);
    if profile == Profile::Release {
        build.arg("--release");
    }
    shell::run(&mut build)
}

fn echo() -> Result<()> {
    let target = tree::static_target();
    shell::run(cargo().args(["--release", "--package", "echo", "--target", &target]))
}

fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(tree::root()).args(["build", "--quiet", "--locked"]);
    cargo
}

/// Copies unless the bytes are the same: an unchanged object must not make the agent build again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = std::fs::read(from).with_context(|| format!("read {}", from.display()))?;
    if std::fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(directory) = to.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(to, bytes).with_context(|| format!("write {}", to.display()))
}
