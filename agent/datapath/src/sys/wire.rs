//! A value of `abi` as aya's maps want it.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Bytes that both sides of the kernel boundary agree on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Wire<T>(pub T);

// SAFETY: `aya::Pod` asks that any bytes are a value and that a value is its bytes. `FromBytes` is the first; `IntoBytes` (no padding) with
// `Immutable` is the second. `repr(transparent)` carries both over to the wrapper.
unsafe impl<T: FromBytes + IntoBytes + Immutable + Copy + 'static> aya::Pod for Wire<T> {}
