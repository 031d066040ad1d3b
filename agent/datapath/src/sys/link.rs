//! Links of any kind, and the programs inside them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{bpf, bpf_fd, object_info};

const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
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
    /// `BPF_CGROUP_INET4_POST_BIND`.
    PostBind4 = 12,
    /// `BPF_CGROUP_INET6_POST_BIND`.
    PostBind6 = 13,
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
    /// `BPF_CGROUP_INET_SOCK_RELEASE`.
    SockRelease = 34,
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

/// What a link is attached to, and what runs in it.
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
    let mut info = Info::default();
    object_info(link, &mut info)?;
    Ok(LinkInfo { program_id: info.prog_id, ifindex: info.union[0] })
}

/// `BPF_PROG_GET_FD_BY_ID`.
pub fn program(id: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_id: u32,
        next_id: u32,
        open_flags: u32,
    }
    bpf_fd(BPF_PROG_GET_FD_BY_ID, &mut Attr { prog_id: id, next_id: 0, open_flags: 0 })
}

/// Ids of the maps that a program uses.
pub fn program_maps(program: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    /// The beginning of `struct bpf_prog_info`.
    #[repr(C)]
    struct Info {
        kind: u32,
        id: u32,
        tag: [u8; 8],
        jited_prog_len: u32,
        xlated_prog_len: u32,
        jited_prog_insns: u64,
        xlated_prog_insns: u64,
        load_time: u64,
        created_by_uid: u32,
        nr_map_ids: u32,
        map_ids: u64,
    }
    // The kernel's own limit (MAX_USED_MAPS).
    let mut ids = vec![0_u32; 64];
    let mut info = Info {
        kind: 0,
        id: 0,
        tag: [0; 8],
        jited_prog_len: 0,
        xlated_prog_len: 0,
        jited_prog_insns: 0,
        xlated_prog_insns: 0,
        load_time: 0,
        created_by_uid: 0,
        nr_map_ids: ids.len() as u32,
        map_ids: ids.as_mut_ptr() as u64,
    };
    object_info(program, &mut info)?;
    ids.truncate(info.nr_map_ids as usize);
    Ok(ids)
}
