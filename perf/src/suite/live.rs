//! Forwarding, packet by packet: XDP live frames leave the client's device, go through the node, and are counted and
//! dropped as they reach the backend's. One CPU does all of it; no socket, no segmentation offload hides anything.
//!
//! Frames that the client's end sends by XDP are taken by the far end only if that polls (GRO is on there).

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::PerCpuArray;
use aya::programs::{SchedClassifier, TcAttachType, TestRunAttrs, TestRunOptions};
use rustix::thread::{CpuSet, sched_setaffinity};
use zerocopy::IntoBytes;

use super::lane::Lane;
use super::topology::{self, CLIENT, ECHO, MACS};
use crate::alternate::Plan;
use crate::bpf::generator::{self, Vary};
use crate::bpf::object::{Hook, Map, MapKind};
use crate::cost::Loaded;
use crate::peers::load;
use crate::statistics::{self, Estimate};
use crate::traffic::Target;

/// Frames of one batch.
const BATCH: u32 = 64;
/// Frames of one call: at least, to see what one costs, and at most.
const FEW: u32 = 1_024;
const MANY: u32 = 65_536;
/// So many pairs at most: each call costs the kernel tens of milliseconds before its first frame and after its last.
pub(super) const MOST_PAIRS: usize = 12;
/// What a slice takes besides the frames' time.
pub(super) const AROUND_SLICE: Duration = Duration::from_millis(60);
/// To load generators and counters, and to find out how many frames a slice has.
pub(super) const AROUND: Duration = Duration::from_millis(600);
/// Where an untagged UDP datagram over IPv4 has its destination port.
const DESTINATION_PORT: i16 = 36;

/// A lane that frames can be sent through.
pub(super) struct Stream<'a> {
    lane: &'a Lane,
    generator: Loaded,
    counter: Loaded,
    frame: Vec<u8>,
    ifindex: u32,
    varied: Vary,
}

/// A UDP datagram from the client without a checksum, 60 bytes in all.
fn frame(target: Target) -> Result<Vec<u8>> {
    let IpAddr::V4(to) = target.address else { anyhow::bail!("live frames are of IPv4") };
    let payload = [0_u8; 18];
    let mut frame = Vec::new();
    frame.extend(MACS[1]);
    frame.extend(MACS[0]);
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((28 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(CLIENT.octets());
    frame.extend(to.octets());
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend(40_000_u16.to_be_bytes());
    frame.extend(target.echo.to_be_bytes());
    frame.extend((8 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    Ok(frame)
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

impl<'a> Stream<'a> {
    /// Loads the generator and puts the counter at the lane's end.
    pub(super) fn new(lane: &'a Lane, target: Target, varied: Vary) -> Result<Self> {
        let mut frame = frame(target)?;
        if varied == Vary::Flow {
            // The identification takes what the source address adds: the checksum is of both fields as they are varied.
            let [high, low] = [CLIENT.octets()[2], CLIENT.octets()[3]];
            frame[18..20].copy_from_slice(&[!high, !low]);
            frame[24..26].copy_from_slice(&[0, 0]);
            let sum = checksum(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        let generator = Loaded::new("generator", Hook::Xdp, &generator::send(&frame, varied), &[])?;
        let map = Map { name: generator::COUNT, kind: MapKind::PerCpuArray, value_size: 8, entries: 1 };
        let program = generator::count(Hook::Tc, DESTINATION_PORT, ECHO);
        let mut counter = Loaded::new("counter", Hook::Tc, &program, &[map])?;
        let attach = || {
            let program: &mut SchedClassifier =
                counter.ebpf.program_mut("counter").context("the counter")?.try_into()?;
            program.attach("eth0", TcAttachType::Ingress).context("attach the counter")?;
            poll("eth0")
        };
        lane.topology.backend.inside(attach)?;
        lane.topology.node.inside(|| poll("client"))?;
        let ifindex = lane.topology.client.inside(|| super::beeline::ifindex("eth0"))?;
        Ok(Self { lane, generator, counter, frame, ifindex, varied })
    }

    fn counted(&self) -> Result<u64> {
        let map = self.counter.ebpf.map(generator::COUNT).context("the count")?;
        let counts: PerCpuArray<_, u64> = PerCpuArray::try_from(map)?;
        Ok(counts.get(&0, 0)?.iter().sum())
    }

    /// Sends so many frames; how long the kernel took for them, without what precedes and follows.
    fn send(&self, frames: u32) -> Result<Duration> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, self.frame.len() as u32, 0, self.ifindex, 0, 0];
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            ctx_in: Some(context.as_bytes()),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        let each_ns = self.generator.run(options)?;
        Ok(Duration::from_secs_f64(each_ns * f64::from(frames) / 1e9))
    }

    /// How many frames take so long.
    fn frames(&self, length: Duration) -> Result<u32> {
        self.lane.topology.client.namespace.enter()?;
        let time = self.send(FEW)?;
        let frames = f64::from(FEW) * length.as_secs_f64() / time.as_secs_f64().max(1e-9);
        Ok((frames as u32).clamp(FEW, MANY))
    }

    /// Sends frames in the client's namespace; packets a second that reached the end.
    fn slice(&self, frames: u32) -> Result<f64> {
        self.lane.topology.client.namespace.enter()?;
        if self.varied != Vary::Nothing {
            self.forget_flows();
        }
        let before = self.counted()?;
        let time = self.send(frames)?;
        Ok((self.counted()? - before) as f64 / time.as_secs_f64().max(1e-9))
    }

    /// Empties the node's connection table, so that every slice begins alike. Without the program it is left as it is.
    fn forget_flows(&self) {
        if let Some(conntrack) = load::program("conntrack") {
            let node = &self.lane.topology.node;
            // An empty table and a lane without one are both said to be errors.
            drop(node.inside(|| Ok(Command::new(conntrack).arg("-F").output()?)));
        }
    }
}

/// Makes a device take frames from its far end's XDP.
fn poll(device: &str) -> Result<()> {
    topology::output(Command::new("ethtool").args(["-K", device, "gro", "on"])).map(drop)
}

/// What two lanes gave.
pub(super) struct Seen {
    /// Rate of the target divided by the reference's.
    pub(super) ratio: Estimate,
    /// The target's rate, packets a second.
    pub(super) rate: f64,
    pub(super) reference_rate: f64,
}

/// Sends through both lanes in turn, in ABBA order.
pub(super) fn compare(plan: &Plan, reference: &Stream<'_>, target: &Stream<'_>) -> Result<Seen> {
    std::thread::scope(|scope| {
        let run = || {
            let mut first = CpuSet::new();
            first.set(0);
            sched_setaffinity(None, &first).context("stay on one CPU")?;
            alternate(plan, reference, target)
        };
        scope.spawn(run).join()
    })
    .map_err(|_| anyhow::anyhow!("the sending thread panicked"))?
}

fn alternate(plan: &Plan, reference: &Stream<'_>, target: &Stream<'_>) -> Result<Seen> {
    let warm = |name: &str, stream: &Stream<'_>| {
        let frames = stream.frames(plan.slice)?;
        ensure!(stream.slice(frames)? > 0.0, "no frame of the {name} came through");
        Ok(frames)
    };
    let (of_reference, of_target) = (warm("reference", reference)?, warm("target", target)?);
    let (mut ratios, mut rates, mut references) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.pairs.min(MOST_PAIRS) {
        let first = reference.slice(of_reference)?;
        let middle = [target.slice(of_target)?, target.slice(of_target)?];
        let last = reference.slice(of_reference)?;
        rates.extend(middle);
        references.extend([first, last]);
        if first + last > 0.0 && middle[0] + middle[1] > 0.0 {
            ratios.push((middle[0] + middle[1]) / (first + last));
        }
    }
    ensure!(ratios.len() >= 2, "fewer than two pairs in which frames came through");
    Ok(Seen {
        ratio: statistics::geometric_mean(&ratios),
        rate: statistics::median(&mut rates),
        reference_rate: statistics::median(&mut references),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_frame_has_a_right_header_checksum_and_no_udp_checksum() {
        let target = Target { address: [10, 96, 255, 10].into(), echo: 9090, http: 0, reset: false };
        let frame = frame(target).unwrap();
        assert_eq!(frame.len(), 60);
        assert_eq!(checksum(&frame[14..34]), 0);
        assert_eq!(frame[DESTINATION_PORT as usize..][..2], 9090_u16.to_be_bytes());
        assert_eq!(frame[40..42], [0, 0]);
    }
}
