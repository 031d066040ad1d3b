//! `perf suite`: Beeline against plain routing, connection tracking, kube-proxy's rules and a proxy in user space, on
//! this machine, in one run: all lanes are alive at once, and each is alternated with plain routing.
//!
//! Ratios are what it is for; absolute rates are of this machine and minute. It leaves CPUs to whoever answers, makes
//! no more than two threads busy, and removes all that it has made.

mod beeline;
mod lane;
mod live;
#[cfg(test)]
mod tests;
mod topology;
mod ways;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::alternate::Plan;
use crate::cost;
use crate::environment::Environment;
use crate::flags::Suite;
use crate::peers::published;
use crate::progress::Progress;
use crate::results::{Line, Outcome, Unit, Writer};
use crate::statistics::{self, Estimate};

use lane::{Kind as LaneKind, Lane, Wanted};
use ways::{Case, cases};

/// The lanes that are wanted; the reference is the first.
fn wanted(counts: &[usize]) -> Vec<Wanted> {
    let one = |kind| Wanted { kind, services: 0 };
    let some =
        |kind, counts: &[usize]| counts.iter().map(|services| Wanted { kind, services: *services }).collect();
    let ends = match counts {
        [] => Vec::new(),
        [only] => vec![*only],
        [first, .., last] => vec![*first, *last],
    };
    let rows: [Vec<Wanted>; 8] = [
        vec![one(LaneKind::None)],
        vec![one(LaneKind::Conntrack)],
        some(LaneKind::Iptables, counts),
        some(LaneKind::Nftables, counts),
        vec![one(LaneKind::Haproxy)],
        some(LaneKind::BeelinePod, &ends),
        some(LaneKind::BeelineOutside, &ends),
        some(LaneKind::BeelineXdp, &ends),
    ];
    rows.concat()
}

/// What a run will do.
struct Agenda {
    plan: Plan,
    echo: PathBuf,
    /// The reference is the first.
    lanes: Vec<Wanted>,
    cases: Vec<Case>,
    /// Timings of programs alone.
    programs: usize,
}

impl Agenda {
    fn new(args: &Suite) -> Result<Self> {
        let plan = if args.quick {
            Plan {
                pairs: 2,
                slice: Duration::from_millis(2),
                warm_up: Duration::from_millis(2),
                most_operations: 100_000,
            }
        } else {
            Plan {
                pairs: 110,
                slice: Duration::from_millis(20),
                warm_up: Duration::from_millis(100),
                most_operations: usize::MAX,
            }
        };
        let wanted_here = |name: &str| args.only.as_deref().is_none_or(|only| name.contains(only));
        let lanes = wanted(if args.quick { &[10] } else { &args.services });
        let mut cases = cases(&lanes);
        cases.retain(|case| wanted_here(&case.row().name()));
        // A filter of other groups must not load programs for nothing.
        let programs = args.only.as_deref().is_none_or(|only| only.contains("program"));
        let programs = if programs { cost::count() } else { 0 };
        Ok(Self { plan, echo: echo(args.echo.as_deref())?, lanes, cases, programs })
    }

    fn steps(&self) -> usize {
        self.lanes.len() + self.cases.len() + self.programs
    }

    /// About how long it takes on two CPUs.
    fn expected(&self, quick: bool) -> Duration {
        let lanes: Duration = self.lanes.iter().map(|lane| lane.expected()).sum();
        let cases: Duration = self.cases.iter().map(|case| case.expected(&self.plan)).sum();
        lanes
            + cases
            + cost::EACH * u32::from(!quick) * self.programs as u32
            + cost::LOAD * self.programs as u32
    }
}

/// `perf suite`.
pub(crate) fn run(args: &Suite) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "the suite makes network namespaces: it needs root");
    topology::remove_leftovers();
    let stopped = Arc::new(AtomicBool::new(false));
    let flag = stopped.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Release)).context("watch for signals")?;
    let agenda = Agenda::new(args)?;
    let mut writer = Writer::new(args.out.as_deref())?;
    let progress = Progress::new(agenda.steps());
    progress.say(&format!(
        "{} comparisons in {} lanes, {} timings of programs: about {} on an idle machine of two CPUs",
        agenda.cases.len(),
        agenda.lanes.len(),
        agenda.programs,
        people(agenda.expected(args.quick)),
    ));
    run_into(args, &agenda, &progress, &mut |line| {
        if let Line::Result(outcome) = &line
            && outcome.published.is_none()
        {
            progress.say(&format!("{:>5.0} s  {}", progress.elapsed().as_secs_f64(), describe(outcome)));
        }
        // Whatever was made is removed on the way out.
        ensure!(!stopped.load(Ordering::Acquire), "stopped by a signal");
        writer.write(&line)
    })?;
    progress.say(&format!("done in {}", people(progress.elapsed())));
    Ok(())
}

/// A time as people say it.
fn people(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..90 => format!("{seconds} s"),
        seconds => format!("{} min", (seconds + 30) / 60),
    }
}

/// A result as a line for people.
fn describe(outcome: &Outcome) -> String {
    // A short time would be all zeros.
    let (unit, factor) = match outcome.unit {
        Unit::Seconds if outcome.estimate.value < 0.01 => ("us", 1e6),
        unit => (unit.as_str(), 1.0),
    };
    let Estimate { value, interval } = outcome.estimate;
    let [value, low, high] = [value, interval[0], interval[1]].map(|value| value * factor);
    match &outcome.skipped {
        Some(why) => format!("{:<66} skipped: {why}", outcome.name()),
        None => format!("{:<66} {value:>9.3}{unit} ({low:.3} to {high:.3})", outcome.name()),
    }
}

fn run_into(
    args: &Suite,
    agenda: &Agenda,
    progress: &Progress,
    told: &mut dyn FnMut(Line) -> Result<()>,
) -> Result<()> {
    let Some((first, others)) = agenda.lanes.split_first() else { return Ok(()) };
    progress.doing("plain routing");
    let reference = Lane::new(*first, &agenda.echo, false)?;
    progress.step();
    // Settings are those of the host; the device is the lane's.
    let environment = Environment::record();
    let environment = reference.topology.client.inside(|| Ok(environment.with_offloads("eth0")))?;
    told(Line::Environment(environment))?;
    let only = args.only.as_deref();
    let mut told = |outcome: Outcome| {
        if only.is_none_or(|only| outcome.name().contains(only)) {
            told(Line::Result(outcome))
        } else {
            Ok(())
        }
    };
    let mut lanes = Lanes::default();
    for wanted in others {
        progress.doing(&format!("loading {}", wanted.tag()));
        lanes.add(*wanted, Lane::new(*wanted, &agenda.echo, args.force), &mut told)?;
        progress.step();
    }
    for case in &agenda.cases {
        progress.doing(&case.row().name());
        told(match lanes.find(case.lane) {
            Ok(lane) => case.run(&agenda.plan, &reference, lane),
            Err(why) => case.row().skipped(why),
        })?;
        progress.step();
    }
    drop((lanes, reference));
    if agenda.programs > 0 {
        // What failed has its row.
        cost::measure(&args.object, args.quick, None, &mut |outcome| {
            progress.step();
            progress.doing("programs alone");
            told(outcome)
        })?;
    }
    published::outcomes().try_for_each(&mut told)
}

/// The server: as named, or beside this program.
fn echo(named: Option<&Path>) -> Result<PathBuf> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("echo"));
    let path = named.map(Path::to_owned).or_else(beside).context("where is echo? --echo names it")?;
    ensure!(path.is_file(), "{} is not there: build echo, and name it by --echo", path.display());
    path.canonicalize().with_context(|| format!("find {}", path.display()))
}

/// A result without value yet.
fn row(group: &str, test: &str, lane: &str, services: Option<usize>) -> Outcome {
    Outcome {
        group: group.to_owned(),
        test: test.to_owned(),
        lane: lane.to_owned(),
        services,
        reference: None,
        unit: Unit::Ratio,
        estimate: Estimate { value: 0.0, interval: [0.0; 2] },
        published: None,
        skipped: None,
        detail: Value::Null,
    }
}

impl Outcome {
    fn skipped(mut self, why: &str) -> Self {
        self.skipped = Some(why.to_owned());
        self
    }

    fn seconds(mut self, estimate: Estimate) -> Self {
        (self.unit, self.estimate) = (Unit::Seconds, estimate);
        self
    }

    fn ratio(mut self, reference: &str, ratio: Estimate, detail: Value) -> Self {
        (self.reference, self.estimate, self.detail) = (Some(reference.to_owned()), ratio, detail);
        self
    }
}

impl Wanted {
    fn row(self, group: &str, test: &str) -> Outcome {
        row(group, test, self.kind.name(), (self.services > 0).then_some(self.services))
    }
}

/// The lanes that serve, and why others do not.
#[derive(Default)]
struct Lanes {
    here: Vec<Lane>,
    missing: Vec<(Wanted, String)>,
}

impl Lanes {
    /// Takes a lane, and tells how long loading it took.
    fn add(
        &mut self,
        wanted: Wanted,
        lane: Result<Lane>,
        told: &mut dyn FnMut(Outcome) -> Result<()>,
    ) -> Result<()> {
        let lane = match lane {
            Ok(lane) => lane,
            Err(error) => {
                self.missing.push((wanted, format!("{error:#}")));
                return Ok(());
            }
        };
        if wanted.services > 0 && !matches!(wanted.kind, LaneKind::BeelineOutside | LaneKind::BeelineXdp) {
            let once = lane.loaded_in.as_secs_f64();
            let once = Estimate { value: once, interval: [once; 2] };
            told(wanted.row("rules", "load all services").seconds(once))?;
            for (test, times) in lane.beeline.iter().flat_map(|beeline| &beeline.changes) {
                told(wanted.row("rules", test).seconds(statistics::mean(times)))?;
            }
        }
        self.here.push(lane);
        Ok(())
    }

    /// The lane, or why there is none.
    fn find(&self, wanted: Wanted) -> Result<&Lane, &str> {
        let missing = || self.missing.iter().find(|(lane, _)| *lane == wanted);
        self.here
            .iter()
            .find(|lane| lane.wanted == wanted)
            .ok_or_else(|| missing().map_or("it was not made", |(_, why)| why))
    }
}
