//! The controllers' role: one informer a kind, one driver a controller, behind one Lease. What to do is decided in `controllers`;
//! here it is asked and executed.

mod collector;
mod discovery;
mod driver;
pub mod execute;
mod expectation;
mod namespaces;
#[cfg(test)]
mod testkit;

use std::fmt::Debug;
use std::sync::Arc;

use controllers::{CONTROLLERS, Key, Kind, Settings, View, Watch, Watched, namespace};
use kube::runtime::watcher;
use kube::{Api, Client};
use runtime::lease::Candidate;
use runtime::{Error, Informer, Queue, Recorder};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::local_copy;

use self::driver::Driver;

/// The Lease of this role.
const LEASE: &str = "kube-controller-manager";

/// Settings of the controllers' role.
#[derive(Clone, Debug, Default)]
pub struct ControllersConfig {
    /// This process's name in leader election; unique, e.g. `host_uuid`.
    pub identity: String,
    /// Whether to wait for the Lease kube-system/kube-controller-manager.
    pub leader_elect: bool,
    /// Pod ranges of the cluster, one a family; empty leaves nodes without ranges.
    pub cluster_cidrs: Vec<String>,
    /// The cluster's CA certificate (PEM), published in every namespace; empty publishes nothing.
    pub root_ca_pem: String,
}

/// What wakes whom: the controllers in the order of their table, then the emptying of namespaces. One queue each.
fn watchers() -> impl Iterator<Item = &'static [Watch]> {
    CONTROLLERS.iter().map(|it| it.watches).chain([namespace::WATCHES])
}

type Queues = Arc<Vec<Arc<Queue<Key>>>>;

/// Runs all controllers until `shutdown`.
///
/// # Errors
/// [`Error::LeadershipLost`] when the lease could not be kept; start the role again then.
pub async fn run(
    client: Client,
    config: ControllersConfig,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let work = work(client.clone(), &config, shutdown.clone());
    if config.leader_elect {
        Candidate::new(client, LEASE, &config.identity).lead(&shutdown, work).await
    } else {
        work.await
    }
}

async fn work(client: Client, config: &ControllersConfig, shutdown: CancellationToken) -> Result<(), Error> {
    let view = Arc::new(View::default());
    let queues: Queues = Arc::new(watchers().map(|_| Arc::default()).collect());
    let recorder = Recorder::new(client.clone(), "controllermanager", None);
    let settings = Arc::new(Settings {
        root_ca_pem: config.root_ca_pem.clone(),
        cluster_cidrs: config.cluster_cidrs.clone(),
    });
    let _informers = tokio::select! {
        started = follow_all(&client, &view, &queues) => started,
        () = shutdown.cancelled() => return Ok(()),
    };
    tracing::info!("controllers follow the API");
    let mut drivers = JoinSet::new();
    for (controller, queue) in CONTROLLERS.iter().zip(queues.iter()) {
        let driver =
            Driver::new(controller, view.clone(), settings.clone(), client.clone(), &recorder, queue.clone());
        drivers.spawn(driver.run());
    }
    if let Some(leaving) = queues.last() {
        drivers.spawn(namespaces::run(client.clone(), view, recorder.clone(), leaving.clone()));
    }
    drivers.spawn(collector::run(client, recorder));
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        Some(ended) = drivers.join_next() => {
            let panic = ended.unwrap_or_else(|error| error);
            Err(Error::Panicked(panic.to_string()))
        }
    }
}

/// Starts every informer, then waits until all have listed. The result keeps them alive.
async fn follow_all(client: &Client, view: &Arc<View>, queues: &Queues) -> Vec<Informer> {
    let mut informers: Vec<Informer> = Vec::new();
    macro_rules! follow {
        ($kind:ident $table:ident) => {
            informers.push(follow_kind(client, view.$table.clone(), view, queues));
        };
    }
    controllers::for_each_kind!(follow);
    for informer in &informers {
        informer.synced().await;
    }
    informers
}

fn follow_kind<K>(
    client: &Client,
    table: Arc<controllers::Table<K>>,
    view: &Arc<View>,
    queues: &Queues,
) -> Informer
where
    K: Watched + kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (view, queues) = (view.clone(), queues.clone());
    let mappings = |watches: &'static [Watch]| watches.iter().filter_map(K::mapping);
    let wanted: Vec<_> = watchers()
        .enumerate()
        .flat_map(|(at, watches)| mappings(watches).map(move |mapping| (at, mapping)))
        .collect();
    let config = scope(K::WATCHED);
    local_copy::keep(table, Api::all(client.clone()), config, move |change| {
        for (at, mapping) in &wanted {
            for key in mapping(&view, change) {
                queues[*at].add(key);
            }
        }
    })
}

/// The part of a kind that controllers need.
fn scope(kind: Kind) -> watcher::Config {
    let config = watcher::Config::default();
    match kind {
        Kind::ConfigMap => config.fields("metadata.name=kube-root-ca.crt"),
        Kind::Lease => config.fields("metadata.namespace=kube-node-lease"),
        _ => config,
    }
}
