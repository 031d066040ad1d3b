//! Parsing of what kernels answer, and destruction of real sockets in a namespace (needs root).

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::UdpSocket;
use std::process::Command;

use super::*;
use crate::Netns;

/// `inet_diag_msg` of a connected socket, IPv4 or v4-mapped.
fn answer(family: AddressFamily, address: &[u8], port: u16) -> Vec<u8> {
    let mut payload = vec![0; ID.end];
    payload[0] = family.as_raw() as u8;
    payload[6..8].copy_from_slice(&port.to_be_bytes());
    payload[24..24 + address.len()].copy_from_slice(address);
    let cookie = &mut payload[ID][COOKIE];
    cookie[..4].copy_from_slice(&7u32.to_ne_bytes());
    cookie[4..].copy_from_slice(&1u32.to_ne_bytes());
    payload
}

#[track_caller]
fn check(payload: &[u8], expected: Option<&str>) {
    let found = connected(payload).map(|socket| (socket.peer.to_string(), socket.cookie));
    assert_eq!(found, expected.map(|peer| (peer.to_owned(), (1 << 32) + 7)));
}

#[test]
fn peers_are_read_in_both_families() {
    let v6: Ipv6Addr = "fd00::7".parse().unwrap();
    let mapped = Ipv4Addr::new(10, 0, 0, 7).to_ipv6_mapped();
    check(&answer(AddressFamily::INET, &[10, 0, 0, 7], 53), Some("10.0.0.7:53"));
    check(&answer(AddressFamily::INET6, &v6.octets(), 53), Some("[fd00::7]:53"));
    check(&answer(AddressFamily::INET6, &mapped.octets(), 53), Some("10.0.0.7:53"));
}

#[test]
fn what_is_cut_short_is_no_socket() {
    let whole = answer(AddressFamily::INET, &[10, 0, 0, 7], 53);
    check(&whole[..whole.len() - 1], None);
    let datagram = message(BY_FAMILY, 0, &whole);
    assert_eq!(messages(&datagram).len(), 1);
    assert_eq!(messages(&datagram[..datagram.len() - 1]).len(), 0);
}

#[test]
fn a_kernel_without_the_feature_is_told_from_a_refusal() {
    let code = |errno: Errno| (-errno.raw_os_error()).to_ne_bytes();
    let text = |errno| refused("destroy a UDP socket", &code(errno), SocketsError::NoDestroy).to_string();
    assert_eq!(text(Errno::OPNOTSUPP), "the kernel cannot destroy sockets (CONFIG_INET_DIAG_DESTROY)");
    assert_eq!(text(Errno::PERM), "destroy a UDP socket: Operation not permitted (os error 1)");
}

/// A namespace with loopback up, gone when dropped.
struct Namespace(String);

impl Namespace {
    fn new(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        let full = format!("blsock{}-{name}", std::process::id());
        for line in [format!("netns add {full}"), format!("-n {full} link set lo up")] {
            assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success(), "ip {line}");
        }
        Some(Self(full))
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = std::path::PathBuf::from(format!("/run/netns/{}", self.0));
        Netns::open(&path).unwrap().run(work).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn connected_to(local: &str, peer: &str) -> UdpSocket {
    let socket = UdpSocket::bind(local).unwrap();
    socket.connect(peer).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    socket
}

#[test]
fn sockets_of_a_peer_that_is_gone_end_and_others_live() {
    let Some(namespace) = Namespace::new("end") else { return };
    namespace.run(|| {
        let cases = [
            (connected_to("127.0.0.1:0", "127.0.0.9:53"), true),
            (connected_to("[::1]:0", "[::1]:53"), true),
            (connected_to("127.0.0.1:0", "127.0.0.9:54"), false),
            (connected_to("127.0.0.1:0", "127.0.0.8:53"), false),
        ];
        let gone: [SocketAddr; 2] = ["127.0.0.9:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        let destroyed = destroy_connected_udp(&|socket| gone.contains(&socket.peer)).unwrap();
        assert_eq!(destroyed, 2);
        for (socket, dies) in cases {
            let error = socket.recv(&mut [0; 8]).unwrap_err();
            let expected = if dies { io::ErrorKind::ConnectionAborted } else { io::ErrorKind::WouldBlock };
            assert_eq!(error.kind(), expected, "{socket:?}");
        }
        assert_eq!(destroy_connected_udp(&|socket| gone.contains(&socket.peer)).unwrap(), 0);
    });
}

#[test]
fn a_socket_that_went_by_itself_is_no_error() {
    let Some(namespace) = Namespace::new("gone") else { return };
    namespace.run(|| {
        let socket = connected_to("127.0.0.1:0", "127.0.0.9:53");
        let diagnosis = Diagnosis::open().unwrap();
        let listed = diagnosis.connected_udp().unwrap();
        drop(socket);
        assert_eq!(listed.len(), 1);
        diagnosis.can_destroy().unwrap();
        assert!(!diagnosis.destroy(&listed[0]).unwrap());
    });
}
