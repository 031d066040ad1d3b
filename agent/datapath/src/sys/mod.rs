//! The bpf(2) commands that aya 0.14 lacks: links of any kind, batches, arrays mapped into memory.
//!
//! This folder holds all the unsafe code of the agent. Each wrapper is safe to call: descriptors are borrowed, buffers are slices whose
//! lengths are checked here. What the commands mean is in the kernel's `include/uapi/linux/bpf.h`, whose names are kept.
#![expect(unsafe_code, reason = "invariant 5 puts the agent's unsafe code here")]

mod link;
mod map;
mod mapping;
mod wire;

pub use link::{
    AttachType, BPF_F_AFTER, BPF_F_BEFORE, Target, XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE, link_create,
    link_info, link_update, program, program_maps,
};
pub use map::{BPF_ANY, BPF_NOEXIST, MapInfo, RawMap, has_batches};
pub use mapping::MappedArray;
pub use wire::Wire;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

#[repr(C)]
struct ObjAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
    path_fd: u32,
    _pad: u32,
}

/// `BPF_OBJ_PIN`.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjAttr {
        pathname: path.as_ptr() as u64,
        bpf_fd: object.as_raw_fd() as u32,
        file_flags: 0,
        path_fd: 0,
        _pad: 0,
    };
    bpf(BPF_OBJ_PIN, &mut attr).map(drop)
}

/// `BPF_OBJ_GET`.
pub fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjAttr { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0, path_fd: 0, _pad: 0 };
    bpf_fd(BPF_OBJ_GET, &mut attr)
}

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of the programs.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is live and exclusively borrowed; the clock exists on every Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// `SO_NETNS_COOKIE`: the number of the calling thread's network namespace, as programs see it.
pub fn netns_cookie() -> io::Result<u64> {
    /// `SO_NETNS_COOKIE` (asm-generic/socket.h).
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option is eight bytes; the buffer is a live, exclusively borrowed u64 and its size is given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// `BPF_OBJ_GET_INFO_BY_FD`: as much as `info`, the beginning of the kernel's structure, has room for.
fn object_info<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let info_len = size_of::<T>() as u32;
    let mut attr =
        Attr { bpf_fd: object.as_raw_fd() as u32, info_len, info: std::ptr::from_mut(info) as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

fn bpf_fd<T>(command: libc::c_long, attr: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the commands that are called through here return a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a live, exclusively borrowed `repr(C)` structure and its size is given; pointers inside it point to buffers that
    // outlive the call, since the callers above hold them across it. The kernel checks everything else.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
