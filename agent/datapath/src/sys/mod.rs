//! The bpf(2) commands that aya 0.14 lacks: links of any kind, batches, arrays mapped into memory.
//!
//! This folder holds all the unsafe code of the agent. Each wrapper is safe to call: descriptors are borrowed, buffers are slices whose
//! lengths are checked here. What the commands mean is in the kernel's `include/uapi/linux/bpf.h`, whose names are kept.
#![expect(unsafe_code, reason = "invariant 5 puts the agent's unsafe code here")]

mod mapping;
mod wire;

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
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;

/// `BPF_F_BEFORE`: with no other program named, before all others.
pub const BPF_F_BEFORE: u32 = 1 << 3;
/// `BPF_F_AFTER`: with no other program named, after all others.
pub const BPF_F_AFTER: u32 = 1 << 4;
/// `XDP_FLAGS_SKB_MODE` (linux/if_link.h): generic XDP.
pub const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE` (linux/if_link.h): native XDP.
pub const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// `enum bpf_attach_type`, as far as used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum AttachType {
    /// `BPF_CGROUP_INET4_CONNECT`.
    Connect4 = 10,
    /// `BPF_CGROUP_INET6_CONNECT`.
    Connect6 = 11,
    /// `BPF_CGROUP_UDP4_SENDMSG`.
    Sendmsg4 = 14,
    /// `BPF_CGROUP_UDP6_SENDMSG`.
    Sendmsg6 = 15,
    /// `BPF_CGROUP_UDP4_RECVMSG`.
    Recvmsg4 = 19,
    /// `BPF_CGROUP_UDP6_RECVMSG`.
    Recvmsg6 = 20,
    /// `BPF_CGROUP_INET4_GETPEERNAME`.
    Getpeername4 = 29,
    /// `BPF_CGROUP_INET6_GETPEERNAME`.
    Getpeername6 = 30,
    /// `BPF_XDP`.
    Xdp = 37,
    /// `BPF_TCX_INGRESS`.
    TcxIngress = 46,
    /// `BPF_TCX_EGRESS`.
    TcxEgress = 47,
}

/// The object that a program is attached to.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// A cgroup directory.
    Cgroup(BorrowedFd<'a>),
    /// A network device of the calling thread's namespace, by index.
    Device(u32),
}

/// What the kernel says of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkInfo {
    /// Id of the attached program.
    pub program_id: u32,
    /// For tcx and XDP: the device's index, zero when the device is gone.
    pub ifindex: u32,
}

/// `BPF_LINK_CREATE`. The link lives until its descriptor and its pins are gone.
pub fn link_create(
    program: BorrowedFd<'_>,
    target: Target<'_>,
    attach: AttachType,
    flags: u32,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_fd: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        relative_fd: u32,
        _pad: u32,
        expected_revision: u64,
    }
    let target = match target {
        Target::Cgroup(fd) => fd.as_raw_fd() as u32,
        Target::Device(index) => index,
    };
    let prog_fd = program.as_raw_fd() as u32;
    let mut attr = Attr {
        prog_fd,
        target,
        attach_type: attach as u32,
        flags,
        relative_fd: 0,
        _pad: 0,
        expected_revision: 0,
    };
    bpf_fd(BPF_LINK_CREATE, &mut attr)
}

/// `BPF_LINK_UPDATE`: puts another program into a link; packets see the old or the new one, never none.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let mut attr = Attr {
        link_fd: link.as_raw_fd() as u32,
        new_prog_fd: program.as_raw_fd() as u32,
        flags: 0,
        old_prog_fd: 0,
    };
    bpf(BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// `BPF_OBJ_GET_INFO_BY_FD` of a link.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        prog_id: u32,
        _pad: u32,
        /// A union; its first word is the device of tcx and XDP links.
        union: [u32; 8],
    }
    #[repr(C)]
    struct Attr {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut info = Info::default();
    let info_len = size_of::<Info>() as u32;
    let mut attr = Attr { bpf_fd: link.as_raw_fd() as u32, info_len, info: (&raw mut info) as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(LinkInfo { program_id: info.prog_id, ifindex: info.union[0] })
}

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

/// Attributes of the batch commands.
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// `BPF_MAP_LOOKUP_BATCH` of a hash: fills `keys` and `values` (whole elements) from where `cursor` stands, and moves it. Returns how many
/// elements were read and whether the end was reached. An element that moves meanwhile may be missed or seen twice.
pub fn lookup_batch(
    map: BorrowedFd<'_>,
    cursor: &mut Option<u32>,
    key_size: usize,
    keys: &mut [u8],
    value_size: usize,
    values: &mut [u8],
) -> io::Result<(usize, bool)> {
    let count = (keys.len() / key_size.max(1)).min(values.len() / value_size.max(1));
    let position = cursor.unwrap_or(0);
    let mut next = 0u32;
    let mut attr = BatchAttr {
        in_batch: if cursor.is_some() { (&raw const position) as u64 } else { 0 },
        out_batch: (&raw mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: count as u32,
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
        Ok(_) => {
            *cursor = Some(next);
            Ok((attr.count as usize, false))
        }
        // The last batch: the end was met after `count` elements.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((attr.count as usize, true)),
        Err(error) => Err(error),
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of the programs.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is live and exclusively borrowed; the clock exists on every Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// `BPF_MAP_UPDATE_BATCH`: writes `values[i]` under `keys[i]`, in order. Both are whole elements, keys `key_size` and values `value_size`
/// bytes each, as the map has them (an array's values are padded to eight bytes).
pub fn update_batch(
    map: BorrowedFd<'_>,
    key_size: usize,
    keys: &[u8],
    value_size: usize,
    values: &[u8],
) -> io::Result<()> {
    let count = keys.len() / key_size.max(1);
    if keys.len() != count * key_size || values.len() != count * value_size {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "keys and values of a batch must be whole elements of one number",
        ));
    }
    if count == 0 {
        return Ok(());
    }
    let mut attr = BatchAttr {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: count as u32,
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    bpf(BPF_MAP_UPDATE_BATCH, &mut attr).map(drop)
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
