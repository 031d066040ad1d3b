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

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::alternate::{self, Plan, Side};
use crate::bpf::generator::Vary;
use crate::cgroup;
use crate::cost;
use crate::environment::Environment;
use crate::flags::Suite;
use crate::namespace::Namespace;
use crate::peers::published;
use crate::results::{Line, Outcome, Unit, Writer};
use crate::statistics::Estimate;
use crate::traffic::{Kind, Target};

use lane::{Kind as LaneKind, Lane, Wanted};

/// Where a client sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// On the node itself, in the cgroup whose sockets Beeline serves.
    Node,
    /// Behind it.
    Client,
}

/// A way to the service: who asks, what is asked, by which traffic, through which lanes.
struct Way {
    group: &'static str,
    from: From,
    target: fn(&Lane) -> Target,
    traffic: &'static [Kind],
    /// Packets are sent through it by XDP live frames, too.
    live: bool,
    /// Which lanes stand for Beeline.
    beeline: &'static [LaneKind],
}

const WAYS: &[Way] = &[
    Way {
        group: "node-local",
        from: From::Node,
        target: Lane::cluster_ip,
        traffic: &[Kind::Crr, Kind::Connect, Kind::Udp, Kind::UdpFlow],
        live: false,
        beeline: &[LaneKind::BeelinePod],
    },
    Way {
        group: "pod to ClusterIP",
        from: From::Client,
        target: Lane::cluster_ip,
        traffic: &[Kind::Crr, Kind::Rr, Kind::Udp],
        live: true,
        beeline: &[LaneKind::BeelinePod],
    },
    Way {
        group: "outside to NodePort",
        from: From::Client,
        target: Lane::node_port,
        traffic: &[Kind::Crr, Kind::Udp],
        live: true,
        beeline: &[LaneKind::BeelineOutside, LaneKind::BeelineXdp],
    },
];

/// Live frames: name, what differs.
const LIVE: &[(&str, Vary)] =
    &[("live frames, same flow", Vary::Nothing), ("live frames, new flow each", Vary::Port)];

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

/// `perf suite`.
pub(crate) fn run(args: &Suite) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "the suite makes network namespaces: it needs root");
    topology::remove_leftovers();
    let stopped = Arc::new(AtomicBool::new(false));
    let flag = stopped.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Release)).context("watch for signals")?;
    let mut writer = Writer::new(args.out.as_deref())?;
    let started = Instant::now();
    run_into(args, &mut |line| {
        if let Line::Result(outcome) = &line
            && outcome.published.is_none()
        {
            eprintln!("{:>5.0} s  {}", started.elapsed().as_secs_f64(), describe(outcome));
        }
        // Whatever was made is removed on the way out.
        ensure!(!stopped.load(Ordering::Acquire), "stopped by a signal");
        writer.write(&line)
    })?;
    eprintln!("done in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// A result as a line for people.
fn describe(outcome: &Outcome) -> String {
    let Estimate { value, interval: [low, high] } = outcome.estimate;
    match &outcome.skipped {
        Some(why) => format!("{:<66} skipped: {why}", outcome.name()),
        None => {
            format!("{:<66} {value:>9.3}{} ({low:.3} to {high:.3})", outcome.name(), outcome.unit.as_str())
        }
    }
}

fn run_into(args: &Suite, told: &mut dyn FnMut(Line) -> Result<()>) -> Result<()> {
    let echo = echo(args.echo.as_deref())?;
    let plan = if args.quick {
        Plan {
            pairs: 2,
            slice: Duration::from_millis(2),
            warm_up: Duration::from_millis(2),
            most_operations: 100_000,
        }
    } else {
        Plan {
            pairs: 60,
            slice: Duration::from_millis(20),
            warm_up: Duration::from_millis(100),
            most_operations: usize::MAX,
        }
    };
    let counts: &[usize] = if args.quick { &[10] } else { &args.services };
    let only = args.only.as_deref();
    let reference = Lane::new(wanted(counts)[0], &echo, false)?;
    // Settings are those of the host; the device is the lane's.
    let environment = Environment::record();
    let environment = reference.topology.client.inside(|| Ok(environment.with_offloads("eth0")))?;
    told(Line::Environment(environment))?;
    let mut told_results = |outcome: Outcome| {
        if only.is_none_or(|only| outcome.name().contains(only)) {
            told(Line::Result(outcome))
        } else {
            Ok(())
        }
    };
    let mut suite = Run { plan, only, lanes: vec![reference], told: &mut told_results };
    let mut skipped = Vec::new();
    for wanted in wanted(counts).into_iter().skip(1) {
        match Lane::new(wanted, &echo, args.force) {
            Ok(lane) => suite.add(lane)?,
            Err(error) => skipped.push((wanted, format!("{error:#}"))),
        }
    }
    suite.skip(&skipped)?;
    suite.ways()?;
    drop(suite);
    programs(args, &mut told_results)?;
    published::outcomes().try_for_each(&mut told_results)?;
    Ok(())
}

/// The programs alone; without an object the row says so.
fn programs(args: &Suite, told: &mut dyn FnMut(Outcome) -> Result<()>) -> Result<()> {
    // A filter of other groups must not load programs for nothing.
    if args.only.as_deref().is_some_and(|only| !only.contains("program")) {
        return Ok(());
    }
    match cost::measure(&args.object, args.quick, None, told) {
        Ok(()) => Ok(()),
        Err(error) => told(row("program", "all", "beeline", None).skipped(&format!("{error:#}"))),
    }
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

    fn seconds(mut self, time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        (self.unit, self.estimate) = (Unit::Seconds, Estimate { value: seconds, interval: [seconds; 2] });
        self
    }

    fn ratio(mut self, reference: &str, ratio: Estimate, detail: Value) -> Self {
        (self.reference, self.estimate, self.detail) = (Some(reference.to_owned()), ratio, detail);
        self
    }
}

struct Run<'a> {
    plan: Plan,
    only: Option<&'a str>,
    lanes: Vec<Lane>,
    told: &'a mut dyn FnMut(Outcome) -> Result<()>,
}

impl Wanted {
    fn row(self, group: &str, test: &str) -> Outcome {
        row(group, test, self.kind.name(), (self.services > 0).then_some(self.services))
    }
}

impl Run<'_> {
    /// Takes a lane, and tells how long loading it took.
    fn add(&mut self, lane: Lane) -> Result<()> {
        let wanted = lane.wanted;
        if wanted.services > 0 && !matches!(wanted.kind, LaneKind::BeelineOutside | LaneKind::BeelineXdp) {
            (self.told)(wanted.row("rules", "load all services").seconds(lane.loaded_in))?;
            if let Some(beeline) = &lane.beeline {
                (self.told)(wanted.row("rules", "one endpoint less").seconds(beeline.changed_in))?;
            }
        }
        self.lanes.push(lane);
        Ok(())
    }

    /// Tells of lanes that are not there, once for each way.
    fn skip(&mut self, lanes: &[(Wanted, String)]) -> Result<()> {
        for (wanted, why) in lanes {
            for way in WAYS.iter().filter(|way| way.takes(wanted.kind)) {
                (self.told)(wanted.row(way.group, "all").skipped(why))?;
            }
        }
        Ok(())
    }

    fn ways(&mut self) -> Result<()> {
        let (reference, others) = self.lanes.split_first().context("no lanes")?;
        let cases: Vec<_> = WAYS.iter().flat_map(|way| way.cases(others)).collect();
        let wanted = |case: &&Case<'_>| self.only.is_none_or(|only| case.row().name().contains(only));
        let cases: Vec<_> = cases.iter().filter(wanted).collect();
        let mut progress = Progress::new(cases.len());
        for case in cases {
            progress.next(&case.row());
            (self.told)(case.run(&self.plan, reference))?;
        }
        progress.clear();
        Ok(())
    }
}

/// One line on a terminal that says what is being measured, and how much is left.
struct Progress {
    done: usize,
    total: usize,
    shown: bool,
}

impl Progress {
    fn new(total: usize) -> Self {
        Self { done: 0, total, shown: std::io::stderr().is_terminal() }
    }

    fn next(&mut self, row: &Outcome) {
        self.clear();
        self.done += 1;
        if self.shown {
            eprint!("[{}/{}] {} ..", self.done, self.total, row.name());
        }
    }

    /// Gives the line to whoever prints next.
    fn clear(&self) {
        if self.shown {
            eprint!("\r\x1b[2K");
        }
    }
}

/// What is sent on a way.
#[derive(Clone, Copy)]
enum Sent {
    Traffic(Kind),
    Frames(&'static str, Vary),
}

impl Sent {
    /// On a veth, packets of sockets are copied before native XDP sees them: frames say what it can do. A proxy in user
    /// space has no path for frames.
    fn suits(self, kind: LaneKind) -> bool {
        match self {
            Self::Traffic(_) => kind != LaneKind::BeelineXdp,
            Self::Frames(..) => kind != LaneKind::Haproxy,
        }
    }
}

/// One comparison: a way, a lane, what is sent.
struct Case<'a> {
    way: &'static Way,
    lane: &'a Lane,
    sent: Sent,
}

impl Case<'_> {
    fn row(&self) -> Outcome {
        let test = match self.sent {
            Sent::Traffic(traffic) => traffic.name(),
            Sent::Frames(name, _) => name,
        };
        self.lane.wanted.row(self.way.group, test)
    }

    fn run(&self, plan: &Plan, reference: &Lane) -> Outcome {
        match self.sent {
            Sent::Traffic(traffic) => self.way.sockets(plan, traffic, reference, self.lane, self.row()),
            Sent::Frames(_, varied) => self.way.frames(plan, varied, reference, self.lane, self.row()),
        }
    }
}

impl Way {
    /// All comparisons on this way.
    fn cases<'a>(&'static self, lanes: &'a [Lane]) -> Vec<Case<'a>> {
        let frames = LIVE.iter().filter(|_| self.live).map(|(name, varied)| Sent::Frames(name, *varied));
        let sent = self.traffic.iter().copied().map(Sent::Traffic).chain(frames);
        let of = |sent: Sent| {
            let lanes =
                lanes.iter().filter(move |lane| self.takes(lane.wanted.kind) && sent.suits(lane.wanted.kind));
            lanes.map(move |lane| Case { way: self, lane, sent })
        };
        sent.flat_map(of).collect()
    }

    fn takes(&self, kind: LaneKind) -> bool {
        match kind {
            LaneKind::None => false,
            LaneKind::BeelinePod | LaneKind::BeelineOutside | LaneKind::BeelineXdp => {
                self.beeline.contains(&kind)
            }
            _ => true,
        }
    }

    /// Where the client of a lane sits.
    fn side<'a>(&self, lane: &'a Lane) -> Option<&'a Namespace> {
        Some(match self.from {
            From::Node => &lane.topology.node.namespace,
            From::Client => &lane.topology.client.namespace,
        })
    }

    fn sockets(&self, plan: &Plan, traffic: Kind, reference: &Lane, lane: &Lane, row: Outcome) -> Outcome {
        if lane.wanted.kind == LaneKind::Haproxy && matches!(traffic, Kind::Udp | Kind::UdpFlow) {
            return row.skipped("haproxy does not balance datagrams");
        }
        let served = lane.beeline.as_ref().filter(|_| self.from == From::Node);
        let seen =
            served.map(|beeline| cgroup::Entered::new(beeline.cgroup())).transpose().and_then(|_entered| {
                // On a thread of its own: it leaves this one's namespace.
                std::thread::scope(|scope| {
                    let compare = || {
                        let (first, second) = (self.side(reference), self.side(lane));
                        alternate::compare(
                            plan,
                            Side { namespace: first, traffic: traffic.open(lane::direct()) },
                            Side { namespace: second, traffic: traffic.open((self.target)(lane)) },
                        )
                    };
                    scope.spawn(compare).join()
                })
                .map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?
            });
        match seen {
            Ok(seen) => row.ratio("none", seen.ratio, json!(seen)),
            Err(error) => row.skipped(&format!("{error:#}")),
        }
    }

    fn frames(&self, plan: &Plan, varied: Vary, reference: &Lane, lane: &Lane, row: Outcome) -> Outcome {
        let seen = live::Stream::new(reference, lane::direct(), varied).and_then(|first| {
            let second = live::Stream::new(lane, (self.target)(lane), varied)?;
            live::compare(plan, &first, &second)
        });
        match seen {
            Ok(seen) => {
                let detail =
                    json!({"packets_a_second": seen.rate, "reference_packets_a_second": seen.reference_rate});
                row.ratio("none", seen.ratio, detail)
            }
            Err(error) => row.skipped(&format!("{error:#}")),
        }
    }
}
