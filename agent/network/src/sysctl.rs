//! The kernel switches that a node and a pod need, as two tables, and the writing of them.

use std::io;
use std::path::PathBuf;

/// What a node's namespace needs to route pods' packets. A switch of a protocol that the kernel lacks is skipped.
pub const NODE: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    // The effective value is the larger of `all` and the device's: replies leave by another way than requests came (DSR, redirects).
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    // Pods reach their gateway by a permanent neighbour entry; answering ARP or NDP for others would only hide mistakes.
    ("net/ipv4/conf/all/proxy_arp", "0"),
    ("net/ipv4/conf/default/proxy_arp", "0"),
    ("net/ipv6/conf/all/proxy_ndp", "0"),
    // A redirect would tell a pod to bypass its gateway, which is the only way it has.
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
];

/// What a pod's namespace needs: its addresses are unique by allocation, so duplicate detection would only delay it by a second.
pub const POD: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
];

/// Writes `switches` in the calling thread's network namespace. Values that already hold are not written, so a read-only `/proc/sys`
/// with the right values is fine.
pub fn apply(switches: &[(&str, &str)]) -> io::Result<()> {
    for (name, value) in switches {
        let path = PathBuf::from("/proc/sys").join(name);
        match std::fs::read_to_string(&path) {
            Ok(current) if current.trim() == *value => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            _ => {}
        }
        std::fs::write(&path, value)
            .map_err(|error| io::Error::new(error.kind(), format!("sysctl {name}={value}: {error}")))?;
    }
    Ok(())
}
