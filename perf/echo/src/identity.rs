//! Who answers: the pod's and the node's name, taken from the environment that the pod's manifest sets by `fieldRef`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The names this server puts into every answer.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) pod: String,
    pub(crate) node: String,
}

impl Identity {
    /// Reads `POD_NAME` (or `HOSTNAME`) and `NODE_NAME`; `-` stands for what is not set.
    pub(crate) fn from_env() -> Self {
        let read = |names: &[&str]| {
            names.iter().find_map(|name| std::env::var(name).ok()).unwrap_or_else(|| "-".to_owned())
        };
        Self { pod: read(&["POD_NAME", "HOSTNAME"]), node: read(&["NODE_NAME"]) }
    }

    /// One line: `pod=P node=N client=ADDRESS port=PORT`. An IPv4 client of the dual-stack socket is shown as IPv4.
    pub(crate) fn answer(&self, peer: SocketAddr) -> String {
        let client = match peer.ip() {
            IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
            ip @ IpAddr::V4(_) => ip,
        };
        format!("{self} client={client} port={}", peer.port())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod={} node={}", self.pod, self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_client_of_a_dual_stack_socket_is_shown_as_ipv4() {
        let identity = Identity { pod: "p".into(), node: "n".into() };
        let peer = SocketAddr::new("::ffff:10.0.0.7".parse::<IpAddr>().expect("an address"), 40000);
        assert_eq!(identity.answer(peer), "pod=p node=n client=10.0.0.7 port=40000");
    }
}
