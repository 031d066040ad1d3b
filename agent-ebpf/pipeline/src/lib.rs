//! The stages that a packet or a socket call passes, generic over packet and table access.
//!
//! The same code is compiled into every hook of `agent-ebpf` and into host tests, where packets are byte slices and
//! tables are hash maps. It holds the decisions; it owns no map, knows no helper and contains no unsafe code.
//!
//! # A packet's life
//! [`parse`] reads the headers into a [`parse::Headers`]; a hook's composition ([`pod`], [`uplink`], [`egress`]) decides
//! which of these follow: [`flow`] (one probe for known connections), [`service`] (frontend, run, backend; [`affinity`] if asked for, an
//! algorithm of [`balance`] otherwise), [`vip`] (pings of service addresses), [`handover`] (another node's to answer), [`route`] (next hop
//! by subtraction; [`tunnel`], [`size`]), [`icmp`] (errors about translated packets), [`nat`] (write the headers, mend the checksums),
//! [`reject`] (answer in place). A stage ends a packet early by breaking with a [`Verdict`]. [`socket`] and [`bind`] are the same for
//! socket calls.
//!
//! # Limits
//! - A pod's ping to the outside keeps the pod's address. The node's own pings of service addresses go unanswered, since no hook of ours
//!   sees them, as do pings in fragments.
//! - Of an SCTP association neither further addresses nor chunks behind the first are looked at. Whether a veth that leaves SCTP's checksum to
//!   a later device sees it mended rightly could not be seen: the kernels at hand have no SCTP.
//! - Tunnels are VXLAN over IPv4, and who sends into one is not checked: the segment between nodes must keep strangers from VXLAN's port. At
//!   XDP, tagged frames do not enter them, and packets that may be fragmented and are too large for them are dropped (at tc the outer packet
//!   is fragmented). The largest segment size is lowered if it is among a SYN's first three options.
//! - The sender of a packet with IPv4 options or IPv6 extension headers that is too large for its way is not told, first fragments aside.
//! - Clients are hidden behind one address a family.
//! - A pod that uses one TCP port towards a service on packets and, while that connection lives, straight to the service's backend gets
//!   the answers from the service; with UDP too, where XDP leaves no note for tcx. `METADATA` must be off where a driver
//!   has no room for notes: a datagram that XDP has translated would be taken for one straight to the backend.
//! - Sockets of a service with Maglev choose at random: they have no source port yet.
//! - A pod's sockets leave addresses with source ranges to the packets, which show the pod's address.
//! - A dual-stack socket that wants IPv6 only is kept off IPv4's node ports too.
//! - A frame for another host that a bridge floods to an uplink is not told from one for this host.
#![no_std]
#![forbid(unsafe_code)]

pub mod affinity;
pub mod answer;
pub mod balance;
pub mod bind;
pub mod checksum;
pub mod egress;
pub mod family;
pub mod flow;
pub mod forward;
pub mod growth;
pub mod handover;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod maglev;
pub mod nat;
pub mod packet;
pub mod parse;
pub mod pod;
pub mod ports;
pub mod reject;
pub mod route;
pub mod sctp;
pub mod service;
pub mod size;
pub mod socket;
pub mod tables;
pub mod tunnel;
pub mod uplink;
pub mod verdict;
pub mod vip;
pub mod wire;

pub use family::{Family, V4, V6};
pub use packet::Packet;
pub use tables::{Common, Tables};
pub use verdict::{Step, Verdict};
