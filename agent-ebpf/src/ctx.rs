//! The kernel's contexts as the stages see them, and the numbers of their verdicts.
//!
//! Packet bytes are read and written directly, in the form that the verifier understands: add the offset, compare with
//! the end, then access. Loads are plain even where a packet field is not aligned: the BPF target has no alignment traps,
//! and the kernel's verifier checks the access for the machine.
#![expect(unsafe_code, reason = "contexts and packets are reached by pointer: one of the two files that may")]

use abi::{
    Ip4, Ip6, Port, Proto, Reason,
    route::HandOff,
    socket::SocketReverse,
    zerocopy::{FromBytes, Immutable, IntoBytes},
};
use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_ZERO_CSUM_TX, bpf_sock_addr, bpf_tunnel_key,
        xdp_action, xdp_md,
    },
    helpers::generated::{
        bpf_check_mtu, bpf_csum_update, bpf_get_netns_cookie, bpf_l4_csum_replace, bpf_redirect,
        bpf_redirect_neigh, bpf_redirect_peer, bpf_set_retval, bpf_skb_change_tail, bpf_skb_change_type,
        bpf_skb_pull_data, bpf_skb_set_tunnel_key, bpf_xdp_adjust_head, bpf_xdp_adjust_meta,
        bpf_xdp_adjust_tail, bpf_xdp_get_buff_len,
    },
    programs::{SockAddrContext, TcContext, XdpContext},
};
use pipeline::{
    Common as _, Packet, Verdict,
    packet::{MAX_OFFSET, Mend},
};

mod sock;

pub use sock::Sock;

use crate::maps::{Maps, SKREV};

/// `TCX_NEXT`: on to the next program or the stack (`include/uapi/linux/bpf.h`, `enum tcx_action_base`).
const TCX_NEXT: i32 = -1;
/// `TCX_DROP`.
const TCX_DROP: i32 = 2;
/// `PACKET_HOST` (`include/uapi/linux/if_packet.h`): the frame is for this host.
const PACKET_HOST: u32 = 0;
/// Time to live of outer packets.
const TUNNEL_TTL: u8 = 64;

/// A packet pointer from its 32-bit field of a context. The load is written out, since a compiler that knows the upper
/// half to be zero moves the value through 32-bit registers, and the verifier then takes it for a number.
macro_rules! packet_pointer {
    ($ctx:expr, $context:ty, $field:ident) => {{
        let pointer: usize;
        // SAFETY: the context is the program's own; the kernel rewrites this load to the packet's address.
        unsafe {
            core::arch::asm!(
                "{pointer} = *(u32 *)({ctx} + {at})",
                pointer = lateout(reg) pointer,
                ctx = in(reg) $ctx,
                at = const core::mem::offset_of!($context, $field),
                options(pure, readonly, nostack),
            );
        }
        pointer
    }};
}

/// Address of the `size` bytes at `at`, if they lie inside the packet.
#[inline(always)]
fn place(data: usize, end: usize, at: usize, size: usize) -> Option<usize> {
    let start = data + (at & (MAX_OFFSET - 1));
    let mut limit = start + size;
    if size == 1 {
        // The compiler would compare `start >= end`, from which the verifier learns nothing.
        // SAFETY: moves a register onto itself. (An empty instruction would leave two line records for one address, which
        // the kernel refuses.)
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) limit, options(pure, nomem, nostack)) };
    }
    if limit > end { None } else { Some(start) }
}

#[inline(always)]
fn load<T: FromBytes + Copy>(data: usize, end: usize, at: usize) -> Option<T> {
    let start = place(data, end, at, size_of::<T>())?;
    // SAFETY: the bytes lie inside the packet; any bytes make a `T`.
    Some(unsafe { (start as *const T).read() })
}

/// Reads an address field of a context.
///
/// # Safety
///
/// `field` is in a context of the running program.
#[inline(always)]
unsafe fn read_ip6(field: *const [u32; 4]) -> Ip6 {
    let word = field.cast::<u32>();
    // SAFETY: the caller's; the verifier allows words of the address only.
    unsafe {
        Ip6([
            word.read_volatile(),
            word.add(1).read_volatile(),
            word.add(2).read_volatile(),
            word.add(3).read_volatile(),
        ])
    }
}

#[inline(always)]
fn store<T: IntoBytes + Immutable>(data: usize, end: usize, at: usize, value: T) {
    if let Some(start) = place(data, end, at, size_of::<T>()) {
        // SAFETY: the bytes lie inside the packet.
        unsafe { (start as *mut T).write(value) }
    }
}

/// Having a global name makes this a program that the verifier looks at once, with any numbers, instead of once for each way to a
/// call.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn bl_times(a: u32, b: u32) -> u32 {
    pipeline::sctp::times(a, b)
}

/// A packet at an XDP hook.
pub struct Xdp(XdpContext);

impl Xdp {
    #[inline(always)]
    fn data(&self) -> usize {
        packet_pointer!(self.0.ctx, xdp_md, data)
    }

    #[inline(always)]
    fn end_of_data(&self) -> usize {
        packet_pointer!(self.0.ctx, xdp_md, data_end)
    }

    /// Wraps the context.
    #[inline(always)]
    pub fn new(ctx: XdpContext) -> Self {
        Self(ctx)
    }

    /// The verdict as an XDP action.
    #[inline(always)]
    pub fn end(&self, verdict: Verdict) -> u32 {
        match verdict {
            Verdict::Pass => xdp_action::XDP_PASS,
            Verdict::Drop(reason) => {
                Maps.count_drop(reason);
                xdp_action::XDP_DROP
            }
            Verdict::Transmit => xdp_action::XDP_TX,
            // SAFETY: the helper takes numbers only.
            Verdict::Redirect(ifindex) => unsafe { bpf_redirect(ifindex, 0) as u32 },
            // Pods and unknown neighbours are reached from tcx, after the stack has made an skb.
            Verdict::Peer(_) | Verdict::Neighbour(_) => xdp_action::XDP_PASS,
            Verdict::HandOff(nexthop) => {
                self.write_note(HandOff { magic: HandOff::MAGIC, nexthop });
                xdp_action::XDP_PASS
            }
        }
    }

    /// Leaves a note for tcx in front of the packet. A driver that has no room for one passes the packet without: tcx finds the pod
    /// by its address then.
    #[inline(always)]
    fn write_note(&self, note: HandOff) {
        // SAFETY: the context is the program's own.
        if unsafe { bpf_xdp_adjust_meta(self.0.ctx, -(size_of::<HandOff>() as i32)) } != 0 {
            return;
        }
        let (start, data) = (packet_pointer!(self.0.ctx, xdp_md, data_meta), self.data());
        if start + size_of::<HandOff>() <= data {
            // SAFETY: the bytes lie between the note's start and the packet's.
            unsafe { (start as *mut HandOff).write(note) }
        }
    }
}

impl Packet for Xdp {
    #[inline(always)]
    fn is_at_xdp(&self) -> bool {
        true
    }

    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: the context is the program's own.
        unsafe { bpf_xdp_get_buff_len(self.0.ctx) as usize }
    }

    #[inline(always)]
    fn pull(&mut self, _len: usize) {}

    #[inline(always)]
    fn load<T: FromBytes + Copy>(&self, at: usize) -> Option<T> {
        load(self.data(), self.end_of_data(), at)
    }

    #[inline(always)]
    fn store<T: IntoBytes + Immutable>(&mut self, at: usize, value: T) {
        store(self.data(), self.end_of_data(), at, value);
    }

    #[inline(always)]
    fn mend(&mut self, at: usize, sums: Mend) {
        if let Some(stored) = self.load::<u16>(at) {
            self.store(at, sums.applied(stored));
        }
    }

    #[inline(always)]
    fn resize(&mut self, len: usize) -> bool {
        let delta = len as i32 - self.len() as i32;
        // SAFETY: the context is the program's own.
        unsafe { bpf_xdp_adjust_tail(self.0.ctx, delta) == 0 }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.0.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn mtu(&self) -> u16 {
        let mut mtu = 0_u32;
        // SAFETY: the context is the program's own; the helper writes one word.
        unsafe { bpf_check_mtu(self.0.ctx.cast(), self.ifindex(), &raw mut mtu, 0, 0) };
        mtu as u16
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn grow_front(&mut self, bytes: usize) -> bool {
        // SAFETY: the context is the program's own.
        unsafe { bpf_xdp_adjust_head(self.0.ctx, -(bytes as i32)) == 0 }
    }

    #[inline(always)]
    fn set_tunnel(&mut self, _vni: u32, _remote: u32) -> bool {
        false
    }

    #[inline(always)]
    fn times(a: u32, b: u32) -> u32 {
        bl_times(a, b)
    }

    #[inline(always)]
    fn note(&self) -> Option<u32> {
        None
    }
}

/// A packet at a tcx hook.
pub struct Tc(TcContext);

impl Tc {
    #[inline(always)]
    fn data(&self) -> usize {
        packet_pointer!(self.0.skb.skb, __sk_buff, data)
    }

    #[inline(always)]
    fn end_of_data(&self) -> usize {
        packet_pointer!(self.0.skb.skb, __sk_buff, data_end)
    }

    /// Wraps the context.
    #[inline(always)]
    pub fn new(ctx: TcContext) -> Self {
        Self(ctx)
    }

    /// The verdict as a tcx action.
    #[inline(always)]
    pub fn end(&self, verdict: Verdict) -> i32 {
        // SAFETY: the helpers take numbers only, and no neighbour parameters.
        unsafe {
            match verdict {
                Verdict::Pass => TCX_NEXT,
                Verdict::Drop(reason) => {
                    Maps.count_drop(reason);
                    TCX_DROP
                }
                Verdict::Peer(ifindex) => bpf_redirect_peer(ifindex, 0) as i32,
                Verdict::Redirect(ifindex) => bpf_redirect(ifindex, 0) as i32,
                Verdict::Neighbour(ifindex) => {
                    bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32
                }
                Verdict::Transmit => bpf_redirect(self.ifindex(), 0) as i32,
                // Only XDP leaves notes.
                Verdict::HandOff(_) => TCX_NEXT,
            }
        }
    }

    /// Makes the packet one for this host, whatever its frame's destination is.
    #[inline(always)]
    pub fn accept(&self) {
        // SAFETY: the context is the program's own.
        unsafe {
            if (*self.0.skb.skb).pkt_type != PACKET_HOST {
                bpf_skb_change_type(self.0.skb.skb, PACKET_HOST);
            }
        }
    }

    /// Adds a difference to the transport checksum at `at`.
    #[inline(always)]
    fn l4(&self, at: usize, difference: u16, flags: u32) {
        // SAFETY: the context is the program's own; the helper checks the offset.
        unsafe {
            bpf_l4_csum_replace(
                self.0.skb.skb,
                (at & (MAX_OFFSET - 1)) as u32,
                0,
                u64::from(difference),
                u64::from(flags),
            );
        }
    }
}

impl Packet for Tc {
    #[inline(always)]
    fn is_at_xdp(&self) -> bool {
        false
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len() as usize
    }

    #[inline(always)]
    fn pull(&mut self, len: usize) {
        let (reachable, whole) = (self.end_of_data() - self.data(), self.len());
        let len = if len > whole { whole } else { len };
        if len > reachable {
            // SAFETY: the context is the program's own.
            unsafe { bpf_skb_pull_data(self.0.skb.skb, len as u32) };
        }
    }

    #[inline(always)]
    fn load<T: FromBytes + Copy>(&self, at: usize) -> Option<T> {
        load(self.data(), self.end_of_data(), at)
    }

    #[inline(always)]
    fn store<T: IntoBytes + Immutable>(&mut self, at: usize, value: T) {
        store(self.data(), self.end_of_data(), at, value);
    }

    /// Goes through the helper, which alone knows whether the checksum is complete, partial or verified by hardware.
    #[inline(always)]
    fn mend(&mut self, at: usize, sums: Mend) {
        let zero = if sums.zero_is_none { BPF_F_MARK_MANGLED_0 } else { 0 };
        if sums.pseudo {
            self.l4(at, sums.addresses, BPF_F_PSEUDO_HDR | zero);
            if sums.ipv6 {
                // The helper assumes that a header checksum balances the addresses; IPv6 has none.
                // SAFETY: the context is the program's own.
                unsafe { bpf_csum_update(self.0.skb.skb, u32::from(sums.addresses)) };
            }
        }
        if sums.ports != 0 {
            self.l4(at, sums.ports, zero);
        }
    }

    #[inline(always)]
    fn resize(&mut self, len: usize) -> bool {
        // SAFETY: the context is the program's own.
        unsafe { bpf_skb_change_tail(self.0.skb.skb, len as u32, 0) == 0 }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is the program's own.
        unsafe { (*self.0.skb.skb).ifindex }
    }

    #[inline(always)]
    fn mtu(&self) -> u16 {
        let mut mtu = 0_u32;
        // SAFETY: the context is the program's own; the helper writes one word.
        unsafe { bpf_check_mtu(self.0.skb.skb.cast(), self.ifindex(), &raw mut mtu, 0, 0) };
        mtu as u16
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        // SAFETY: the context is the program's own.
        unsafe { (*self.0.skb.skb).gso_size }
    }

    #[inline(always)]
    fn grow_front(&mut self, _bytes: usize) -> bool {
        false
    }

    #[inline(always)]
    fn set_tunnel(&mut self, vni: u32, remote: u32) -> bool {
        // SAFETY: all bytes of the key may be zero.
        let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
        key.tunnel_id = vni;
        // The helper wants a number.
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be(remote);
        key.tunnel_ttl = TUNNEL_TTL;
        let (skb, size) = (self.0.skb.skb, size_of::<bpf_tunnel_key>() as u32);
        // SAFETY: the context is the program's own, and the key lives during the call.
        unsafe { bpf_skb_set_tunnel_key(skb, &raw mut key, size, u64::from(BPF_F_ZERO_CSUM_TX)) == 0 }
    }

    #[inline(always)]
    fn times(a: u32, b: u32) -> u32 {
        bl_times(a, b)
    }

    #[inline(always)]
    fn note(&self) -> Option<u32> {
        let start = packet_pointer!(self.0.skb.skb, __sk_buff, data_meta);
        if start + size_of::<HandOff>() > self.data() {
            return None;
        }
        // SAFETY: the bytes lie before the packet.
        let note = unsafe { (start as *const HandOff).read() };
        (note.magic == HandOff::MAGIC).then_some(note.nexthop)
    }
}

/// A socket call.
pub struct SockAddr(SockAddrContext);

/// Answers of a `sock_addr` program.
pub const ALLOW: i32 = 1;
const DENY: i32 = 0;

impl SockAddr {
    /// Wraps the context.
    #[inline(always)]
    pub fn new(ctx: SockAddrContext) -> Self {
        Self(ctx)
    }

    #[inline(always)]
    fn raw(&self) -> *mut bpf_sock_addr {
        self.0.as_ptr().cast()
    }

    /// The call's IPv4 address.
    #[inline(always)]
    pub fn ip4(&self) -> Ip4 {
        // SAFETY: the context is the program's own; the field is read at its full width.
        Ip4(unsafe { (&raw const (*self.raw()).user_ip4).read_volatile() })
    }

    /// The call's IPv6 address.
    #[inline(always)]
    pub fn ip6(&self) -> Ip6 {
        // SAFETY: the context is the program's own.
        unsafe { read_ip6(&raw const (*self.raw()).user_ip6) }
    }

    /// The call's port.
    #[inline(always)]
    pub fn port(&self) -> Port {
        // SAFETY: the context is the program's own.
        Port(unsafe { (&raw const (*self.raw()).user_port).read_volatile() } as u16)
    }

    /// The socket's protocol.
    #[inline(always)]
    pub fn proto(&self) -> Proto {
        // SAFETY: the context is the program's own.
        Proto(unsafe { (&raw const (*self.raw()).protocol).read_volatile() } as u8)
    }

    /// Replaces the call's IPv4 address and port.
    #[inline(always)]
    pub fn set4(&self, addr: Ip4, port: Port) {
        // SAFETY: the context is the program's own; both fields are writable at their full width.
        unsafe {
            (&raw mut (*self.raw()).user_ip4).write_volatile(addr.0);
            (&raw mut (*self.raw()).user_port).write_volatile(u32::from(port.0));
        }
    }

    /// Replaces the call's IPv6 address and port.
    #[inline(always)]
    pub fn set6(&self, addr: Ip6, port: Port) {
        // SAFETY: as above; the verifier allows words of the address only.
        unsafe {
            let words = (&raw mut (*self.raw()).user_ip6).cast::<u32>();
            words.write_volatile(addr.0[0]);
            words.add(1).write_volatile(addr.0[1]);
            words.add(2).write_volatile(addr.0[2]);
            words.add(3).write_volatile(addr.0[3]);
            (&raw mut (*self.raw()).user_port).write_volatile(u32::from(port.0));
        }
    }

    /// Cookie of the socket's network namespace.
    #[inline(always)]
    pub fn netns(&self) -> u64 {
        // SAFETY: the context is the program's own.
        unsafe { bpf_get_netns_cookie(self.raw().cast()) }
    }

    /// The socket's reverse pairs, if it has any.
    #[inline(always)]
    pub fn reverse(&mut self) -> Option<&mut SocketReverse> {
        // SAFETY: the storage lives as long as the socket, which the call holds. Calls on one socket that race may
        // lose a pair, no more.
        unsafe { SKREV.get_ptr_mut(&self.0).as_mut() }
    }

    /// The socket's reverse pairs, created if there are none.
    #[inline(always)]
    pub fn reverse_or_new(&mut self) -> Option<&mut SocketReverse> {
        // SAFETY: as above; the kernel zeroes a new storage.
        unsafe { SKREV.get_or_insert_ptr_mut(&self.0, None).as_mut() }
    }

    /// Fails the call with an error number.
    #[inline(always)]
    pub fn fail(&self, errno: i32) -> i32 {
        // SAFETY: the helper takes a number only.
        unsafe { bpf_set_retval(-errno) };
        DENY
    }
}

/// Keeps the reasons' numbers inside the counters' array.
const _: () = assert!(Reason::COUNT <= u8::MAX as usize);
