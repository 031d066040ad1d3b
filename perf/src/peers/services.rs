//! The services that every lane serves: many that nobody asks, and the one under test as the last.

use std::net::Ipv4Addr;

/// A protocol, in the words of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// One port of a service: what rules are made for.
#[derive(Clone, Debug)]
pub(crate) struct ServicePort {
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) port_name: String,
    pub(crate) protocol: Protocol,
    pub(crate) cluster_ip: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
    pub(crate) endpoints: Vec<(Ipv4Addr, u16)>,
}

impl ServicePort {
    /// `namespace/service:port`, as rules' comments name it.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}:{}", self.namespace, self.service, self.port_name)
    }
}

/// The address of the service under test.
pub(crate) const TESTED_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 255, 10);
/// Its port, for lines over TCP and for datagrams.
pub(crate) const TESTED_PORT: u16 = 9090;
/// Its node port.
pub(crate) const TESTED_NODE_PORT: u16 = 30_090;
/// How many endpoints every service has.
pub(crate) const ENDPOINTS: u32 = 3;

/// `count` services that nobody asks, then the one under test with these backends.
pub(crate) fn services(count: usize, backends: &[Ipv4Addr]) -> Vec<ServicePort> {
    let others = (0..count.saturating_sub(1) as u32).map(|index| {
        let endpoint = |k| (Ipv4Addr::from_bits(0x0a80_0001 + index * ENDPOINTS + k), 80);
        ServicePort {
            namespace: format!("ns{}", index % 100),
            service: format!("svc{index}"),
            port_name: "p80".to_owned(),
            protocol: Protocol::Tcp,
            cluster_ip: Ipv4Addr::from_bits(0x0a60_0001 + index),
            port: 80,
            node_port: None,
            endpoints: (0..ENDPOINTS).map(endpoint).collect(),
        }
    });
    let tested = [Protocol::Tcp, Protocol::Udp].map(|protocol| ServicePort {
        namespace: "perf".to_owned(),
        service: "tested".to_owned(),
        port_name: protocol.as_str().to_owned(),
        protocol,
        cluster_ip: TESTED_IP,
        port: TESTED_PORT,
        node_port: Some(TESTED_NODE_PORT),
        endpoints: backends.iter().map(|address| (*address, TESTED_PORT)).collect(),
    });
    others.chain(tested).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// The services of upstream's tests that are of a kind we make: a cluster IP and a node port.
    pub(crate) fn upstream() -> Vec<ServicePort> {
        [(1, None), (3, Some(3003))]
            .map(|(number, node_port)| ServicePort {
                namespace: format!("ns{number}"),
                service: format!("svc{number}"),
                port_name: "p80".to_owned(),
                protocol: Protocol::Tcp,
                cluster_ip: Ipv4Addr::new(172, 30, 0, 40 + number),
                port: 80,
                node_port,
                endpoints: vec![(Ipv4Addr::new(10, 180, 0, number), 80)],
            })
            .to_vec()
    }

    #[test]
    fn the_service_under_test_is_the_last_and_no_address_is_given_twice() {
        let all = services(10_000, &[Ipv4Addr::new(10, 2, 0, 2)]);
        assert_eq!(all.len(), 10_001);
        assert_eq!(all.last().unwrap().cluster_ip, TESTED_IP);
        let mut ips: Vec<_> = all.iter().map(|port| port.cluster_ip).collect();
        ips.dedup();
        assert_eq!(ips.len(), 10_000);
        assert!(ips.iter().all(|ip| ip.octets()[..2] == [10, 96]));
        let mut endpoints: Vec<_> = all[..9999].iter().flat_map(|port| &port.endpoints).collect();
        endpoints.sort();
        endpoints.dedup();
        assert_eq!(endpoints.len(), 9999 * ENDPOINTS as usize);
    }
}
