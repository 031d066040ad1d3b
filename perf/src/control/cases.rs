//! What is measured: endpoints that change, Services that are added, pods that are started. Each is done by a request to the
//! API, and ends with the first datagram that the new server answers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::clock::{Offset, now_ns};
use super::cluster::Cluster;
use super::link::Prober;
use super::manifest::{self, FLIPPED, SERVERS, STARTED};
use super::protocol::{Counts, Watch};
use super::times::Times;
use crate::flags::Control;
use crate::progress::Progress;
use crate::results::{Outcome, Unit};
use crate::service::manifest::PORT;

/// Flips before those that count: they end when everybody has followed what was created before.
const WARM_UP: usize = 10;
/// Microseconds between two datagrams while a pod starts, which takes longer than the rest.
const PATIENT_INTERVAL: u64 = 1_000;
/// Between the removal of Services and the use of their addresses.
const PAUSE: Duration = Duration::from_secs(1);

/// Everything that is there.
pub(super) struct Bench<'a> {
    pub(super) args: &'a Control,
    pub(super) cluster: &'a Cluster,
    pub(super) prober: Prober,
    pub(super) progress: &'a Progress,
    /// The addresses of [`SERVERS`].
    pub(super) servers: [IpAddr; 2],
    /// Of the Service [`FLIPPED`].
    pub(super) flipped: IpAddr,
    /// Of the Service [`STARTED`].
    pub(super) started: IpAddr,
    /// Which server has the flipped Service.
    pub(super) current: usize,
}

/// When things happened to one change.
struct Change {
    sent_ns: u64,
    answered_ns: u64,
    seen_ns: u64,
    counts: Counts,
}

/// Counts of a whole series.
#[derive(Default)]
struct Sum(Counts);

impl Sum {
    fn add(&mut self, counts: Counts) {
        self.0.sent += counts.sent;
        self.0.other += counts.other;
        self.0.refused += counts.refused;
    }

    fn detail(&self) -> Value {
        json!({"datagrams": self.0})
    }
}

impl Bench<'_> {
    fn watch(&self, address: IpAddr, pod: &str, interval_us: u64) -> Watch {
        let limit_ms = self.args.wait_seconds * 1_000;
        Watch { target: SocketAddr::new(address, PORT), pod: pod.to_owned(), interval_us, limit_ms }
    }

    /// What was seen, for people.
    fn told(&self, services: usize, what: &str, times: &Times, offset: Offset) {
        if let Some(seen) = times.describe(offset) {
            self.progress.say(&format!("{services} services: {what}: {seen}"));
        }
    }

    /// The flipped Service gets its other server.
    async fn flip(&mut self) -> Result<Change> {
        let next = 1 - self.current;
        let watch = self.watch(self.flipped, SERVERS[next], self.args.probe_us);
        self.prober.begin(watch).await?;
        let sent_ns = now_ns();
        self.cluster.change(FLIPPED, &[self.servers[next]]).await?;
        let answered_ns = now_ns();
        let (seen_ns, counts) = self.prober.seen().await.context("after an EndpointSlice changed")?;
        self.current = next;
        Ok(Change { sent_ns, answered_ns, seen_ns, counts })
    }

    /// Endpoints change.
    pub(super) async fn flips(&mut self, services: usize) -> Result<Vec<Outcome>> {
        for _ in 0..WARM_UP.min(self.args.flips) {
            self.flip().await?;
        }
        self.prober.forget_samples();
        self.prober.compare_clocks().await?;
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / self.args.per_second);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut from_sent, mut from_answer, mut sum) = (Times::default(), Times::default(), Sum::default());
        for _ in 0..self.args.flips {
            ticks.tick().await;
            let change = self.flip().await?;
            from_sent.push(change.sent_ns, change.seen_ns);
            from_answer.push(change.answered_ns, change.seen_ns);
            sum.add(change.counts);
            self.progress.step();
        }
        self.prober.compare_clocks().await?;
        let offset = self.prober.offset()?;
        let early = from_sent.impossible(offset);
        ensure!(
            early == 0,
            "{early} changes were seen before they were made: something else changes the slice"
        );
        self.told(services, "EndpointSlice changed to first packet", &from_sent, offset);
        let mut outcomes = Vec::new();
        for (test, times) in [
            ("EndpointSlice changed to first packet", &from_sent),
            ("EndpointSlice changed, answer of the API to first packet", &from_answer),
        ] {
            outcomes.extend(times.outcomes(test, services, Unit::Microseconds, offset, &sum.detail()));
        }
        Ok(outcomes)
    }

    /// Services are added. Their addresses must be known before they are there, so each is created, removed, and created
    /// again with the address that it had.
    pub(super) async fn additions(&mut self, services: usize) -> Result<Vec<Outcome>> {
        let names: Vec<_> = (0..self.args.additions).map(|number| format!("perf-added-{number}")).collect();
        let mut addresses = Vec::new();
        for name in &names {
            let service = manifest::service(name, self.args.family, None);
            addresses.push(self.cluster.create_service(service).await?);
        }
        self.cluster.delete_services(&names).await?;
        tokio::time::sleep(PAUSE).await;
        self.prober.forget_samples();
        self.prober.compare_clocks().await?;
        let (mut from_service, mut from_slice, mut sum) =
            (Times::default(), Times::default(), Sum::default());
        for (name, address) in names.iter().zip(addresses) {
            self.prober.begin(self.watch(address, SERVERS[0], self.args.probe_us)).await?;
            let sent_ns = now_ns();
            let service = manifest::service(name, self.args.family, Some(address));
            self.cluster.create_service(service).await?;
            let slice_sent_ns = now_ns();
            let slice = manifest::slice(name, self.args.family, &self.servers[..1]);
            self.cluster.create::<EndpointSlice>(slice).await?;
            let (seen_ns, counts) = self.prober.seen().await.context("after a Service was added")?;
            from_service.push(sent_ns, seen_ns);
            from_slice.push(slice_sent_ns, seen_ns);
            sum.add(counts);
            self.progress.step();
        }
        let offset = self.prober.offset()?;
        self.cluster.delete_services(&names).await?;
        self.told(services, "Service added to first packet", &from_service, offset);
        let mut outcomes = Vec::new();
        for (test, times) in [
            ("Service and EndpointSlice created to first packet", &from_service),
            ("EndpointSlice created to first packet", &from_slice),
        ] {
            outcomes.extend(times.outcomes(test, services, Unit::Microseconds, offset, &sum.detail()));
        }
        Ok(outcomes)
    }

    /// Pods are started, one after another. *Ready* is when a watch tells it here.
    pub(super) async fn starts(&mut self, services: usize) -> Result<Vec<Outcome>> {
        let limit = Duration::from_secs(self.args.wait_seconds);
        self.prober.forget_samples();
        self.prober.compare_clocks().await?;
        let (mut serving, mut ready, mut sum) = (Times::default(), Vec::new(), Sum::default());
        for number in 0..self.args.pods {
            let name = format!("{STARTED}-{services}-{number}");
            self.prober.begin(self.watch(self.started, &name, PATIENT_INTERVAL)).await?;
            let sent_ns = now_ns();
            self.cluster.create::<Pod>(manifest::started(&name, &self.args.image)).await?;
            let is_ready = async {
                self.cluster.wait_until_ready(&name, limit).await?;
                anyhow::Ok(now_ns())
            };
            let (ready_ns, seen) = tokio::join!(is_ready, self.prober.seen());
            let (seen_ns, counts) = seen.with_context(|| format!("after pod {name} was created"))?;
            serving.push(sent_ns, seen_ns);
            ready.push((sent_ns, ready_ns?, seen_ns));
            sum.add(counts);
            self.cluster.remove_pod(&name, limit).await?;
            self.progress.step();
        }
        let offset = self.prober.offset()?;
        // Both ends are by our clock, so the prober's is asked for nothing: moved to it, it is moved back.
        let (mut to_ready, mut from_ready) = (Times::default(), Times::default());
        for (sent_ns, ready_ns, seen_ns) in ready {
            to_ready.push(sent_ns, offset.theirs(ready_ns));
            from_ready.push(ready_ns, seen_ns);
        }
        self.told(services, "pod created to first packet", &serving, offset);
        let mut outcomes = Vec::new();
        for (test, times) in [
            ("pod created to Ready", &to_ready),
            ("pod Ready to first packet through its Service", &from_ready),
            ("pod created to first packet through its Service", &serving),
        ] {
            outcomes.extend(times.outcomes(test, services, Unit::Seconds, offset, &sum.detail()));
        }
        Ok(outcomes)
    }
}
