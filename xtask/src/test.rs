//! `cargo xtask test`: runs a group of tests and closes with the line `N passed, N failed`.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::flags::{Suite, TestArgs};
use crate::{build, scenarios, tree};

/// The crates whose tests put packets through the stages on the host and through the programs in the kernel.
const PACKET_TESTS: &[&str] = &["--package", "pipeline", "--package", "golden"];

/// How many tests passed and failed.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Count {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs the suite; the exit code is 1 when a test failed or none ran.
pub(crate) fn run(args: &TestArgs) -> Result<ExitCode> {
    if !args.no_build {
        build::with_tests()?;
    }
    let mut count = Count::default();
    if matches!(args.suite, Suite::Unit | Suite::All) {
        count += cargo_test(&["--workspace"])?;
    }
    if matches!(args.suite, Suite::Packets) {
        count += cargo_test(PACKET_TESTS)?;
    }
    if matches!(args.suite, Suite::Cluster | Suite::All) {
        count += scenarios::run(args)?;
    }
    println!("{} passed, {} failed", count.passed, count.failed);
    Ok(if count.failed == 0 && count.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs `cargo test ARGUMENTS`, showing its output and adding up its results. A crate that does not build counts as a
/// failed test.
fn cargo_test(arguments: &[&str]) -> Result<Count> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(tree::root()).args(["test", "--locked", "--no-fail-fast"]).args(arguments);
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("start cargo test")?;
    let output = child.stdout.take().context("cargo's output")?;
    let mut count = Count::default();
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some(result) = parse_result(&line) {
            count += result;
        }
        println!("{line}");
    }
    if !child.wait()?.success() && count.failed == 0 {
        count.failed += 1;
    }
    Ok(count)
}

/// Reads `test result: ok. 3 passed; 1 failed; ...`.
fn parse_result(line: &str) -> Option<Count> {
    let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let mut numbers = rest.split("; ").map(|part| part.split_once(' '));
    let mut next = |word: &str| match numbers.next()?? {
        (number, label) if label == word => number.parse().ok(),
        _ => None,
    };
    Some(Count { passed: next("passed")?, failed: next("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_cargo_test_are_read() {
        let line = "test result: FAILED. 12 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(parse_result(line), Some(Count { passed: 12, failed: 2 }));
        assert_eq!(parse_result("test api::x ... ok"), None);
    }
}
