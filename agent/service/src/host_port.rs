//! hostPort: a port of this node that belongs to one container of one pod on it.
//!
//! A frontend like a Service's with the pod as its only backend. Pods in the node's own network need none and have none.

use std::net::IpAddr;

use crate::places::Places;
use crate::published::{Desired, Identity, Wanted};
use crate::reader::Reader;
use crate::{
    Backend, BackendState, Family, Frontend, FrontendAddress, FrontendKey, ObjectKey, Problem, Protocol,
};

/// Field of a pod that problems name.
const FIELD: &str = "spec.containers.ports.hostPort";

/// One entry of a container's `ports` with a hostPort, and the addresses of its pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// hostIP. `None`: every address of the node, both families. An unspecified address (0.0.0.0, ::): every address of its family.
    pub host_ip: Option<IpAddr>,
    /// hostPort.
    pub port: u16,
    /// protocol.
    pub protocol: Protocol,
    /// containerPort.
    pub container_port: u16,
    /// The pod's addresses; the first of each family is used.
    pub pod_ips: Vec<IpAddr>,
}

/// What a pod's host ports should look like, one for each family.
pub fn ports(
    pod: &ObjectKey,
    ports: &[HostPort],
    places: &Places,
    problems: &mut Vec<Problem>,
) -> Vec<Desired> {
    let mut all = Vec::new();
    for port in ports {
        let before = all.len();
        let families = [Family::V4, Family::V6].into_iter();
        let wanted =
            families.filter(|family| port.host_ip.is_none_or(|address| Family::from(address) == *family));
        all.extend(wanted.filter_map(|family| desired(port, family, places)));
        if all.len() == before {
            let mut reader = Reader::new(pod, problems);
            reader.problem(FIELD, format!("{}: the pod has no address of hostIP's family", port.port));
        }
    }
    all
}

fn desired(port: &HostPort, family: Family, places: &Places) -> Option<Desired> {
    let target = port.pod_ips.iter().copied().find(|address| Family::from(*address) == family)?;
    let exact = port.host_ip.filter(|address| !address.is_unspecified());
    let address = exact.map_or(FrontendAddress::NodePort(family), FrontendAddress::Exact);
    let key = FrontendKey { address, port: port.port, protocol: port.protocol };
    let backend = Backend {
        address: target,
        port: port.container_port,
        state: BackendState::Ready,
        node: places.row_number(places.here().node),
        local: true,
        host: false,
        weight: 1,
    };
    Some(Desired {
        identity: Identity { name: key.to_string().into(), protocol: port.protocol, family },
        number: port.port,
        frontends: vec![(
            key,
            Frontend { service: 0, external: true, source_ranges: false, node_port: false },
        )],
        flags: 0,
        affinity_s: 0,
        maglev_size: None,
        ranges: Vec::new(),
        members: vec![Wanted { backend, cluster: true, local: false }],
        keeps_last: false,
    })
}
