//! The socket programs on real sockets: a cgroup and a network namespace of their own, backends that listen in it. Needs root and the
//! object (`cargo xtask build`); skips aloud without. `BPF_PROG_TEST_RUN` does not run these programs.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bpf;

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use abi::{
    Config,
    backend::Load,
    config::features,
    maps,
    programs::{Hook, PROGRAMS},
    socket::SocketSlot,
};
use aya::{
    Ebpf,
    maps::{Array, HashMap},
    programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr},
};
use bpf::{Loaded, in_namespace, load};
use golden::{
    objects::Objects,
    world::{self, Sink as _},
};
use rustix::{
    net::sockopt::{set_socket_linger, socket_cookie},
    thread::{CpuSet, sched_setaffinity},
};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// The process is in one cgroup at a time.
static CGROUP: Mutex<()> = Mutex::new(());

/// A cgroup with this process in it; left and removed at the end.
struct Cgroup {
    path: PathBuf,
    before: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Cgroup {
    fn enter() -> Self {
        let alone = CGROUP.lock().unwrap_or_else(PoisonError::into_inner);
        let hybrid = Path::new("/sys/fs/cgroup/unified");
        let root = if hybrid.exists() { hybrid } else { Path::new("/sys/fs/cgroup") };
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let path = root.join(format!("golden-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("cgroup.procs"), "0").unwrap();
        Self { path, before: root.join(own), _alone: alone }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        fs::write(self.before.join("cgroup.procs"), "0").unwrap();
        fs::remove_dir(&self.path).unwrap();
    }
}

/// Node 1 of the golden world, with its address on the loopback device, in the calling thread's network namespace.
struct Node {
    ebpf: Ebpf,
    objects: [Objects; 2],
    _cgroup: Cgroup,
}

const NODE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 11);

fn ip(args: &str) {
    assert!(Command::new("ip").args(args.split(' ')).status().unwrap().success(), "ip {args}");
}

/// The address in the family.
fn of(six: bool, addr: Ipv4Addr) -> IpAddr {
    if six { world::to_v6(addr.into()) } else { addr.into() }
}

impl Node {
    fn new(path: &Path) -> Self {
        Self::of(path, world::config())
    }

    fn of(path: &Path, config: Config) -> Self {
        let cgroup = Cgroup::enter();
        ip("link set lo up");
        ip(&format!("addr add {NODE}/32 dev lo"));
        ip(&format!("addr add {}/128 dev lo nodad", of(true, NODE)));
        // Affinity names clients by the cookie of their namespace: the first node learns it, the second knows it.
        let mut node = Self::with(path, &config, cgroup);
        node.service_of(false, "affinity=60 10.96.255.1:1/tcp -> 172.30.0.11:1");
        let _refused = TcpStream::connect("10.96.255.1:1");
        let known: HashMap<_, [u8; 16], [u8; 16]> =
            HashMap::try_from(node.ebpf.map(maps::AFFSK.name).unwrap()).unwrap();
        let (key, _) = known.iter().next().unwrap().unwrap();
        let netns_cookie = u64::from_ne_bytes(key[..8].try_into().unwrap());
        let Self { ebpf, _cgroup: cgroup, .. } = node;
        drop(ebpf);
        Self::with(path, &Config { netns_cookie, ..config }, cgroup)
    }

    fn with(path: &Path, config: &Config, cgroup: Cgroup) -> Self {
        let mut ebpf = load(path, config);
        let directory = File::open(&cgroup.path).unwrap();
        let mode = CgroupAttachMode::Single;
        for spec in PROGRAMS {
            let program = ebpf.program_mut(spec.name).unwrap();
            match spec.hook {
                Hook::SockAddr => {
                    let program: &mut CgroupSockAddr = program.try_into().unwrap();
                    program.load().unwrap_or_else(|e| panic!("{}: {e:?}", spec.name));
                    program.attach(&directory, mode).unwrap();
                }
                Hook::Sock => {
                    let program: &mut CgroupSock = program.try_into().unwrap();
                    program.load().unwrap_or_else(|e| panic!("{}: {e:?}", spec.name));
                    program.attach(&directory, mode).unwrap();
                }
                _ => {}
            }
        }
        world::furnish(&mut Loaded(&mut ebpf));
        Self { ebpf, objects: Default::default(), _cgroup: cgroup }
    }

    /// Publishes a service in one family. Ids are the same in both, so a test uses one family at a time.
    fn service_of(&mut self, six: bool, line: &str) {
        self.objects[usize::from(six)].service(line, six, &mut Loaded(&mut self.ebpf)).unwrap();
    }

    /// Load of the backend with this index.
    fn load(&self, six: bool, index: u32) -> Load {
        let map = self.ebpf.map(if six { maps::LOAD6.name } else { maps::LOAD4.name }).unwrap();
        let loads: Array<_, [u8; 8]> = Array::try_from(map).unwrap();
        Load::read_from_bytes(&loads.get(&index, 0).unwrap()).unwrap()
    }

    /// The slot at a cookie's place.
    fn slot(&self, cookie: u64) -> SocketSlot {
        let slots: Array<_, [u8; 64]> = Array::try_from(self.ebpf.map(maps::SKSLOT.name).unwrap()).unwrap();
        let index = cookie as u32 % maps::SKSLOT.entries as u32;
        SocketSlot::read_from_bytes(&slots.get(&index, 0).unwrap()).unwrap()
    }

    /// Number of runs and their mean time, by program.
    fn runs(&self, name: &str) -> (u64, Duration) {
        let info = self.ebpf.program(name).unwrap().info().unwrap();
        (info.run_count(), info.run_time())
    }
}

/// A service end in the family: 10.96.0.s or another golden address.
fn end(six: bool, text: &str) -> SocketAddr {
    let end: SocketAddr = text.parse().unwrap();
    SocketAddr::new(if six { world::to_v6(end.ip()) } else { end.ip() }, end.port())
}

fn with_node(run: impl FnOnce(Node) + Send + 'static) {
    in_namespace(|path| run(Node::new(&path)));
}

/// A listener on the node's address: its port.
fn listener(six: bool) -> (TcpListener, u16) {
    let listener = TcpListener::bind((of(six, NODE), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[test]
fn a_connection_to_a_service_reaches_its_backend_and_says_it_is_the_service() {
    with_node(|mut node| {
        for six in [false, true] {
            let (backend, port) = listener(six);
            node.service_of(six, &format!("10.96.0.10:80/tcp -> 172.30.0.11:{port}"));
            let service = end(six, "10.96.0.10:80");
            for _ in 0..600 {
                let client = TcpStream::connect(service).unwrap();
                let (_, from) = backend.accept().unwrap();
                assert_eq!(from, client.local_addr().unwrap());
                assert_eq!(client.peer_addr().unwrap(), service);
            }
            let direct = TcpStream::connect((of(six, NODE), port)).unwrap();
            assert_eq!(direct.peer_addr().unwrap(), backend.local_addr().unwrap());
        }
    });
}

#[test]
fn a_dual_stack_socket_reaches_services_of_both_families() {
    with_node(|mut node| {
        let (_backend, port) = listener(false);
        node.service_of(false, &format!("10.96.0.10:80/tcp -> 172.30.0.11:{port}"));
        let mapped = SocketAddr::new(Ipv4Addr::new(10, 96, 0, 10).to_ipv6_mapped().into(), 80);
        let client = TcpStream::connect(mapped).unwrap();
        assert_eq!(client.peer_addr().unwrap(), mapped);
    });
}

#[test]
fn datagrams_go_to_the_backend_and_come_back_from_the_service() {
    with_node(|mut node| {
        for six in [false, true] {
            let backend = UdpSocket::bind((of(six, NODE), 0)).unwrap();
            let port = backend.local_addr().unwrap().port();
            node.service_of(six, &format!("10.96.0.10:53/udp -> 172.30.0.11:{port}"));
            let service = end(six, "10.96.0.10:53");
            let client = UdpSocket::bind((of(six, NODE), 0)).unwrap();
            let mut bytes = [0; 8];
            for connected in [false, true] {
                if connected {
                    client.connect(service).unwrap();
                    assert_eq!(client.peer_addr().unwrap(), service);
                    client.send(b"question").unwrap();
                } else {
                    client.send_to(b"question", service).unwrap();
                }
                let (_, from) = backend.recv_from(&mut bytes).unwrap();
                backend.send_to(b"answer", from).unwrap();
                assert_eq!(client.recv_from(&mut bytes).unwrap(), (6, service));
            }
        }
    });
}

#[test]
fn one_socket_tells_the_services_apart_that_it_talks_to_and_keeps_their_backends() {
    with_node(|mut node| {
        for six in [false, true] {
            let backends: Vec<_> = (0..8).map(|_| UdpSocket::bind((of(six, NODE), 0)).unwrap()).collect();
            let ends: Vec<String> =
                backends.iter().map(|b| format!("172.30.0.11:{}", b.local_addr().unwrap().port())).collect();
            for (service, ends) in (1..).zip(ends.chunks(2)) {
                let ends = ends.join(" ");
                node.service_of(six, &format!("10.96.0.{service}:53/udp -> {ends}"));
            }
            let client = UdpSocket::bind((of(six, NODE), 0)).unwrap();
            let mut bytes = [0; 8];
            let mut chosen = Vec::new();
            for round in 0..20 {
                for service in 0..4 {
                    let to = end(six, &format!("10.96.0.{}:53", service + 1));
                    client.send_to(b"question", to).unwrap();
                    let mut pair = backends[2 * service..2 * service + 2].iter().enumerate();
                    let (n, from) = pair
                        .find_map(|(n, backend)| {
                            backend.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                            Some((n, backend.recv_from(&mut bytes).ok()?.1))
                        })
                        .unwrap();
                    backends[2 * service + n].send_to(b"answer", from).unwrap();
                    assert_eq!(client.recv_from(&mut bytes).unwrap().1, to);
                    if round == 0 {
                        chosen.push(n);
                    }
                    assert_eq!(n, chosen[service], "IPv6 {six}: round {round}");
                }
            }
        }
    });
}

#[track_caller]
fn check_error<T: std::fmt::Debug>(result: io::Result<T>, expected: ErrorKind, why: &str) {
    assert_eq!(result.map_err(|e| e.kind()).unwrap_err(), expected, "{why}");
}

#[test]
fn what_cannot_be_served_fails_at_once() {
    with_node(|mut node| {
        for six in [false, true] {
            node.service_of(six, "10.96.0.10:80/tcp ->");
            node.service_of(six, "internal-local 10.96.0.11:80/tcp -> 10.244.2.9:80");
            let tcp = |text| TcpStream::connect(end(six, text));
            check_error(tcp("10.96.0.10:80"), ErrorKind::ConnectionRefused, "no endpoint");
            check_error(tcp("10.96.0.10:81"), ErrorKind::ConnectionRefused, "no such port");
            check_error(tcp("10.96.0.12:80"), ErrorKind::HostUnreachable, "no such service");
            check_error(tcp("10.96.0.11:80"), ErrorKind::HostUnreachable, "no local endpoint");
            let client = UdpSocket::bind((of(six, NODE), 0)).unwrap();
            let udp = |text| client.send_to(b"question", end(six, text));
            check_error(udp("10.96.0.10:80"), ErrorKind::ConnectionRefused, "no such protocol");
            check_error(udp("10.96.0.12:80"), ErrorKind::HostUnreachable, "no such service");
        }
    });
}

#[test]
fn source_ranges_hold_for_the_node_itself() {
    with_node(|mut node| {
        for six in [false, true] {
            let (_backend, port) = listener(six);
            for (n, range) in [(9, "172.30.0.0/24"), (10, "198.51.100.0/24")] {
                node.service_of(
                    six,
                    &format!("external ranges={range} 203.0.113.{n}:80/tcp -> 172.30.0.11:{port}"),
                );
            }
            TcpStream::connect(end(six, "203.0.113.9:80")).unwrap();
            let refused = TcpStream::connect(end(six, "203.0.113.10:80"));
            check_error(refused, ErrorKind::HostUnreachable, "not in the range");
        }
    });
}

/// What a bind of a socket of this kind to the address and port gives.
fn bind(tcp: bool, addr: IpAddr, port: u16) -> io::Result<u16> {
    let bound = if tcp {
        TcpListener::bind((addr, port))?.local_addr()
    } else {
        UdpSocket::bind((addr, port))?.local_addr()
    };
    Ok(bound?.port())
}

#[test]
fn nothing_binds_a_node_port() {
    with_node(|mut node| {
        let any =
            |six| if six { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        for six in [false, true] {
            node.service_of(six, "node:30080/tcp -> 10.244.2.9:80");
            node.service_of(six, "host-port node:8080/tcp -> 10.244.2.9:80");
            let loopback = if six { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
            for addr in [any(six), loopback, of(six, NODE)] {
                check_error(bind(true, addr, 30_080), ErrorKind::AddrInUse, "a node port");
                bind(false, addr, 30_080).unwrap();
                bind(true, addr, 8080).unwrap();
                bind(true, addr, 30_081).unwrap();
                bind(true, addr, 0).unwrap();
            }
            if !six {
                check_error(bind(true, any(true), 30_080), ErrorKind::AddrInUse, "a dual-stack socket");
                bind(true, of(true, NODE), 30_080).unwrap();
            }
            // Not an address that node ports are served on.
            ip(if six { "addr add fd99::1/128 dev lo nodad" } else { "addr add 192.0.2.1/32 dev lo" });
            let other: IpAddr = if six { "fd99::1" } else { "192.0.2.1" }.parse().unwrap();
            bind(true, other, 30_080).unwrap();
            // Pods bind what they like.
            std::thread::spawn(move || {
                bpf::leave_network();
                ip("link set lo up");
                bind(true, any(six), 30_080).unwrap();
            })
            .join()
            .unwrap();
        }
    });
}

#[test]
fn least_connections_counts_open_sockets() {
    with_node(|mut node| {
        for six in [false, true] {
            let (backend, port) = listener(six);
            node.service_of(six, &format!("least-connections 10.96.0.10:80/tcp -> 172.30.0.11:{port}"));
            let service = end(six, "10.96.0.10:80");
            let mut clients: Vec<_> = (0..300)
                .map(|_| {
                    let client = TcpStream::connect(service).unwrap();
                    backend.accept().unwrap();
                    client
                })
                .collect();
            assert_eq!(node.load(six, 1), Load { flows: 0, sockets: 300 });
            assert!(clients.iter().all(|client| client.peer_addr().unwrap() == service));
            clients.truncate(7);
            assert_eq!(node.load(six, 1), Load { flows: 0, sockets: 7 });
            drop(backend);
            check_error(TcpStream::connect(service), ErrorKind::ConnectionRefused, "nobody listens");
            assert_eq!(node.load(six, 1), Load { flows: 0, sockets: 7 });
            drop(clients);
            assert_eq!(node.load(six, 1), Load::default());
        }
    });
}

#[test]
fn a_connected_socket_has_the_slot_of_its_cookie_until_it_is_closed() {
    with_node(|mut node| {
        for six in [false, true] {
            let (backend, port) = listener(six);
            node.service_of(six, &format!("10.96.0.10:53/tcp -> 172.30.0.11:{port}"));
            node.service_of(six, &format!("10.96.0.10:53/udp -> 172.30.0.11:{port}"));
            let stream = TcpStream::connect(end(six, "10.96.0.10:53")).unwrap();
            let datagrams = UdpSocket::bind((of(six, NODE), 0)).unwrap();
            datagrams.connect(end(six, "10.96.0.10:53")).unwrap();
            let cookies = [socket_cookie(&stream).unwrap(), socket_cookie(&datagrams).unwrap()];
            for cookie in cookies {
                let slot = node.slot(cookie);
                assert_eq!((slot.cookie, slot.pair.backend_port.host(), slot.pair.index), (cookie, port, 1));
            }
            drop((stream, datagrams, backend));
            assert!(cookies.iter().all(|cookie| node.slot(*cookie).cookie == 0));
        }
    });
}

#[test]
fn a_socket_whose_slot_is_taken_lacks_nothing() {
    with_node(|mut node| {
        let taken = SocketSlot { cookie: u64::MAX, ..SocketSlot::default() };
        let fill = |node: &mut Node, slot: &SocketSlot| {
            for index in 0..maps::SKSLOT.entries as u32 {
                Loaded(&mut node.ebpf).put(maps::SKSLOT.name, index.as_bytes(), slot.as_bytes());
            }
        };
        fill(&mut node, &taken);
        let (backend, port) = listener(false);
        node.service_of(false, &format!("least-connections 10.96.0.10:80/tcp -> 172.30.0.11:{port}"));
        let service = end(false, "10.96.0.10:80");
        let clients: Vec<_> = (0..10).map(|_| TcpStream::connect(service).unwrap()).collect();
        assert!(clients.iter().all(|client| client.peer_addr().unwrap() == service));
        assert_eq!(node.load(false, 1).sockets, 10);
        fill(&mut node, &SocketSlot::default());
        assert!(clients.iter().all(|client| client.peer_addr().unwrap() == service));
        drop((clients, backend));
        assert_eq!(node.load(false, 1).sockets, 0);
    });
}

#[test]
fn a_backend_that_is_another_by_now_is_not_uncounted() {
    with_node(|mut node| {
        let (_backend, port) = listener(false);
        let backend = format!("172.30.0.11:{port}");
        node.service_of(false, &format!("least-connections 10.96.0.10:80/tcp -> {backend}"));
        let client = TcpStream::connect("10.96.0.10:80").unwrap();
        assert_eq!(node.load(false, 1).sockets, 1);
        // The agent clears the load of an index that it gives to another backend.
        node.objects[0].gone(&backend, false, &mut Loaded(&mut node.ebpf)).unwrap();
        Loaded(&mut node.ebpf).put(maps::LOAD4.name, 1_u32.as_bytes(), Load::default().as_bytes());
        drop(client);
        assert_eq!(node.load(false, 1).sockets, 0);
    });
}

/// Not a benchmark of the product (that is `perf`): what the kernel's run-time statistics say that a `connect` and a close take in our
/// programs, their own cost (two clock readings) included. `cargo test -p golden --test socket -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn time_of_a_connect() {
    for features in [world::config().features, world::config().features & !features::PEER_NAME] {
        in_namespace(move |path| {
            let mut node = Node::of(&path, Config { features, ..world::config() });
            let mut first = CpuSet::new();
            first.set(0);
            sched_setaffinity(None, &first).unwrap();
            let _statistics = aya::sys::enable_stats(aya::sys::Stats::RunTime).unwrap();
            let reverse = if features & features::PEER_NAME != 0 { "with" } else { "without" };
            for six in [false, true] {
                let (backend, port) = listener(six);
                node.service_of(six, &format!("10.96.0.10:80/tcp -> 172.30.0.11:{port}"));
                for (what, target) in [
                    ("to a service", end(six, "10.96.0.10:80")),
                    ("to its backend", backend.local_addr().unwrap()),
                ] {
                    let connect = if six { "cg_connect6" } else { "cg_connect4" };
                    node.time(
                        &[connect, "cg_sock_release"],
                        &format!("{what}, {reverse} reverse address"),
                        || {
                            let client = TcpStream::connect(target).unwrap();
                            let server = backend.accept().unwrap();
                            // No TIME_WAIT: ports would run out.
                            set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
                            drop(client);
                            drop(server);
                        },
                    );
                }
            }
        });
    }
}

/// As [`time_of_a_connect`]: a datagram of a socket that is not connected, and its answer.
#[test]
#[ignore = "measures"]
fn time_of_a_datagram() {
    with_node(|mut node| {
        let _statistics = aya::sys::enable_stats(aya::sys::Stats::RunTime).unwrap();
        for six in [false, true] {
            let backend = UdpSocket::bind((of(six, NODE), 0)).unwrap();
            let (addr, port) = (backend.local_addr().unwrap(), backend.local_addr().unwrap().port());
            node.service_of(six, &format!("10.96.0.10:53/udp -> 172.30.0.11:{port}"));
            let programs = if six { ["cg_sendmsg6", "cg_recvmsg6"] } else { ["cg_sendmsg4", "cg_recvmsg4"] };
            let talk = |client: &UdpSocket, to: SocketAddr| {
                let mut bytes = [0; 8];
                client.send_to(b"question", to).unwrap();
                let (_, from) = backend.recv_from(&mut bytes).unwrap();
                backend.send_to(b"answer", from).unwrap();
                assert_eq!(client.recv_from(&mut bytes).unwrap().1, to);
            };
            for (what, to) in [("to a service", end(six, "10.96.0.10:53")), ("to its backend", addr)] {
                let client = UdpSocket::bind((of(six, NODE), 0)).unwrap();
                node.time(&programs, &format!("{what}, one socket"), || talk(&client, to));
                node.time(&programs, &format!("{what}, a socket each"), || {
                    talk(&UdpSocket::bind((of(six, NODE), 0)).unwrap(), to);
                });
            }
        }
    });
}

impl Node {
    /// Prints what the programs take while `act` is repeated: 30 rounds of 1,000, of which the fastest and the middle one are
    /// told.
    fn time(&self, programs: &[&str], what: &str, act: impl Fn()) {
        let mut rounds = vec![Vec::new(); programs.len()];
        for _ in 0..30 {
            let before: Vec<_> = programs.iter().map(|name| self.runs(name)).collect();
            (0..1_000).for_each(|_| act());
            for ((name, (count, time)), round) in programs.iter().zip(before).zip(&mut rounds) {
                let (now, later) = self.runs(name);
                round.push((later - time).as_nanos() / u128::from(now - count).max(1));
            }
        }
        for (name, round) in programs.iter().zip(&mut rounds) {
            round.sort_unstable();
            println!("{what}: {name} {} ns, {} at best", round[round.len() / 2], round[0]);
        }
    }
}
