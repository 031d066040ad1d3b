//! `cargo xtask fuzz`: builds the fuzzer of the data path's stages with coverage counters and runs it for a while.
//!
//! What it finds stays in `target/fuzz/findings`; a finding that is mended goes to `agent-ebpf/fuzz/findings`, which the tests play.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{setup, shell, tree};

/// Coverage as libFuzzer reads it, and the checks that a release build leaves out. One unit, so that counters are not merged away.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions=on",
    "-Coverflow-checks=on",
    "-Ccodegen-units=1",
];

/// The longest input: longer ones repeat themselves.
const MAX_INPUT: usize = 4096;

/// Builds and runs it for `seconds`, in one process at the lowest priority. A finding is an error.
pub(crate) fn run(seconds: u32) -> Result<()> {
    setup::ensure()?;
    let [corpus, seeds, findings] = ["corpus", "seeds", "findings"].map(directory);
    for directory in [&corpus, &seeds, &findings] {
        std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    shell::run(cargo("run").args(["--bin", "seeds", "--"]).arg(&seeds))?;
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    // A target of its own keeps the flags from build scripts.
    let mut build = cargo("build");
    build.args(["--release", "--bin", "hooks", "--features", "libfuzzer", "--target", &host]);
    build.arg("--target-dir").arg(directory("build"));
    shell::run(build.env("RUSTFLAGS", FLAGS.join(" ")).env("CARGO_PROFILE_RELEASE_LTO", "off"))?;
    let mut fuzzer = Command::new("nice");
    fuzzer.args(["-n", "19"]).arg(directory("build").join(host).join("release/hooks"));
    fuzzer.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={MAX_INPUT}"));
    fuzzer.args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"]);
    fuzzer.arg(format!("-artifact_prefix={}/", findings.display())).arg(&corpus).arg(&seeds);
    shell::run(&mut fuzzer).with_context(|| format!("a finding lies in {}", findings.display()))?;
    println!("fuzz: {seconds} s without a finding");
    Ok(())
}

fn directory(name: &str) -> PathBuf {
    tree::target().join("fuzz").join(name)
}

fn cargo(verb: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(tree::root()).args([verb, "--quiet", "--locked", "--package", "fuzz"]);
    cargo
}
