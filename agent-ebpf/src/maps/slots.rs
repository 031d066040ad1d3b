//! The table of sockets' slots: claimed by compare-and-swap, given back at the end.
#![expect(unsafe_code, reason = "part of `maps`")]

use core::intrinsics::{AtomicOrdering, atomic_cxchg};

use abi::{
    limits,
    socket::{ReversePair, SocketSlot},
};
use aya_ebpf::{btf_maps::Array, macros::btf_map};

use super::MAPPED;

/// [`Slot`] reads and writes it.
#[btf_map(name = "bl1_skslot")]
static SKSLOT: Array<SocketSlot, { limits::SOCKET_SLOTS }, MAPPED> = Array::new();

/// The place of a socket in the table of slots: its own if it has claimed it.
#[derive(Clone, Copy)]
pub struct Slot {
    slot: *mut SocketSlot,
    cookie: u64,
}

impl Slot {
    /// The place of the socket with this cookie.
    #[inline(always)]
    pub fn of(cookie: u64) -> Option<Self> {
        let slot = SKSLOT.get_ptr_mut(cookie as u32 & (limits::SOCKET_SLOTS as u32 - 1))?;
        Some(Self { slot, cookie })
    }

    /// The socket's pair, if the place is the socket's.
    #[inline(always)]
    pub fn pair(self) -> Option<&'static mut ReversePair> {
        // SAFETY: a live array element. Nobody but the socket whose cookie is there writes its pair, and calls on one socket
        // that read or write it hold its lock or come after all others.
        unsafe {
            let owner = (&raw const (*self.slot).cookie).read_volatile();
            if owner == self.cookie { Some(&mut (*self.slot).pair) } else { None }
        }
    }

    /// Makes the place the socket's if it is nobody's. `true` if it was.
    #[inline(always)]
    pub fn claim(self) -> bool {
        // SAFETY: a live array element, the cookie aligned as its type.
        let (_, free) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                &raw mut (*self.slot).cookie,
                0,
                self.cookie,
            )
        };
        free
    }

    /// Gives the place back; it must be the socket's.
    #[inline(always)]
    pub fn free(self) {
        // SAFETY: a live array element; only its owner gives it back.
        unsafe { (&raw mut (*self.slot).cookie).write_volatile(0) };
    }
}
