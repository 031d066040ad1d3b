//! One lane: a client's, a node's and a backend's network namespace in a row, the same addresses in every lane.
//!
//! | where | device | address |
//! |---|---|---|
//! | client | `eth0` | 10.1.0.2/16 |
//! | node | `client` | 10.1.0.1/16 |
//! | node | `backend` | 10.2.0.1/24, 192.168.9.1/24 |
//! | backend | `eth0` | 10.2.0.2, .3 and .4/24, 192.168.9.2/24 |
//!
//! Neighbours are static, nothing waits after it is closed (TIME_WAIT), and an `echo` answers in the backend.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::namespace::Namespace;

/// The client's address.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
/// The node's address towards the client.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// The backends, all in one namespace.
pub(crate) const BACKENDS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 2, 0, 2), Ipv4Addr::new(10, 2, 0, 3), Ipv4Addr::new(10, 2, 0, 4)];
/// The node's address towards other nodes.
pub(crate) const NODE_SEGMENT: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 1);
/// The backends' node.
pub(crate) const PEER_SEGMENT: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 2);
/// echo's port of lines and datagrams, and of HTTP.
pub(crate) const ECHO: u16 = 9090;
/// echo's port of HTTP.
pub(crate) const HTTP: u16 = 8080;

/// Hardware addresses: client, node towards it, node towards the backend, backend.
pub(crate) const MACS: [[u8; 6]; 4] =
    [[2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 2, 1], [2, 0, 0, 0, 2, 2]];

/// Settings of every namespace, below /proc/sys/net.
const SETTINGS: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/tcp_max_tw_buckets", "0"),
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
];

/// A lane's namespaces; they are removed with it.
pub(crate) struct Topology {
    pub(crate) client: Place,
    pub(crate) node: Place,
    pub(crate) backend: Place,
    echo: Option<Child>,
}

/// A named network namespace that is removed when it goes out of scope.
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) namespace: Namespace,
}

impl Place {
    fn new(name: String) -> Result<Self> {
        run(&["netns", "add", &name])?;
        let path = Path::new("/run/netns").join(&name);
        let namespace = Namespace::open(&path)?;
        let place = Self { name, namespace };
        place.inside(|| {
            for (setting, value) in SETTINGS {
                let path = Path::new("/proc/sys/net").join(setting);
                // A kernel without IPv6 has no setting for it.
                if path.exists() {
                    std::fs::write(&path, value).with_context(|| format!("write {}", path.display()))?;
                }
            }
            Ok(())
        })?;
        place.ip(&["link", "set", "lo", "up"])?;
        Ok(place)
    }

    /// Runs `ip` in it.
    pub(crate) fn ip(&self, arguments: &[&str]) -> Result<()> {
        run(&[&["-n", &self.name], arguments].concat())
    }

    /// Calls `work` on a thread of its own that lives in it.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let entered = || {
            self.namespace.enter()?;
            work()
        };
        thread::scope(|scope| scope.spawn(entered).join())
            .map_err(|_| anyhow!("the thread in namespace {} panicked", self.name))?
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = run(&["netns", "delete", &self.name]) {
            eprintln!("perf: network namespace {} is left behind: {error:#}", self.name);
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("run ip (package iproute2)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`ip {}`: {}", arguments.join(" "), said.trim());
    Ok(())
}

/// Removes what processes of this program have left that were killed: namespaces, pins and cgroups carry their number.
pub(crate) fn remove_leftovers() {
    let dead = |name: &str| {
        let pid = name.strip_prefix("perf-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    };
    let names = |directory: &Path| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.file_name().is_some_and(|name| dead(&name.to_string_lossy())))
            .collect::<Vec<_>>()
    };
    for path in names(Path::new("/run/netns")) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        end_processes(&name);
        run(&["netns", "delete", &name]).unwrap_or_else(|error| eprintln!("perf: {error:#}"));
    }
    let cgroups = crate::cgroup::unified().map(|root| names(&root)).unwrap_or_default();
    let pins = names(Path::new("/sys/fs/bpf"));
    let removed = cgroups
        .iter()
        .map(|path| (path, std::fs::remove_dir(path)))
        .chain(pins.iter().map(|path| (path, std::fs::remove_dir_all(path))));
    for (path, result) in removed {
        result.unwrap_or_else(|error| eprintln!("perf: {} is left behind: {error}", path.display()));
    }
}

/// Ends what a suite that was killed has left running in a namespace of its own making: echoes and proxies.
fn end_processes(name: &str) {
    let pids = output(Command::new("ip").args(["netns", "pids", name])).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| Pid::from_raw(line.trim().parse().ok()?)) {
        // It may have ended meanwhile.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// A program's output, or an error with what it said.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}", said.lines().take(3).collect::<Vec<_>>().join("; "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

impl Topology {
    /// Makes the lane `name` with an `echo` at its end.
    pub(crate) fn new(name: &str, echo: &Path) -> Result<Self> {
        let place = |role: &str| Place::new(format!("perf-{}-{name}-{role}", std::process::id()));
        let (client, node, backend) = (place("c")?, place("n")?, place("b")?);
        let topology = Self { client, node, backend, echo: None };
        topology.wire()?;
        topology.with_echo(echo)
    }

    fn wire(&self) -> Result<()> {
        let Self { client, node, backend, .. } = self;
        let macs = MACS.map(mac);
        for (place, device, far, near) in [(client, "client", 1, 0), (backend, "backend", 2, 3)] {
            place.ip(&[
                "link",
                "add",
                "eth0",
                "address",
                &macs[near],
                "type",
                "veth",
                "peer",
                "name",
                device,
                "address",
                &macs[far],
                "netns",
                &node.name,
            ])?;
            place.ip(&["link", "set", "eth0", "up"])?;
            node.ip(&["link", "set", device, "up"])?;
        }
        client.ip(&["address", "add", &format!("{CLIENT}/16"), "dev", "eth0"])?;
        node.ip(&["address", "add", &format!("{NODE}/16"), "dev", "client"])?;
        node.ip(&["address", "add", "10.2.0.1/24", "dev", "backend"])?;
        node.ip(&["address", "add", &format!("{NODE_SEGMENT}/24"), "dev", "backend"])?;
        for address in BACKENDS {
            backend.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
            node.ip(&["neigh", "add", &address.to_string(), "lladdr", &macs[3], "dev", "backend"])?;
        }
        backend.ip(&["address", "add", &format!("{PEER_SEGMENT}/24"), "dev", "eth0"])?;
        // A service's address must have a route before rules can send it elsewhere.
        node.ip(&["route", "add", "default", "via", &PEER_SEGMENT.to_string()])?;
        node.ip(&["neigh", "add", &PEER_SEGMENT.to_string(), "lladdr", &macs[3], "dev", "backend"])?;
        node.ip(&["neigh", "add", &CLIENT.to_string(), "lladdr", &macs[0], "dev", "client"])?;
        for (place, gateway, mac) in
            [(client, NODE, &macs[1]), (backend, Ipv4Addr::new(10, 2, 0, 1), &macs[2])]
        {
            let gateway = gateway.to_string();
            place.ip(&["route", "add", "default", "via", &gateway])?;
            place.ip(&["neigh", "add", &gateway, "lladdr", mac, "dev", "eth0"])?;
        }
        backend.ip(&["neigh", "add", &NODE_SEGMENT.to_string(), "lladdr", &macs[2], "dev", "eth0"])
    }

    fn with_echo(mut self, echo: &Path) -> Result<Self> {
        let mut command = Command::new(echo);
        let addresses = BACKENDS.map(|address| address.to_string()).join(",");
        command.env("POD_NAME", "backend").env("ECHO_UDP_ADDRESSES", addresses);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.process_group(0);
        let spawn = || command.spawn().with_context(|| format!("start {}", echo.display()));
        self.echo = Some(self.backend.inside(spawn)?);
        self.wait_for_echo()?;
        Ok(self)
    }

    fn wait_for_echo(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        self.client.inside(|| {
            let target = (BACKENDS[0], ECHO).into();
            loop {
                match std::net::TcpStream::connect_timeout(&target, Duration::from_secs(1)) {
                    Ok(_) => return Ok(()),
                    Err(error) if Instant::now() > deadline => {
                        bail!("echo at {target} does not answer: {error}")
                    }
                    Err(_) => thread::sleep(Duration::from_millis(20)),
                }
            }
        })
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        if let Some(echo) = &mut self.echo {
            // Ours, by its own handle; an error means that it has ended already.
            drop(echo.kill());
            drop(echo.wait());
        }
    }
}
