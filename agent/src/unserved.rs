//! A node whose services another proxy serves (`--data-plane off`): the kernel's routes to other nodes' pods follow the Nodes, and that is
//! all. Services, hostPorts and masquerading are the other proxy's; nothing of eBPF is loaded, and nothing is taken away.

use std::path::Path;
use std::pin::pin;

use anyhow::{Result, bail};
use futures::StreamExt;
use kube::Client;
use network::routes::{NodeRoute, desired};
use service::Learned;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::cluster::{FromPods, node_events};
use crate::segment::{OwnNetwork, Segment};
use crate::view::View;

/// Fails while programs of a data plane of this node are pinned: two proxies would translate the same packets.
pub fn ensure_free(bpf_dir: &Path) -> Result<()> {
    let pinned = std::fs::read_dir(bpf_dir).is_ok_and(|mut entries| entries.next().is_some());
    if pinned {
        let directory = bpf_dir.display();
        bail!("--data-plane off: a data plane is still attached; `rm -r {directory}` detaches it");
    }
    Ok(())
}

/// Follows the Nodes; ends only with a failure.
pub async fn follow(
    node_name: &str,
    client: Client,
    mut segment: OwnNetwork,
    mut pods: UnboundedReceiver<FromPods>,
) -> Result<()> {
    let mut view = View::new(node_name, Learned::default(), false);
    let mut nodes = pin!(node_events(client));
    loop {
        tokio::select! {
            event = nodes.next() => {
                let Some(event) = event else { bail!("the watch over Nodes ended") };
                if view.node(event).nodes && view.has_nodes() {
                    let routes = routes(&view, node_name, &mut segment);
                    segment.follow(&desired(node_name, &routes), &[]);
                }
            }
            Some(event) = pods.recv() => {
                if let FromPods::HostPorts(pod, ports) = event && !ports.is_empty() {
                    tracing::warn!(%pod, "hostPorts are not served with --data-plane off");
                }
            }
        }
    }
}

fn routes(view: &View, own: &str, segment: &mut OwnNetwork) -> Vec<NodeRoute> {
    let others = view.nodes().iter().filter(|(name, _)| *name != own);
    others
        .map(|(name, (_, node))| NodeRoute {
            name: name.clone(),
            addresses: node.addresses.clone(),
            pod_cidrs: node.pod_cidrs.clone(),
            tunnel: segment.tunnel_to(&node.addresses).map(|tunnel| tunnel.to),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn pins_of_a_data_plane_are_named_and_an_empty_directory_is_fine() {
        let directory = std::env::temp_dir().join(format!("agent-unserved-{}", std::process::id()));
        assert!(ensure_free(&directory).is_ok());
        std::fs::create_dir_all(&directory).unwrap();
        assert!(ensure_free(&directory).is_ok());
        std::fs::write(directory.join("bl1_svc"), "").unwrap();
        let error = ensure_free(&directory).unwrap_err().to_string();
        assert!(error.contains(&format!("rm -r {}", directory.display())), "{error}");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
