//! Client affinity: a client's new connection goes where its last one went, as long as that backend serves.
//!
//! Asked only for new connections to services that want it. Entries are never deleted: one that names a backend's former
//! generation, or is older than the service's timeout, does not count and is written over by the next choice.

use abi::{
    affinity::{Affinity, SocketAffinityKey},
    backend,
    service::Service,
};

use crate::{
    family::{Backend, Family, Tuple},
    tables::Tables,
};

/// By what a client is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<F: Family> {
    /// The source address of this packet.
    Packet(Tuple<F::Addr>),
    /// The cookie of its sockets' network namespace: a pod, or the node itself.
    Namespace(u64),
}

/// Where affinity keeps what it knows of a client of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bond<F: Family> {
    /// Service id.
    pub service: u32,
    /// The client.
    pub origin: Origin<F>,
}

impl<F: Family> Bond<F> {
    /// The backend of the client's last connection, if a new one may go there: `local` asks for one on this node. Being used
    /// makes the entry young again.
    #[inline(always)]
    pub fn recall<T: Tables<F>>(
        self,
        tables: T,
        service: &Service,
        local: bool,
    ) -> Option<(u32, Backend<F>)> {
        let mut entry = self.read(tables)?;
        let now = tables.now();
        if entry.service != self.service || entry.expired(now, service.affinity_s) {
            return None;
        }
        let backend = tables.backend(entry.backend)?;
        let serves = backend.state == backend::STATE_READY || backend.state == backend::STATE_TERMINATING;
        let here = !local || backend.flags & backend::flags::LOCAL != 0;
        if !serves || !here || backend.generation != entry.generation {
            return None;
        }
        let index = entry.backend;
        if entry.last_seen != now {
            entry.last_seen = now;
            self.write(tables, &entry);
        }
        Some((index, backend))
    }

    /// Notes that the client was given this backend.
    #[inline(always)]
    pub fn tie<T: Tables<F>>(self, tables: T, index: u32, backend: &Backend<F>) {
        let entry = Affinity {
            service: self.service,
            backend: index,
            generation: backend.generation,
            _pad: 0,
            last_seen: tables.now(),
        };
        self.write(tables, &entry);
    }

    #[inline(always)]
    fn read<T: Tables<F>>(self, tables: T) -> Option<Affinity> {
        match self.origin {
            Origin::Packet(tuple) => tables.affinity(&F::affinity_key(self.service, tuple.src)),
            Origin::Namespace(netns) => tables.socket_affinity(&self.socket_key(netns)),
        }
    }

    #[inline(always)]
    fn write<T: Tables<F>>(self, tables: T, entry: &Affinity) {
        match self.origin {
            Origin::Packet(tuple) => tables.set_affinity(&F::affinity_key(self.service, tuple.src), entry),
            Origin::Namespace(netns) => tables.set_socket_affinity(&self.socket_key(netns), entry),
        }
    }

    #[inline(always)]
    const fn socket_key(self, netns: u64) -> SocketAffinityKey {
        SocketAffinityKey { netns, service: self.service, _pad: 0 }
    }
}
