//! Every case runs, for some thousand runs: whether it measures what it says, not how long it takes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use super::*;

/// The object, or why there is none to test.
fn object() -> Result<PathBuf, &'static str> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root");
    }
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/beeline.o");
    let path = std::env::var_os("BEELINE_BPF_OBJECT").map_or(built, PathBuf::from);
    if path.exists() { Ok(path) } else { Err("needs target/bpf/beeline.o (cargo xtask build)") }
}

#[test]
fn every_case_is_measured() {
    let path = match object() {
        Ok(path) => path,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    let mut names = Vec::new();
    let failed = measure(&Some(path), true, None, &mut |outcome| {
        assert!(outcome.detail["gross_ns"].as_f64() > Some(0.0), "{outcome:?}");
        names.push(outcome.test);
        Ok(())
    })
    .unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(names.len(), count());
}

#[test]
fn the_difference_is_taken_pair_by_pair() {
    let estimate = difference(&[110.0, 210.0, 310.0], &[10.0, 110.0, 210.0]);
    assert!((estimate.value - 100.0).abs() < 1e-9);
    assert!((estimate.interval[1] - 100.0).abs() < 1e-9, "what both share does not widen it");
}

#[test]
fn a_case_that_fails_keeps_its_row_and_the_others_run() {
    let mut rows = Vec::new();
    let failed = measure(&Some(PathBuf::from("/no/object")), true, Some("connect4"), &mut |outcome| {
        rows.push(outcome);
        Ok(())
    })
    .unwrap();
    assert_eq!((failed.len(), rows.len()), (2, 2), "{failed:?}");
    assert!(rows.iter().all(|row| row.skipped.is_some()), "{rows:?}");
}
