//! The Node object of this machine: registration, status, lease. `object` builds it, `system` asks the machine.

pub mod object;
pub mod system;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::host::Host;
use object::{Health, NodeFacts};

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How long others believe in a node that is silent.
const LEASE_SECONDS: i32 = 40;
const LEASE_EVERY: Duration = Duration::from_secs(10);
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// An unchanged status is written again after this time.
const STATUS_REPEAT: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);
/// While the node waits for its pod ranges.
const CIDR_EVERY: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_secs(1);

/// Registers the node, then keeps its status and lease fresh. Ends never.
pub async fn run(host: Arc<Host>, facts: NodeFacts) {
    let node = register(&host, &facts).await;
    tokio::join!(keep_status(&host, &facts), keep_lease(&host, node));
}

/// Creates the Node, or makes an existing one this machine's. Tries until the API answers.
async fn register(host: &Host, facts: &NodeFacts) -> Node {
    let api: Api<Node> = Api::all(host.client.clone());
    let object = object::node(facts, &not_ready("kubelet is starting"), &[], Timestamp::now());
    loop {
        let outcome = match api.create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(error)) if error.code == 409 => adopt(&api, facts).await,
            outcome => outcome,
        };
        match outcome {
            Ok(node) => {
                tracing::info!(node = facts.name, "node registered");
                return node;
            }
            Err(error) => {
                tracing::debug!(%error, "node not registered yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// The node was here before: its labels are brought up to date, everything else is kept.
async fn adopt(api: &Api<Node>, facts: &NodeFacts) -> Result<Node, kube::Error> {
    let patch = json!({"metadata": {"labels": object::labels(facts)}});
    api.patch(&facts.name, &PatchParams::default(), &Patch::Strategic(patch)).await
}

fn not_ready(reason: &str) -> Health {
    Health { problems: vec![reason.to_owned()], network_ready: false }
}

async fn keep_status(host: &Host, facts: &NodeFacts) {
    let api: Api<Node> = Api::all(host.client.clone());
    let mut ranges: Vec<String> = Vec::new();
    let mut last_write = Timestamp::MIN;
    let mut last_health = None;
    loop {
        match api.get(&facts.name).await {
            Ok(node) => {
                take_ranges(host, &node, &mut ranges).await;
                let health = health(host, &ranges).await;
                let now = Timestamp::now();
                let due = now.duration_since(last_write) >= STATUS_REPEAT;
                if due || last_health.as_ref() != Some(&health) {
                    match write_status(host, &api, facts, &health, &node, now).await {
                        Ok(()) => (last_write, last_health) = (now, Some(health)),
                        Err(error) => tracing::warn!(%error, "node status not written"),
                    }
                }
            }
            Err(kube::Error::Api(error)) if error.code == 404 => {
                // Somebody deleted the Node: this machine is still here.
                register(host, facts).await;
                last_health = None;
            }
            Err(error) => tracing::debug!(%error, "node cannot be read"),
        }
        tokio::time::sleep(if ranges.is_empty() { CIDR_EVERY } else { STATUS_EVERY }).await;
    }
}

/// Hands the node's pod ranges to the network.
async fn take_ranges(host: &Host, node: &Node, known: &mut Vec<String>) {
    let spec = node.spec.as_ref();
    let ranges = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
    if ranges.is_empty() || ranges == *known {
        return;
    }
    match host.network.set_pod_cidrs(ranges.clone()).await {
        Ok(()) => {
            tracing::info!(?ranges, "pod ranges of this node");
            *known = ranges;
        }
        Err(error) => tracing::error!(%error, ?ranges, "pod ranges not accepted"),
    }
}

async fn health(host: &Host, ranges: &[String]) -> Health {
    let mut problems = Vec::new();
    if let Err(error) = host.containerd.version().await {
        problems.push(format!("container runtime is down: {error}"));
    }
    if ranges.is_empty() {
        problems.push("container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: the node has no podCIDR yet".into());
    }
    Health { problems, network_ready: !ranges.is_empty() }
}

async fn write_status(
    host: &Host,
    api: &Api<Node>,
    facts: &NodeFacts,
    health: &Health,
    node: &Node,
    now: Timestamp,
) -> Result<(), kube::Error> {
    let images = host.containerd.images().await.unwrap_or_default();
    let built = object::node(facts, health, &images, now);
    let patch = object::status_patch(&built, node.status.as_ref());
    api.patch_status(&facts.name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

async fn keep_lease(host: &Host, node: Node) {
    let api: Api<Lease> = Api::namespaced(host.client.clone(), LEASE_NAMESPACE);
    let name = node.metadata.name.clone().unwrap_or_default();
    let mut tick = tokio::time::interval(LEASE_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        while let Err(error) = renew(&api, &name, &node).await {
            tracing::debug!(%error, "lease not renewed");
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn renew(api: &Api<Lease>, name: &str, node: &Node) -> Result<(), kube::Error> {
    let now = MicroTime(Timestamp::now());
    let patch =
        json!({"spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}});
    match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(error)) if error.code == 404 => {}
        outcome => return outcome.map(|_| ()),
    }
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.to_owned(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(|_| ())
}
