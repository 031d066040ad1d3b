//! `cargo xtask bench`: builds what is measured with optimisation, runs `perf`'s suite on this machine, and writes its report.
//!
//! What is measured, and how, is `perf`'s affair; the agent's own figures on a whole cluster are [`scale`]'s.

mod process;
mod scale;

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::flags::{BenchArgs, BenchScale, Profile};
use crate::{build, shell, tree};

/// Runs the suite, or the part that was asked for.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    match &args.scale {
        Some(BenchScale::Scale { cases, no_build }) => scale::run(cases, *no_build),
        None => suite(args),
    }
}

fn suite(args: &BenchArgs) -> Result<()> {
    build::benchmark()?;
    let directory = args.out.clone().unwrap_or_else(|| tree::target().join("bench"));
    std::fs::create_dir_all(&directory)?;
    let results = directory.join("results.jsonl");
    let mut suite = perf("suite");
    suite.arg("--echo").arg(tree::echo()).arg("--object").arg(tree::bpf_object()).arg("--out").arg(&results);
    suite.args(args.quick.then_some("--quick")).args(&args.arguments);
    let measured = shell::run(&mut suite);
    // What was measured before it failed is worth reading, too.
    let written = report(&results, &directory);
    measured.and(written)
}

/// Writes the report of the suite, and of `perf control` if its results lie beside those.
fn report(results: &Path, directory: &Path) -> Result<()> {
    let (html, markdown) = (directory.join("report.html"), directory.join("report.md"));
    let control = directory.join("control.jsonl");
    let mut report = perf("report");
    report.arg(results).args(control.is_file().then_some(&control));
    report.arg("--html").arg(&html).arg("--markdown").arg(&markdown);
    shell::run(&mut report)?;
    println!("report: {} and {}", html.display(), markdown.display());
    Ok(())
}

fn perf(verb: &str) -> Command {
    let mut perf = Command::new(tree::program(Profile::Release, "perf"));
    perf.arg(verb);
    perf
}
