//! The whole suite in seconds: every lane is made, every case runs for an instant. No figure is judged.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::ways::WAYS;
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
    let agenda = Agenda::new(&args).unwrap();
    run_into(&args, &agenda, &Progress::new(agenda.steps()), &mut |line| {
        if let Line::Result(outcome) = line {
            results.push(outcome);
        }
        Ok(())
    })
    .unwrap();
    let programs = results.iter().filter(|row| row.group == "program" && row.published.is_none());
    assert_eq!(programs.count(), cost::count());
    let added = results.iter().find(|row| row.test == "one service added").unwrap();
    assert!(added.estimate.value > 0.0 && added.lane == "beeline", "{added:?}");
    for way in WAYS {
        for lane in ["conntrack", "iptables", "nftables", "haproxy", "beeline"] {
            let told = |outcome: &&Outcome| outcome.group == way.group && outcome.lane == lane;
            let rows: Vec<_> = results.iter().filter(told).collect();
            assert!(!rows.is_empty(), "{} has no row of {lane}", way.group);
            for row in rows {
                match &row.skipped {
                    Some(why) => {
                        println!("skipped: {}: {why}", row.name());
                        // Two pairs are few on a busy machine; all else is a fault.
                        let allowed = lane == "haproxy" || why.starts_with("fewer than two pairs");
                        assert!(allowed, "{}: {why}", row.name());
                    }
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

#[test]
fn the_whole_suite_is_expected_to_end_in_twenty_minutes() {
    let args = Suite {
        out: None,
        echo: Some(std::env::current_exe().unwrap()),
        object: None,
        quick: false,
        only: None,
        services: vec![10, 1_000, 10_000],
        force: false,
    };
    let agenda = Agenda::new(&args).unwrap();
    let expected = agenda.expected(false);
    assert!(expected < Duration::from_secs(20 * 60), "{expected:?}");
    assert!(expected > Duration::from_secs(5 * 60), "{expected:?}");
    let part = Agenda::new(&Suite { only: Some("node-local/crr".to_owned()), ..args }).unwrap();
    assert!(part.cases.len() == 10 && part.programs == 0, "{}", part.cases.len());
}
