//! `perf control`: how long a cluster takes from a change at its API to the first packet that follows it, by the number of
//! Services that it has. It works on any cluster; it measures what a client sees, and does not say where the time goes.
//!
//! Two servers and a client's pod are deployed into a namespace of its own, and as many Services as are asked for, whose
//! endpoints nobody has. A prober in the client's pod asks a Service by datagrams, each from a new socket, while this
//! process changes the Service's EndpointSlice. Everything is removed again, also after Ctrl-C.

mod cases;
mod clock;
mod cluster;
mod link;
mod manifest;
pub(crate) mod prober;
mod protocol;
mod quantile;
mod times;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::signal::unix::{SignalKind, signal};

use crate::environment::Environment;
use crate::flags::Control;
use crate::progress::Progress;
use crate::results::{Line, Outcome, Writer};
use crate::service::{choose, manifest as pods};
use cases::Bench;
use cluster::Cluster;
use link::Prober;
use manifest::{CLIENT, FLIPPED, MOST_SERVICES, SERVERS, STARTED};

/// `perf control`.
pub(crate) fn run(args: &Control) -> Result<()> {
    let args = args.clone().smoke_if_quick();
    ensure!(
        args.services.iter().all(|services| *services <= MOST_SERVICES),
        "--services: there are addresses for {MOST_SERVICES}"
    );
    // One thread: nothing moves between CPUs while it is timed.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(control(&args))
}

async fn control(args: &Control) -> Result<()> {
    let cluster = Cluster::open(args).await?;
    let mut environment = Environment::record();
    environment.versions.insert("Kubernetes".to_owned(), cluster.version().await?);
    let mut writer = Writer::new(args.out.as_deref())?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    cluster.make_namespace().await?;
    writer.write(&Line::Environment(environment))?;
    let result = tokio::select! {
        result = measure(args, &cluster, &mut writer) => result,
        _ = terminate.recv() => Err(anyhow::anyhow!("ended by a signal")),
        _ = interrupt.recv() => Err(anyhow::anyhow!("ended by a signal")),
    };
    if args.keep {
        eprintln!("namespace {} is kept", args.namespace);
        return result;
    }
    eprintln!("removing namespace {} ..", args.namespace);
    let begun = Instant::now();
    let left = || format!("namespace {} is left behind", args.namespace);
    let removed = tokio::select! {
        removed = cluster.remove_namespace() => removed.with_context(left),
        _ = terminate.recv() => bail!(left()),
        _ = interrupt.recv() => bail!(left()),
    };
    if removed.is_ok() {
        eprintln!("removed in {:.1} s", begun.elapsed().as_secs_f64());
    }
    result.and(removed)
}

async fn measure(args: &Control, cluster: &Cluster, writer: &mut Writer) -> Result<()> {
    let mut counts = args.services.clone();
    counts.sort_unstable();
    counts.dedup();
    let each = args.flips + args.additions + args.pods;
    let progress = Progress::new(counts.last().copied().unwrap_or_default() + counts.len() * each);
    let mut bench = deploy(args, cluster, &progress).await?;
    let mut there = 0;
    for services in counts {
        let begun = Instant::now();
        progress.doing(&format!("{services} services are created"));
        cluster.create_background(there, services, &progress).await?;
        if services > there {
            let (created, seconds) = (services - there, begun.elapsed().as_secs_f64());
            progress.say(&format!("{created} services and their slices created in {seconds:.1} s"));
            tokio::time::sleep(Duration::from_secs(args.settle_seconds)).await;
        }
        there = services;
        progress.doing(&format!("{services} services: an EndpointSlice changes"));
        tell(bench.flips(services).await?, writer)?;
        progress.doing(&format!("{services} services: Services are added"));
        tell(bench.additions(services).await?, writer)?;
        progress.doing(&format!("{services} services: pods are started"));
        tell(bench.starts(services).await?, writer)?;
    }
    Ok(())
}

fn tell(outcomes: Vec<Outcome>, writer: &mut Writer) -> Result<()> {
    outcomes.into_iter().try_for_each(|outcome| writer.write(&Line::Result(outcome)))
}

/// Pods and Services under test, and the prober.
async fn deploy<'a>(args: &'a Control, cluster: &'a Cluster, progress: &'a Progress) -> Result<Bench<'a>> {
    let (client_node, places) = choose(&cluster.nodes().await?, args.client_node.as_deref())?;
    // One server beside the client, one on another node if there is one.
    let server_nodes = [&client_node, places.last().unwrap_or(&client_node)];
    let [one, other] = server_nodes;
    progress.say(&format!("client on {client_node}, servers on {one} and {other}"));
    let nodes = server_nodes.into_iter().chain([&client_node]);
    for (name, node) in SERVERS.into_iter().chain([CLIENT]).zip(nodes) {
        cluster.create::<Pod>(pods::pod(name, &args.image, node)).await?;
    }
    for name in SERVERS.into_iter().chain([CLIENT]) {
        cluster.wait_until_ready(name, Duration::from_secs(args.wait_seconds)).await?;
    }
    let servers = [cluster.address(SERVERS[0]).await?, cluster.address(SERVERS[1]).await?];
    let flipped = cluster.create_service(manifest::service(FLIPPED, args.family, None)).await?;
    cluster.create::<EndpointSlice>(manifest::slice(FLIPPED, args.family, &servers[..1])).await?;
    let started = cluster.create_service(manifest::service_of_pods(STARTED, args.family)).await?;
    let prober = Prober::start(&cluster.pods(), CLIENT).await?;
    Ok(Bench { args, cluster, prober, progress, servers, flipped, started, current: 0 })
}
