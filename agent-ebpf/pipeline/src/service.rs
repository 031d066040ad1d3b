//! Services: from an address and port to a frontend, from a frontend to a backend.

use abi::{
    Port, Proto, Reason, backend,
    frontend::{self, Frontend, SCOPE_EXACT, SCOPE_NODE_PORT},
    maps::{VIP_ROW, vip_bit},
    route::node_flags,
    service::flags,
};

use crate::{
    affinity::{Bond, Origin},
    balance,
    family::{Backend, Family, Place},
    tables::Tables,
};

/// Who asks: the two sides of `internalTrafficPolicy` and `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A pod or a process of this node.
    OnNode,
    /// Anyone whose packet comes in by an uplink.
    Outside,
    /// Anyone whose packet another node has handed over: it is to be served here.
    HandedOver,
}

/// On which addresses besides the exact ones node ports are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// This node's own that serve them.
    Own,
    /// Those and loopback.
    Loopback,
    /// Those of any node: the packet was handed over by the node whose address it has.
    AnyNode,
}

/// What a look-up found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// No service's address.
    NotOurs,
    /// A service's address, but no service's port: reject.
    Unserved,
    /// An address of the service range that no service has: drop, since nobody else has it either.
    Unallocated,
    /// A frontend.
    Found(Frontend),
}

/// Looks an address up for a packet or socket whose destination lies at `place`. `reach` says
/// which addresses count as a node's.
#[inline(always)]
pub fn lookup<F: Family, T: Tables<F>>(
    tables: T,
    place: Place,
    addr: F::Addr,
    port: Port,
    proto: Proto,
    reach: Reach,
) -> Lookup {
    match place {
        Place::Service => match exact::<F, T>(tables, addr, port, proto) {
            Some(frontend) => Lookup::Found(frontend),
            None if is_vip::<F, T>(tables, addr) => Lookup::Unserved,
            None => Lookup::Unallocated,
        },
        Place::Outside => outside::<F, T>(tables, addr, port, proto, reach),
        Place::Local(_) | Place::Remote(_) => Lookup::NotOurs,
    }
}

/// Whether a frontend outside the service range may have this address, or this port on the node's addresses: two bits that keep
/// most packets from being looked up.
#[inline(always)]
pub fn possible<F: Family, T: Tables<F>>(tables: T, addr: F::Addr, port: Port, proto: Proto) -> bool {
    tables.bit(proto.port_row(), port.host()) || vip_possible::<F, T>(tables, addr)
}

/// Whether a frontend outside the service range may have this address.
#[inline(always)]
pub fn vip_possible<F: Family, T: Tables<F>>(tables: T, addr: F::Addr) -> bool {
    tables.bit(VIP_ROW, vip_bit(F::mix(addr)))
}

/// Whether the address as such is a service's.
#[inline(always)]
pub fn is_vip<F: Family, T: Tables<F>>(tables: T, addr: F::Addr) -> bool {
    exact::<F, T>(tables, addr, Port(0), F::ICMP).is_some_and(|row| row.flags & frontend::flags::VIP != 0)
}

#[inline(always)]
fn exact<F: Family, T: Tables<F>>(tables: T, addr: F::Addr, port: Port, proto: Proto) -> Option<Frontend> {
    tables.frontend(&F::frontend_key(addr, port, proto, SCOPE_EXACT))
}

/// External addresses and load balancer addresses, then node ports.
#[inline(always)]
fn outside<F: Family, T: Tables<F>>(
    tables: T,
    addr: F::Addr,
    port: Port,
    proto: Proto,
    reach: Reach,
) -> Lookup {
    if vip_possible::<F, T>(tables, addr) {
        if let Some(frontend) = exact::<F, T>(tables, addr, port, proto) {
            return Lookup::Found(frontend);
        }
        if is_vip::<F, T>(tables, addr) {
            return Lookup::Unserved;
        }
    }
    if !tables.bit(proto.port_row(), port.host()) {
        return Lookup::NotOurs;
    }
    let served = if F::is_loopback(addr) {
        reach as u8 == Reach::Loopback as u8
    } else if reach as u8 == Reach::AnyNode as u8 {
        tables.node(addr).is_some()
    } else {
        has_node_ports::<F, T>(tables, addr)
    };
    if !served {
        return Lookup::NotOurs;
    }
    match tables.frontend(&F::frontend_key(F::UNSPECIFIED, port, proto, SCOPE_NODE_PORT)) {
        Some(frontend) => Lookup::Found(frontend),
        None => Lookup::NotOurs,
    }
}

/// Whether the address is this node's and serves node ports.
#[inline(always)]
pub fn has_node_ports<F: Family, T: Tables<F>>(tables: T, addr: F::Addr) -> bool {
    let wanted = node_flags::LOCAL | node_flags::NODE_PORT;
    tables.node(addr).is_some_and(|node| node.flags & wanted == wanted)
}

/// Whether the client may use the frontend, as far as source ranges say (`loadBalancerSourceRanges`).
#[inline(always)]
pub fn admits<F: Family, T: Tables<F>>(tables: T, frontend: Frontend, client: F::Addr) -> bool {
    frontend.flags & frontend::flags::SOURCE_RANGES == 0 || tables.allows(frontend.service, client)
}

/// A chosen backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<F: Family> {
    /// Its index.
    pub index: u32,
    /// The backend.
    pub backend: Backend<F>,
    /// The service's flags, see [`abi::service::flags`].
    pub service_flags: u32,
    /// Another packet of the connection would lead to this backend, too, as long as the tables stay.
    pub repeatable: bool,
}

/// Chooses a backend for a new connection: the client's last one if the service wants that and it still serves, otherwise
/// as the service's algorithm says.
///
/// # Errors
/// [`Reason::NoEndpoint`] asks for a rejection, the others for a silent drop.
#[inline(always)]
pub fn select<F: Family, T: Tables<F>>(
    tables: T,
    frontend: Frontend,
    client: Client,
    origin: Origin<F>,
) -> Result<Choice<F>, Reason> {
    let Some(service) = tables.service(frontend.service) else {
        return Err(Reason::BackendMissing);
    };
    let external = frontend.flags & frontend::flags::EXTERNAL != 0;
    let handed_over = client as u8 == Client::HandedOver as u8;
    let local = match (external, client) {
        (_, Client::HandedOver) => true,
        (false, _) => service.flags & flags::INTERNAL_LOCAL != 0,
        (true, Client::Outside) => service.flags & flags::EXTERNAL_LOCAL != 0,
        (true, Client::OnNode) => false,
    };
    let run = if local { service.run_local } else { service.run_cluster };
    if run.count() == 0 {
        if handed_over {
            return Err(Reason::HandOver);
        }
        let anywhere = service.run_cluster.count() != 0;
        return Err(if anywhere { Reason::NoLocalEndpoint } else { Reason::NoEndpoint });
    }
    let sticky = service.flags & flags::AFFINITY != 0;
    let bond = Bond { service: frontend.service, origin };
    if sticky && let Some((index, backend)) = bond.recall(tables, &service, local) {
        return Ok(Choice { index, backend, service_flags: service.flags, repeatable: false });
    }
    let chosen = balance::choose::<F, T>(tables, frontend.service, &service, run, local, &origin);
    let Some((index, repeatable)) = chosen else {
        return Err(Reason::BackendMissing);
    };
    match tables.backend(index) {
        Some(backend) if backend.state != backend::STATE_FREE => {
            if sticky {
                bond.tie(tables, index, &backend);
            }
            Ok(Choice { index, backend, service_flags: service.flags, repeatable })
        }
        _ => Err(Reason::BackendMissing),
    }
}
