//! Services: from an address and port to a frontend, from a frontend to a backend.

use abi::{
    Port, Proto, Reason, backend,
    config::switches,
    frontend::{self, Frontend, SCOPE_EXACT, SCOPE_NODE_PORT},
    route::node_flags,
    service::{Run, SLOTS_PER_LINE, flags},
};

use crate::{
    affinity::{Bond, Origin},
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
}

/// What a look-up found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// No service's address.
    NotOurs,
    /// A service's address, but no service's port.
    Unserved,
    /// A frontend.
    Found(Frontend),
}

/// Looks an address up for a packet or socket whose destination lies at `place`. Loopback counts as a node address
/// with `loopback`.
#[inline(always)]
pub fn lookup<F: Family, T: Tables<F>>(
    tables: T,
    place: Place,
    addr: F::Addr,
    port: Port,
    proto: Proto,
    loopback: bool,
) -> Lookup {
    match place {
        Place::Service => match tables.frontend(&F::frontend_key(addr, port, proto, SCOPE_EXACT)) {
            Some(frontend) => found(frontend),
            None => Lookup::Unserved,
        },
        Place::Outside => outside::<F, T>(tables, addr, port, proto, loopback),
        Place::Local(_) | Place::Remote(_) => Lookup::NotOurs,
    }
}

/// Node ports, external addresses, load balancer addresses: only if some frontend has the port at all.
#[inline(always)]
fn outside<F: Family, T: Tables<F>>(
    tables: T,
    addr: F::Addr,
    port: Port,
    proto: Proto,
    loopback: bool,
) -> Lookup {
    if !tables.port_in_use(proto.port_row(), port.host()) {
        return Lookup::NotOurs;
    }
    let exact = tables.switches() & switches::EXTERNAL_FRONTENDS != 0;
    if exact && let Some(frontend) = tables.frontend(&F::frontend_key(addr, port, proto, SCOPE_EXACT)) {
        return found(frontend);
    }
    let wanted = node_flags::LOCAL | node_flags::NODE_PORT;
    let served = if F::is_loopback(addr) {
        loopback
    } else {
        tables.node(addr).is_some_and(|node| node.flags & wanted == wanted)
    };
    if !served {
        return Lookup::NotOurs;
    }
    match tables.frontend(&F::frontend_key(F::UNSPECIFIED, port, proto, SCOPE_NODE_PORT)) {
        Some(frontend) => found(frontend),
        None => Lookup::NotOurs,
    }
}

#[inline(always)]
fn found(frontend: Frontend) -> Lookup {
    if frontend.flags & frontend::flags::REJECT != 0 { Lookup::Unserved } else { Lookup::Found(frontend) }
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
}

/// Chooses a backend for a new connection: the client's last one if the service wants that and it still serves, otherwise
/// one at random.
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
    let local = match (external, client) {
        (false, _) => service.flags & flags::INTERNAL_LOCAL != 0,
        (true, Client::Outside) => service.flags & flags::EXTERNAL_LOCAL != 0,
        (true, Client::OnNode) => false,
    };
    let run = if local { service.run_local } else { service.run_cluster };
    if run.count() == 0 {
        let anywhere = service.run_cluster.count() != 0;
        return Err(if anywhere { Reason::NoLocalEndpoint } else { Reason::NoEndpoint });
    }
    let sticky = service.flags & flags::AFFINITY != 0;
    let bond = Bond { service: frontend.service, origin };
    if sticky && let Some((index, backend)) = bond.recall(tables, &service, local) {
        return Ok(Choice { index, backend, service_flags: service.flags });
    }
    let index = pick(tables.random(), run);
    let Some(index) = tables.slot(run.base().wrapping_add(index / SLOTS_PER_LINE), index % SLOTS_PER_LINE)
    else {
        return Err(Reason::BackendMissing);
    };
    match tables.backend(index) {
        Some(backend) if backend.state != backend::STATE_FREE => {
            if sticky {
                bond.tie(tables, index, &backend);
            }
            Ok(Choice { index, backend, service_flags: service.flags })
        }
        _ => Err(Reason::BackendMissing),
    }
}

/// A slot of the run: multiply-shift instead of a division.
#[inline(always)]
fn pick(random: u32, run: Run) -> u32 {
    ((random as u64 * run.count() as u64) >> 32) as u32
}
