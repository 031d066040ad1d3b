//! The ways to a service that are measured, and the comparisons made on each: who asks, what is sent, through which lane.
//!
//! A comparison is data first, so that a run knows what is ahead of it; it is made when its two lanes are there.

use std::time::Duration;

use serde_json::json;

use super::lane::{self, Kind as LaneKind, Lane, Wanted};
use super::live;
use crate::alternate::{self, Plan, Side};
use crate::bpf::generator::Vary;
use crate::cgroup;
use crate::namespace::Namespace;
use crate::results::Outcome;
use crate::traffic::{Kind, Target};

/// Where a client sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// On the node itself, in the cgroup whose sockets Beeline serves.
    Node,
    /// Behind it.
    Client,
}

/// A way to the service: who asks, what is asked, by which traffic, through which lanes.
pub(super) struct Way {
    pub(super) group: &'static str,
    from: From,
    target: fn(&Lane) -> Target,
    traffic: &'static [Kind],
    /// Packets are sent through it by XDP live frames, too.
    live: bool,
    /// Which lanes stand for Beeline.
    beeline: &'static [LaneKind],
}

pub(super) const WAYS: &[Way] = &[
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

/// What is sent on a way.
#[derive(Clone, Copy)]
pub(super) enum Sent {
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

/// One comparison of a lane with the reference.
#[derive(Clone, Copy)]
pub(super) struct Case {
    pub(super) way: &'static Way,
    pub(super) lane: Wanted,
    sent: Sent,
}

/// All comparisons that these lanes allow, way by way.
pub(super) fn cases(lanes: &[Wanted]) -> Vec<Case> {
    WAYS.iter().flat_map(|way| way.cases(lanes)).collect()
}

impl Case {
    /// Its result, without a value.
    pub(super) fn row(&self) -> Outcome {
        let test = match self.sent {
            Sent::Traffic(traffic) => traffic.name(),
            Sent::Frames(name, _) => name,
        };
        self.lane.row(self.way.group, test)
    }

    /// About how long it takes.
    pub(super) fn expected(&self, plan: &Plan) -> Duration {
        let (pairs, slice, around) = match self.sent {
            _ if self.impossible().is_some() => return Duration::ZERO,
            Sent::Traffic(_) => (plan.pairs, plan.slice, 2 * plan.warm_up),
            Sent::Frames(..) => {
                (plan.pairs.min(live::MOST_PAIRS), plan.slice + live::AROUND_SLICE, live::AROUND)
            }
        };
        around + 4 * slice * u32::try_from(pairs).unwrap_or(u32::MAX)
    }

    /// Why it cannot be made, if so.
    fn impossible(&self) -> Option<&'static str> {
        let datagrams = matches!(self.sent, Sent::Traffic(Kind::Udp | Kind::UdpFlow));
        (datagrams && self.lane.kind == LaneKind::Haproxy).then_some("haproxy does not balance datagrams")
    }

    /// Makes it. What fails is told by the result.
    pub(super) fn run(&self, plan: &Plan, reference: &Lane, lane: &Lane) -> Outcome {
        if let Some(why) = self.impossible() {
            return self.row().skipped(why);
        }
        match self.sent {
            Sent::Traffic(traffic) => self.way.sockets(plan, traffic, reference, lane, self.row()),
            Sent::Frames(_, varied) => self.way.frames(plan, varied, reference, lane, self.row()),
        }
    }
}

impl Way {
    /// All comparisons on this way.
    fn cases(&'static self, lanes: &[Wanted]) -> Vec<Case> {
        let frames = LIVE.iter().filter(|_| self.live).map(|(name, varied)| Sent::Frames(name, *varied));
        let sent = self.traffic.iter().copied().map(Sent::Traffic).chain(frames);
        let of = |sent: Sent| {
            let lanes = lanes.iter().filter(move |lane| self.takes(lane.kind) && sent.suits(lane.kind));
            lanes.map(move |lane| Case { way: self, lane: *lane, sent })
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
                // One CPU does all of it: its time is the packets'.
                let side = |rate: f64| json!({"rate": rate.round(), "packet_ns": 1e9 / rate});
                let detail = json!({"target": side(seen.rate), "reference": side(seen.reference_rate)});
                row.ratio("none", seen.ratio, detail)
            }
            Err(error) => row.skipped(&format!("{error:#}")),
        }
    }
}
