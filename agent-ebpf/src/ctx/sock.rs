//! A socket as the hooks of its life see it: bound, closed.
#![expect(unsafe_code, reason = "part of `ctx`")]

use abi::{Ip4, Ip6, Port, Proto, socket::SocketReverse};
use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval, bpf_sk_storage_get},
    programs::SockContext,
};

use super::{ALLOW, DENY, SockAddr, read_ip6};
use crate::maps::SKREV;

/// A socket.
pub struct Sock(SockContext);

impl Sock {
    /// Wraps the context.
    #[inline(always)]
    pub fn new(ctx: SockContext) -> Self {
        Self(ctx)
    }

    #[inline(always)]
    fn raw(&self) -> *mut bpf_sock {
        self.0.as_ptr().cast()
    }

    /// The IPv4 address that the socket is bound to.
    #[inline(always)]
    pub fn ip4(&self) -> Ip4 {
        // SAFETY: the context is the program's own; the field is read at its full width.
        Ip4(unsafe { (&raw const (*self.raw()).src_ip4).read_volatile() })
    }

    /// The IPv6 address that the socket is bound to.
    #[inline(always)]
    pub fn ip6(&self) -> Ip6 {
        // SAFETY: the context is the program's own.
        unsafe { read_ip6(&raw const (*self.raw()).src_ip6) }
    }

    /// The port that the socket is bound to.
    #[inline(always)]
    pub fn port(&self) -> Port {
        // SAFETY: the context is the program's own. (This field is in host order.)
        Port::from_host(unsafe { (&raw const (*self.raw()).src_port).read_volatile() } as u16)
    }

    /// The socket's protocol.
    #[inline(always)]
    pub fn proto(&self) -> Proto {
        // SAFETY: the context is the program's own.
        Proto(unsafe { (&raw const (*self.raw()).protocol).read_volatile() } as u8)
    }

    /// Cookie of the socket's network namespace.
    #[inline(always)]
    pub fn netns(&self) -> u64 {
        // SAFETY: the context is the program's own.
        unsafe { bpf_get_netns_cookie(self.raw().cast()) }
    }

    /// The socket's cookie.
    #[inline(always)]
    pub fn cookie(&self) -> u64 {
        // SAFETY: the context is the program's own.
        unsafe { bpf_get_socket_cookie(self.raw().cast()) }
    }

    /// The socket's reverse pairs, if it has any in its storage.
    #[inline(always)]
    pub fn reverse(&mut self) -> Option<&mut SocketReverse> {
        // SAFETY: the context is a socket for this helper, and the storage lives as long as it.
        unsafe {
            let map = (&raw const SKREV).cast_mut().cast();
            bpf_sk_storage_get(map, self.raw().cast(), core::ptr::null_mut(), 0)
                .cast::<SocketReverse>()
                .as_mut()
        }
    }

    /// Fails the call with an error number.
    #[inline(always)]
    pub fn fail(&self, errno: i32) -> i32 {
        // SAFETY: the helper takes a number only.
        unsafe { bpf_set_retval(-errno) };
        DENY
    }

    /// Lets the call succeed.
    #[inline(always)]
    pub fn allow(&self) -> i32 {
        ALLOW
    }
}

impl SockAddr {
    /// The socket's cookie.
    #[inline(always)]
    pub fn cookie(&self) -> u64 {
        // SAFETY: the context is the program's own.
        unsafe { bpf_get_socket_cookie(self.raw().cast()) }
    }
}
