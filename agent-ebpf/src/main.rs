//! The programs of the data path: one file a hook. Built for the BPF target by `cargo xtask build`.
//!
//! A program file wraps its context, runs the composition of stages that `pipeline` has for the hook, and translates the
//! verdict. Decisions live in `pipeline`, layouts in `abi`; [`ctx`] and [`maps`] are the only modules with unsafe code.
//! On other targets this crate is an empty program, so that the workspace builds without a BPF toolchain.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// What the compiler must not see through (constants that the loader overrides, bounds that the verifier must see) goes
// through an `asm!` that moves a register onto itself.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
// `core::sync::atomic` has no operations with a result for the BPF target.
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics), expect(internal_features, reason = "atomics"))]

#[cfg(target_arch = "bpf")]
mod connect;
#[cfg(target_arch = "bpf")]
mod ctx;
#[cfg(target_arch = "bpf")]
mod getpeername;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod pod_in;
#[cfg(target_arch = "bpf")]
mod pod_out;
#[cfg(target_arch = "bpf")]
mod post_bind;
#[cfg(target_arch = "bpf")]
mod recvmsg;
#[cfg(target_arch = "bpf")]
mod sendmsg;
#[cfg(target_arch = "bpf")]
mod sock_release;
#[cfg(target_arch = "bpf")]
mod socket;
#[cfg(target_arch = "bpf")]
mod tun_in;
#[cfg(target_arch = "bpf")]
mod up_in;
#[cfg(target_arch = "bpf")]
mod up_out;
#[cfg(target_arch = "bpf")]
mod xdp_ns;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// Nothing can panic here: indexes are masked, and the verifier would refuse the loop below if it could be reached.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
