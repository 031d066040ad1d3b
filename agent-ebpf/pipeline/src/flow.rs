//! Flows: one probe for a known connection, a pair of entries for a new translated one.
//!
//! A pair is created reverse first, so that a reply can never arrive before its entry, and so that the reverse key's
//! `NOEXIST` insertion is at the same time the allocation of the source port ([`crate::ports`]). See `abi::flow` for a pair's life.
//!
//! Packets that another node answers (direct server return) have one entry, which knows the way and translates nothing.

use abi::{
    Mac, Port, Proto, Reason,
    flow::{FlowState, KIND_FORWARD, KIND_REVERSE, flags, idle_ticks, tcp_bits},
};

use crate::{
    checksum,
    family::{Family, Tuple},
    growth,
    parse::tcp,
    ports,
    tables::{FlowEntry, FlowTable, Insert, Refused, Scratch, Tables},
};

/// Looks up the flow of the scratch room's packet, notes that it lives and copies its entry to the scratch room. `false`
/// sends the packet to selection: there is no entry, or its backend is gone, or an earlier connection with the same ports
/// has closed it. What is left in the last two cases is noted for [`open`].
#[inline(never)]
pub fn probe<F: Family, T: Tables<F>>(tables: T, scratch: &mut Scratch<F>) -> bool {
    scratch.key = F::flow_key(&scratch.headers.tuple);
    scratch.remains = 0;
    if let Some(entry) = growth::find::<F, T>(tables, FlowTable::Established, &scratch.key) {
        return accept::<F, T>(tables, &entry, scratch);
    }
    let Some(entry) = growth::find::<F, T>(tables, FlowTable::Embryonic, &scratch.key) else { return false };
    if !accept::<F, T>(tables, &entry, scratch) {
        return false;
    }
    let state = F::flow_parts(&scratch.flow).2;
    if state.kind == KIND_REVERSE {
        promote::<F, T>(tables, scratch);
    } else if state.flags & flags::DSR != 0 && !scratch.headers.opens() {
        if state.tcp & tcp_bits::REPLIED == 0 {
            entry.touch(state.last_seen, tcp_bits::REPLIED);
        } else {
            promote_one_way::<F, T>(tables, scratch);
        }
    }
    true
}

/// Looks up the entry for answers to the packet that an ICMP error quotes, and copies it to the scratch room. An error keeps
/// no flow alive.
#[inline(never)]
pub fn quoted<F: Family, T: Tables<F>>(tables: T, scratch: &mut Scratch<F>) -> bool {
    let Scratch { inner, key, flow, .. } = scratch;
    let answer = inner.tuple.reversed();
    *key = F::flow_key(&answer);
    for table in [FlowTable::Established, FlowTable::Embryonic] {
        if let Some(entry) = growth::find::<F, T>(tables, table, key) {
            entry.copy_to(flow);
            return F::flow_parts(flow).2.signature == signature::<F>(tables.config().hash_seed, &answer);
        }
    }
    false
}

#[inline(always)]
fn accept<F: Family, T: Tables<F>>(tables: T, entry: &T::Entry, scratch: &mut Scratch<F>) -> bool {
    entry.copy_to(&mut scratch.flow);
    scratch.remains = 1;
    let headers = &scratch.headers;
    let state = F::flow_parts(&scratch.flow).2;
    if state.signature != signature::<F>(tables.config().hash_seed, &headers.tuple) {
        return false;
    }
    if state.kind == KIND_FORWARD && (headers.opens() || !headers.connected()) {
        let closed = state.tcp & (tcp_bits::FIN | tcp_bits::RST) != 0;
        if closed || tables.generation(state.backend) != state.backend_generation {
            return false;
        }
    }
    let (now, bits) = (tables.now(), shown(headers.tcp));
    entry.touch(now, bits);
    // The copy too: a first answer moves it to the other table, and may be a reset.
    let state = F::flow_state(&mut scratch.flow);
    state.last_seen = now;
    state.tcp |= bits;
    true
}

/// What TCP's flags (or what SCTP has in their place) add to [`FlowState::tcp`].
#[inline(always)]
fn shown(flags: u8) -> u8 {
    let mut bits = 0;
    if flags & tcp::SYN != 0 {
        bits |= tcp_bits::SYN;
    }
    if flags & tcp::FIN != 0 {
        bits |= tcp_bits::FIN;
    }
    if flags & tcp::RST != 0 {
        bits |= tcp_bits::RST;
    }
    bits
}

/// Moves an answered pair to the established table. The scratch room holds the reply's key and entry.
#[inline(never)]
fn promote<F: Family, T: Tables<F>>(tables: T, scratch: &mut Scratch<F>) {
    let Scratch { key, flow, reverse: other, .. } = scratch;
    let forward_key = F::opposite(key, flow);
    let Some(entry) = growth::find::<F, T>(tables, FlowTable::Embryonic, &forward_key) else { return };
    entry.copy_to(other);
    if !belong_together(F::flow_parts(flow).2, F::flow_parts(other).2) {
        return;
    }
    F::flow_state(flow).tcp |= tcp_bits::REPLIED;
    F::flow_state(other).tcp |= tcp_bits::REPLIED;
    // The reply's entry first, as at creation. If there is no room the pair stays where it is, and lives as long as the
    // embryonic table lets it.
    if growth::insert::<F, T>(tables, FlowTable::Established, key, flow, Insert::Replace).is_err() {
        return;
    }
    if growth::insert::<F, T>(tables, FlowTable::Established, &forward_key, other, Insert::Replace).is_err() {
        growth::delete::<F, T>(tables, FlowTable::Established, key);
        return;
    }
    growth::delete::<F, T>(tables, FlowTable::Embryonic, &forward_key);
    growth::delete::<F, T>(tables, FlowTable::Embryonic, key);
}

/// Whether two entries that name each other are of one connection: the client of datagrams may have got another backend since, and what
/// the former one answers still comes through.
#[inline(always)]
fn belong_together(one: &FlowState, other: &FlowState) -> bool {
    one.backend == other.backend && one.backend_generation == other.backend_generation
}

/// Moves the entry of packets that are answered elsewhere to the established table: a sender that sends on is no flood.
#[inline(never)]
fn promote_one_way<F: Family, T: Tables<F>>(tables: T, scratch: &mut Scratch<F>) {
    let Scratch { key, flow, .. } = scratch;
    if growth::insert::<F, T>(tables, FlowTable::Established, key, flow, Insert::Replace).is_ok() {
        growth::delete::<F, T>(tables, FlowTable::Embryonic, key);
    }
}

/// Deletes a translated connection's pair if the answers to the scratch room's packet would meet it: the packet goes from
/// the same client to the same backend untranslated, by a port that the client uses for this now. Only a packet that opens a
/// connection, or a datagram, may ask for it. The pair of a TCP connection that lives stays, and so does the pair of datagrams
/// unless the packet is `direct`: otherwise XDP may have just translated it.
#[inline(never)]
pub fn make_way<F: Family, T: Tables<F>>(tables: T, scratch: &mut Scratch<F>, direct: bool) {
    if scratch.headers.connected() && !scratch.headers.opens() {
        return;
    }
    for table in [FlowTable::Established, FlowTable::Embryonic] {
        clear::<F, T>(tables, scratch, table, direct);
    }
}

/// [`make_way`] in one table.
#[inline(never)]
fn clear<F: Family, T: Tables<F>>(tables: T, scratch: &mut Scratch<F>, table: FlowTable, direct: bool) {
    let Scratch { headers, key, flow, reverse: other, .. } = scratch;
    let answer = headers.tuple.reversed();
    *key = F::flow_key(&answer);
    let Some(entry) = growth::find::<F, T>(tables, table, key) else { return };
    entry.copy_to(flow);
    let state = F::flow_parts(flow).2;
    if state.kind != KIND_REVERSE || state.signature != signature::<F>(tables.config().hash_seed, &answer) {
        return;
    }
    let forward_key = F::opposite(key, flow);
    if let Some(entry) = growth::find::<F, T>(tables, table, &forward_key) {
        entry.copy_to(other);
        let (one, two) = (F::flow_parts(flow).2, F::flow_parts(other).2);
        let paired = belong_together(one, two);
        let kept = headers.connected() || !direct;
        if paired && kept && lives(tables.now(), headers.tuple.proto, one, two) {
            return;
        }
        if paired {
            growth::delete::<F, T>(tables, table, &forward_key);
        }
    }
    growth::delete::<F, T>(tables, table, key);
}

/// Whether a connection with these two entries may go on: it was not reset, nor closed from both sides, nor silent for too long.
#[inline(always)]
fn lives(now: u32, proto: Proto, one: &FlowState, other: &FlowState) -> bool {
    let (all, both) = (one.tcp | other.tcp, one.tcp & other.tcp);
    if all & tcp_bits::RST != 0 || both & tcp_bits::FIN != 0 {
        return false;
    }
    let idle = |seen: u32| now.wrapping_sub(seen) as i32;
    let idle =
        if idle(one.last_seen) < idle(other.last_seen) { idle(one.last_seen) } else { idle(other.last_seen) };
    idle <= idle_ticks(proto, all) as i32
}

/// A connection to be translated.
#[derive(Clone, Copy, Debug)]
pub struct Opening<F: Family> {
    /// What the client sends.
    pub client: Tuple<F::Addr>,
    /// The source address that the backend must see.
    pub src: F::Addr,
    /// The backend's address.
    pub dst: F::Addr,
    /// The backend's port.
    pub dport: Port,
    /// Service id.
    pub service: u32,
    /// Backend index.
    pub backend: u32,
    /// The backend's generation.
    pub generation: u16,
    /// Bits of [`abi::flow::flags`] for both directions.
    pub flags: u16,
    /// Next hop of the forward direction, zero to find it by address.
    pub nexthop: u32,
    /// Interface that the client's packet came by.
    pub ifindex: u32,
    /// Where the client's frame came from.
    pub mac: Mac,
    /// TCP flags of the first packet.
    pub tcp: u8,
    /// Largest segment that the client may be told, zero for any.
    pub mss: u16,
    /// The packet goes its way without an entry: see [`crate::handover`].
    pub unrecorded: bool,
}

impl<F: Family> Opening<F> {
    /// What the backend sees if the client's source port becomes `sport`.
    #[inline(always)]
    fn translated(&self, sport: Port) -> Tuple<F::Addr> {
        Tuple { src: self.src, dst: self.dst, sport, dport: self.dport, proto: self.client.proto }
    }
}

/// Creates the pair (or the one entry, or none) that the scratch room's opening asks for; leaves the forward entry in the scratch room.
/// [`probe`] has said that the packet has no flow.
///
/// # Errors
/// [`Reason::PortsExhausted`] and [`Reason::FlowTableFull`].
#[inline(never)]
pub fn open<F: Family, T: Tables<F>>(tables: T, scratch: &mut Scratch<F>) -> Result<(), Reason> {
    scratch.key = F::flow_key(&scratch.opening.client);
    if scratch.remains != 0 {
        for table in [FlowTable::Established, FlowTable::Embryonic] {
            forget::<F, T>(tables, scratch, table);
        }
    }
    if scratch.opening.flags & flags::DSR != 0 {
        return one_way::<F, T>(tables, scratch);
    }
    let mut sport = ports::first::<F, T>(tables, &scratch.opening);
    for attempt in 0..ports::ATTEMPTS {
        let mut claimed = claim::<F, T>(tables, scratch, sport);
        if claimed == Err(Refused::Exists) {
            claimed = retake::<F, T>(tables, scratch);
        }
        match claimed {
            Ok(()) => return forward::<F, T>(tables, scratch, sport),
            Err(Refused::Exists) => sport = ports::next::<F, T>(tables, &scratch.opening, attempt),
            Err(Refused::Full) => return Err(Reason::FlowTableFull),
        }
    }
    Err(Reason::PortsExhausted)
}

/// The entry of a connection that another node answers: its packets stay as they are, and only the way is remembered, or for this
/// one packet just written down in the scratch room.
#[inline(never)]
fn one_way<F: Family, T: Tables<F>>(tables: T, scratch: &mut Scratch<F>) -> Result<(), Reason> {
    let Scratch { key, opening, flow, headers, .. } = scratch;
    fill::<F, T>(tables, flow, opening, &opening.client, &opening.client, KIND_FORWARD);
    if opening.unrecorded {
        return Ok(());
    }
    if !headers.opens() {
        F::flow_state(flow).tcp |= tcp_bits::REPLIED;
    }
    growth::insert::<F, T>(tables, FlowTable::Embryonic, key, flow, Insert::Replace)
        .map_err(|_| Reason::FlowTableFull)
}

/// Deletes what an earlier connection with the key's ports has left, forward first. The answers to datagrams that are under way still have
/// to come through: the entry for them grows old by itself.
#[inline(never)]
fn forget<F: Family, T: Tables<F>>(tables: T, scratch: &mut Scratch<F>, table: FlowTable) {
    let Scratch { headers, key, flow, .. } = scratch;
    let Some(entry) = growth::find::<F, T>(tables, table, key) else { return };
    entry.copy_to(flow);
    growth::delete::<F, T>(tables, table, key);
    if headers.connected() {
        let forward_key = *key;
        *key = F::opposite(key, flow);
        growth::delete::<F, T>(tables, table, key);
        *key = forward_key;
    }
}

/// The first half of a pair: inserting the reverse entry takes the source port.
#[inline(never)]
fn claim<F: Family, T: Tables<F>>(tables: T, scratch: &mut Scratch<F>, sport: Port) -> Result<(), Refused> {
    let Scratch { key, opening, reverse, .. } = scratch;
    let from = opening.translated(sport).reversed();
    *key = F::flow_key(&from);
    fill::<F, T>(tables, reverse, opening, &from, &opening.client.reversed(), KIND_REVERSE);
    if growth::find::<F, T>(tables, FlowTable::Established, key).is_some() {
        return Err(Refused::Exists);
    }
    growth::insert::<F, T>(tables, FlowTable::Embryonic, key, reverse, Insert::New)
}

/// After [`claim`] found the key taken: an entry that the same client has left there is taken over. Its forward half was evicted, or led
/// to another backend in between.
#[inline(never)]
fn retake<F: Family, T: Tables<F>>(tables: T, scratch: &mut Scratch<F>) -> Result<(), Refused> {
    let Scratch { key, opening, flow, reverse, .. } = scratch;
    for table in [FlowTable::Established, FlowTable::Embryonic] {
        let Some(entry) = growth::find::<F, T>(tables, table, key) else { continue };
        entry.copy_to(flow);
        if !is_reply_to::<F>(flow, &opening.client) {
            return Err(Refused::Exists);
        }
    }
    // In this order: an answer finds one of them at any moment.
    growth::insert::<F, T>(tables, FlowTable::Embryonic, key, reverse, Insert::Replace)?;
    growth::delete::<F, T>(tables, FlowTable::Established, key);
    Ok(())
}

/// Whether a reverse entry leads back to this client's connection.
#[inline(always)]
fn is_reply_to<F: Family>(reverse: &F::Flow, client: &Tuple<F::Addr>) -> bool {
    let (src, dst, state) = F::flow_parts(reverse);
    src == client.dst && dst == client.src && state.sport == client.dport && state.dport == client.sport
}

/// The second half of a pair. The key of the first is still in the scratch room.
#[inline(never)]
fn forward<F: Family, T: Tables<F>>(tables: T, scratch: &mut Scratch<F>, sport: Port) -> Result<(), Reason> {
    let Scratch { key, opening, flow, .. } = scratch;
    fill::<F, T>(tables, flow, opening, &opening.client, &opening.translated(sport), KIND_FORWARD);
    let reverse_key = *key;
    *key = F::flow_key(&opening.client);
    if growth::insert::<F, T>(tables, FlowTable::Embryonic, key, flow, Insert::Replace).is_ok() {
        return Ok(());
    }
    growth::delete::<F, T>(tables, FlowTable::Embryonic, &reverse_key);
    Err(Reason::FlowTableFull)
}

/// Writes one direction's entry: packets that arrive as `from` leave as `to`.
#[inline(always)]
fn fill<F: Family, T: Tables<F>>(
    tables: T,
    out: &mut F::Flow,
    opening: &Opening<F>,
    from: &Tuple<F::Addr>,
    to: &Tuple<F::Addr>,
    kind: u8,
) {
    let now = tables.now();
    let old = F::sum(from.src) + F::sum(from.dst);
    let new = F::sum(to.src) + F::sum(to.dst);
    let forward = kind == KIND_FORWARD;
    F::set_ends(out, to.src, to.dst);
    // Field by field: a whole value would be put together on the stack first.
    let state = F::flow_state(out);
    state.sport = to.sport;
    state.dport = to.dport;
    state._l3_delta = 0;
    state.addr_delta = checksum::difference(old, new);
    state.port_delta =
        checksum::add(checksum::port(from.sport, to.sport), checksum::port(from.dport, to.dport));
    state.kind = kind;
    state.tcp = if forward { shown(opening.tcp) } else { 0 };
    state.nexthop = if forward { opening.nexthop } else { 0 };
    state.peer_ifindex = opening.ifindex;
    state.service = opening.service;
    state.backend = opening.backend;
    state.backend_generation = opening.generation;
    state.policy_generation = 0;
    state.signature = signature::<F>(tables.config().hash_seed, from);
    state.last_seen = now;
    state.created = now;
    state.flags = opening.flags;
    state.mss = if forward { 0 } else { opening.mss };
    state.peer_mac = opening.mac;
    state._spare = 0;
}

/// The signature of the entry for packets that arrive as `tuple`.
#[inline(always)]
pub fn signature<F: Family>(seed: u32, tuple: &Tuple<F::Addr>) -> u32 {
    let ports = u32::from(tuple.sport.0) << 16 | u32::from(tuple.dport.0);
    let mut hash = seed ^ F::mix(tuple.src);
    hash = hash.wrapping_mul(0x9e37_79b1).rotate_left(15) ^ F::mix(tuple.dst);
    hash = hash.wrapping_mul(0x85eb_ca6b).rotate_left(13) ^ ports;
    hash.wrapping_mul(0xc2b2_ae35) ^ u32::from(tuple.proto.0)
}
