//! The whole suite in seconds: every lane is made, every case runs for an instant. No figure is judged.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

/// `echo` as some build has left it, or why there is none.
fn built_echo() -> Result<PathBuf, &'static str> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root");
    }
    // .../debug/deps/perf-HASH: echo lies two up, or in the static target beside it.
    let own = std::env::current_exe().unwrap();
    let target = own.ancestors().nth(3).unwrap();
    let musl = format!("{}-unknown-linux-musl/release/echo", std::env::consts::ARCH);
    let places = [target.join("debug/echo"), target.join("release/echo"), target.join(musl)];
    places.into_iter().find(|path| path.is_file()).ok_or("needs echo (cargo build -p echo)")
}

#[test]
fn every_case_of_the_suite_runs() {
    let echo = match built_echo() {
        Ok(echo) => echo,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    let args = Suite {
        out: None,
        echo: Some(echo),
        object: Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/beeline.o")),
        quick: true,
        only: None,
        services: Vec::new(),
        force: false,
    };
    let mut results = Vec::new();
    run_into(&args, &mut |line| {
        if let Line::Result(outcome) = line {
            results.push(outcome);
        }
        Ok(())
    })
    .unwrap();
    for way in WAYS {
        for lane in ["conntrack", "iptables", "nftables", "haproxy", "beeline"] {
            let told = |outcome: &&Outcome| outcome.group == way.group && outcome.lane == lane;
            let rows: Vec<_> = results.iter().filter(told).collect();
            assert!(!rows.is_empty(), "{} has no row of {lane}", way.group);
            for row in rows {
                match &row.skipped {
                    Some(why) => println!("skipped: {}: {why}", row.name()),
                    None => assert!(row.estimate.value > 0.0, "{row:?}"),
                }
            }
        }
    }
}

#[test]
fn the_reference_is_the_first_lane_and_beeline_is_seen_at_both_ends() {
    let lanes = wanted(&[10, 1000, 10_000]);
    assert_eq!(lanes[0].kind, LaneKind::None);
    let counts =
        |kind| lanes.iter().filter(|lane| lane.kind == kind).map(|lane| lane.services).collect::<Vec<_>>();
    assert_eq!(counts(LaneKind::Iptables), [10, 1000, 10_000]);
    assert_eq!(counts(LaneKind::BeelinePod), [10, 10_000]);
}
