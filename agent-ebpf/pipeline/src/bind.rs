//! Bind protection: what a process of the node binds to a node port would never hear from outside, and hide the service from nobody but
//! itself. Such a bind fails, as it would if another process had the port.

use abi::{
    Port, Proto,
    frontend::{SCOPE_NODE_PORT, flags},
};

use crate::{family::Family, service, tables::Tables};

/// Whether a socket in the network namespace with the cookie `netns` may be bound to the address and port. Only the node's own
/// namespace has node ports, and only on its addresses that serve them, on loopback and on the unspecified address, which is all of
/// these.
#[inline(always)]
pub fn allowed<F: Family, T: Tables<F>>(
    tables: T,
    addr: F::Addr,
    port: Port,
    proto: Proto,
    netns: u64,
) -> bool {
    if netns == 0 || netns != tables.config().netns_cookie || !tables.bit(proto.port_row(), port.host()) {
        return true;
    }
    let key = F::frontend_key(F::UNSPECIFIED, port, proto, SCOPE_NODE_PORT);
    let node_port = tables.frontend(&key).is_some_and(|row| row.flags & flags::NODE_PORT != 0);
    let served =
        addr == F::UNSPECIFIED || F::is_loopback(addr) || service::has_node_ports::<F, T>(tables, addr);
    !(node_port && served)
}
