//! The table of what is timed: program, state of the tables, packet. Services and packets are in the words of the golden
//! packets (`agent-ebpf/golden`); the last packet of a case is the one that is timed, those before it make its flow.

use crate::bpf::generator::Vary;

/// A case.
pub(crate) struct Case {
    /// A sentence.
    pub(crate) name: &'static str,
    pub(crate) six: bool,
    /// What differs from run to run.
    pub(crate) vary: Vary,
    /// In golden's words.
    pub(crate) text: &'static str,
    /// What the program must return, or it is not the case that was meant.
    pub(crate) verdict: u32,
}

/// XDP_PASS and XDP_TX.
const PASS: u32 = 2;
const TX: u32 = 3;
/// TC_ACT_REDIRECT.
const REDIRECT: u32 = 7;

/// A node port whose backend is on another node.
const REMOTE_TCP: &str = "service node:30080/tcp -> 10.244.2.9:8080\nat xdp\n\
    in client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 S\n\
    in node2>uplink 64 tcp 10.244.2.9:8080>172.30.0.11:1024 SA\n\
    in client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 A +50";
const REMOTE_UDP: &str = "service node:30080/udp -> 10.244.2.9:8080\nat xdp\n\
    in client>uplink 64 udp 172.30.0.3:40000>172.30.0.11:30080 +18\n\
    in node2>uplink 64 udp 10.244.2.9:8080>172.30.0.11:1024 +18\n\
    in client>uplink 64 udp 172.30.0.3:40000>172.30.0.11:30080 +18";
const REPLY_TCP: &str = "service node:30080/tcp -> 10.244.2.9:8080\nat xdp\n\
    in client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 S\n\
    in node2>uplink 64 tcp 10.244.2.9:8080>172.30.0.11:1024 SA\n\
    in client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 A\n\
    in node2>uplink 64 tcp 10.244.2.9:8080>172.30.0.11:1024 A +50";
const NOT_OURS: &str = "service node:30080/tcp -> 10.244.2.9:8080\nat xdp\n\
    in client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:45000 A +50";
const CLUSTER_TCP: &str = "service 10.96.0.10:80/tcp -> 10.244.2.9:8080\nat pod 5\n\
    in pod5>host5 64 tcp 10.244.1.5:40000>10.96.0.10:80 S\nat up\n\
    in node2>uplink 64 tcp 10.244.2.9:8080>10.244.1.5:40000 SA\nat pod 5\n\
    in pod5>host5 64 tcp 10.244.1.5:40000>10.96.0.10:80 A +50";
const CLUSTER_UDP: &str = "service 10.96.0.10:80/udp -> 10.244.2.9:8080\nat pod 5\n\
    in pod5>host5 64 udp 10.244.1.5:40000>10.96.0.10:80 +18\nat up\n\
    in node2>uplink 64 udp 10.244.2.9:8080>10.244.1.5:40000 +18\nat pod 5\n\
    in pod5>host5 64 udp 10.244.1.5:40000>10.96.0.10:80 +18";
const POD_TO_POD: &str = "at pod 5\nin pod5>host5 64 tcp 10.244.1.5:40000>10.244.1.6:80 A +50";
const POD_TO_NODE: &str = "at pod 5\nin pod5>host5 64 tcp 10.244.1.5:40000>10.244.2.9:80 A +50";
const NODE_TO_POD: &str = "at up\nin node2>uplink 64 tcp 10.244.2.9:80>10.244.1.5:40000 A +50";
/// Eight backends: the full table of unanswered flows holds 8,192 connections to each, one in eight of its source ports.
const NEW_TCP: &str = "service node:30080/tcp -> 10.244.2.9:8080 10.244.2.10:8080 10.244.2.11:8080 10.244.2.12:8080 \
    10.244.2.13:8080 10.244.2.14:8080 10.244.2.15:8080 10.244.2.16:8080\nat xdp\n\
    in client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 S";
/// One backend: nearly all source ports towards it are taken, and several are tried.
const NEW_TCP_SHORT: &str = "service node:30080/tcp -> 10.244.2.9:8080\nat xdp\n\
    in client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 S";
const NEW_UDP: &str = "service node:30080/udp -> 10.244.2.9:8080 10.244.2.10:8080 10.244.2.11:8080 10.244.2.12:8080 \
    10.244.2.13:8080 10.244.2.14:8080 10.244.2.15:8080 10.244.2.16:8080\nat xdp\n\
    in client>uplink 64 udp 172.30.0.3:40000>172.30.0.11:30080 +18 nosum";
const NEW_MAGLEV: &str = "service maglev node:30080/tcp -> 10.244.2.9:8080 10.244.2.10:8080 10.244.2.11:8080\nat xdp\n\
    in client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 S";
const NEW_DSR: &str = "service dsr maglev node:30080/tcp -> 10.244.2.9:8080 10.244.2.10:8080 10.244.2.11:8080\nat xdp\n\
    in client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 S";
const KNOWN_DSR: &str = "service dsr maglev node:30080/tcp -> 10.244.2.9:8080\nat xdp\n\
    in client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 S\n\
    in client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 A +50";
const NEW_CLUSTER: &str = "service 10.96.0.10:80/tcp -> 10.244.2.9:8080\nat pod 5\n\
    in pod5>host5 64 tcp 10.244.1.5:40000>10.96.0.10:80 S";

const fn case(name: &'static str, six: bool, vary: Vary, verdict: u32, text: &'static str) -> Case {
    Case { name, six, vary, text, verdict }
}

/// All of them.
pub(crate) const CASES: &[Case] = &[
    case("XDP, not ours, IPv4", false, Vary::Nothing, PASS, NOT_OURS),
    case("XDP, not ours, IPv6", true, Vary::Nothing, PASS, NOT_OURS),
    case("XDP, established, TCP, IPv4", false, Vary::Nothing, TX, REMOTE_TCP),
    case("XDP, established, TCP, IPv6", true, Vary::Nothing, TX, REMOTE_TCP),
    case("XDP, established, UDP, IPv4", false, Vary::Nothing, TX, REMOTE_UDP),
    case("XDP, established, UDP, IPv6", true, Vary::Nothing, TX, REMOTE_UDP),
    case("XDP, established, reply, TCP, IPv4", false, Vary::Nothing, TX, REPLY_TCP),
    case("XDP, established, reply, TCP, IPv6", true, Vary::Nothing, TX, REPLY_TCP),
    case("tc, established, pod to ClusterIP, TCP, IPv4", false, Vary::Nothing, REDIRECT, CLUSTER_TCP),
    case("tc, established, pod to ClusterIP, TCP, IPv6", true, Vary::Nothing, REDIRECT, CLUSTER_TCP),
    case("tc, established, pod to ClusterIP, UDP, IPv4", false, Vary::Nothing, REDIRECT, CLUSTER_UDP),
    case("tc, pod to pod, same node, IPv4", false, Vary::Nothing, REDIRECT, POD_TO_POD),
    case("tc, pod to pod, same node, IPv6", true, Vary::Nothing, REDIRECT, POD_TO_POD),
    case("tc, pod to pod, other node, IPv4", false, Vary::Nothing, REDIRECT, POD_TO_NODE),
    case("tc, other node to pod, IPv4", false, Vary::Nothing, REDIRECT, NODE_TO_POD),
    case("XDP, new flow, entry, TCP, IPv4", false, Vary::Flow, TX, NEW_TCP),
    case("XDP, new flow, entry, TCP, IPv6", true, Vary::Flow, TX, NEW_TCP),
    case("XDP, new flow, entry, source ports short, TCP, IPv4", false, Vary::Flow, TX, NEW_TCP_SHORT),
    case("XDP, new flow, entry, UDP, IPv4", false, Vary::Flow, TX, NEW_UDP),
    case("XDP, new flow, Maglev, TCP, IPv4", false, Vary::Flow, TX, NEW_MAGLEV),
    case("XDP, new flow, Maglev, direct return, TCP, IPv4", false, Vary::Flow, TX, NEW_DSR),
    case("XDP, established, direct return, TCP, IPv4", false, Vary::Nothing, TX, KNOWN_DSR),
    case("tc, new flow, pod to ClusterIP, TCP, IPv4", false, Vary::Port, REDIRECT, NEW_CLUSTER),
];
