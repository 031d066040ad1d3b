//! Client and server processes. Each answer names the backend and the client address that it saw.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use network::Netns;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType};

use crate::fabric::cgroup_path;

/// The next source port of a question. Each is used once: a pod that uses one port towards a service on packets and soon after towards
/// the service's backend directly may get the second answer from the service, which random ports would show now and then.
static NEXT_PORT: AtomicU16 = AtomicU16::new(33_000);

const PATIENCE: Duration = Duration::from_secs(3);
/// What a peer's lines start with, among those of the test harness.
const MARK: &str = "=> ";

/// Where a process runs.
#[derive(Clone)]
pub struct Place {
    pub namespace: String,
    /// A node's cgroup, whose sockets the programs serve; none: only its packets are seen.
    pub cgroup: Option<String>,
}

impl Place {
    pub fn outside(namespace: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), cgroup: None }
    }
}

/// A server's answer.
#[derive(Debug)]
pub struct Answer {
    pub backend: String,
    /// The client's address as the backend saw it.
    pub seen: IpAddr,
    /// getpeername of the client's socket.
    pub peer: String,
}

/// Starts this binary in a role; it waits for a line before it does anything, so that its cgroup is right by then.
pub fn child(place: &Place, role: &str, arguments: &str) -> (Child, ChildStdin, BufReader<ChildStdout>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_process", "--nocapture", "--test-threads=1"]);
    command.env("BEELINE_TEST_ROLE", role).env("BEELINE_TEST_ARGUMENTS", arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let namespace = Netns::open(format!("/run/netns/{}", place.namespace).as_ref()).unwrap();
    let mut child = namespace.run(|| command.spawn().unwrap()).unwrap();
    if let Some(cgroup) = &place.cgroup {
        std::fs::write(cgroup_path(cgroup).join("cgroup.procs"), child.id().to_string()).unwrap();
    }
    let (mut input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    writeln!(input, "go").unwrap();
    (child, input, output)
}

/// The next line that a child meant for us.
pub fn line(output: &mut impl BufRead) -> Option<String> {
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        // The harness writes "test child_process ... " without a line end before our first line.
        if let Some(at) = line.find(MARK) {
            return Some(line[at + MARK.len()..].trim_end().to_owned());
        }
    }
}

/// Prints a line for the parent.
pub fn say(text: &str) {
    println!("\n{MARK}{text}");
}

/// Connects, asks once, and gives the answer or what went wrong.
pub fn ask(place: &Place, protocol: &str, to: &str, port: u16) -> Result<Answer, String> {
    ask_from(place, protocol, to, port, fresh_port())
}

/// A source port that no question has had.
pub fn fresh_port() -> u16 {
    NEXT_PORT.fetch_add(1, Ordering::Relaxed)
}

/// [`ask`] with this source port.
pub fn ask_from(place: &Place, protocol: &str, to: &str, port: u16, from: u16) -> Result<Answer, String> {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    let (mut child, _input, mut output) = child(place, "peer", &format!("ask {protocol} {to} {from}"));
    let answer = line(&mut output).unwrap_or_else(|| "error: ended without an answer".to_owned());
    child.wait().unwrap();
    let words: Vec<&str> = answer.split(' ').collect();
    match words[..] {
        [backend, seen, peer] if backend != "error:" => {
            Ok(Answer { backend: backend.to_owned(), seen: seen.parse().unwrap(), peer: peer.to_owned() })
        }
        _ => Err(answer),
    }
}

/// A process that lives on; killed when dropped.
pub struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    /// A server on port 8080, TCP and UDP, both families.
    pub fn serve(place: &Place, name: &str) -> Self {
        Self::start(place, &format!("serve {name}"))
    }

    /// A client with an open connection.
    pub fn hold(place: &Place, to: &str, port: u16) -> Self {
        Self::start(place, &format!("hold {}", SocketAddr::new(to.parse().unwrap(), port)))
    }

    /// A client that keeps asking from one UDP port.
    pub fn keep_asking(place: &Place, to: &str, port: u16) -> Self {
        Self::start(place, &format!("keep-asking {}", SocketAddr::new(to.parse().unwrap(), port)))
    }

    /// Asks once more; the name of the backend that answered, or the error.
    pub fn once_more(&mut self) -> String {
        writeln!(self.input, "who").unwrap();
        line(&mut self.output).unwrap()
    }

    fn start(place: &Place, arguments: &str) -> Self {
        let (child, input, mut output) = child(place, "peer", arguments);
        assert_eq!(line(&mut output).as_deref(), Some("ready"), "{arguments}");
        Self { child, input, output }
    }

    /// Sends a line over the open connection; it must come back.
    #[track_caller]
    pub fn echo(&mut self, text: &str) {
        writeln!(self.input, "{text}").unwrap();
        assert_eq!(line(&mut self.output).as_deref(), Some(text));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's side.
pub fn main() {
    let mut go = String::new();
    std::io::stdin().read_line(&mut go).unwrap();
    let arguments = std::env::var("BEELINE_TEST_ARGUMENTS").unwrap();
    let words: Vec<&str> = arguments.split(' ').collect();
    match words[..] {
        ["serve", name] => serve(name),
        ["ask", protocol, to, from] => {
            let answer = if protocol == "tcp" { ask_tcp(to, from) } else { ask_udp(to, from) };
            say(&answer.unwrap_or_else(|error| format!("error: {error}")));
        }
        ["hold", to] => hold(to),
        ["keep-asking", to] => keep_asking(to),
        _ => panic!("{arguments}"),
    }
}

fn ask_tcp(to: &str, from: &str) -> std::io::Result<String> {
    let to: SocketAddr = to.parse().unwrap();
    let (family, any) =
        if to.is_ipv4() { (AddressFamily::INET, "0.0.0.0") } else { (AddressFamily::INET6, "[::]") };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    // The port's last connection may be in TIME_WAIT, to another address.
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &format!("{any}:{from}").parse::<SocketAddr>().unwrap())?;
    // For `connect` too (socket(7)).
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    rustix::net::connect(&socket, &to)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"who\n")?;
    let mut name = String::new();
    BufReader::new(&stream).read_line(&mut name)?;
    Ok(format!("{} {}", name.trim(), stream.peer_addr()?))
}

fn ask_udp(to: &str, from: &str) -> std::io::Result<String> {
    let to: SocketAddr = to.parse().unwrap();
    let any = if to.is_ipv4() { "0.0.0.0" } else { "[::]" };
    let socket = UdpSocket::bind(format!("{any}:{from}"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // Not connected: the reply's source must be the address that was asked.
    socket.send_to(b"who\n", to)?;
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer)?;
    if from != to {
        return Err(std::io::Error::other(format!("asked {to}, answered by {from}")));
    }
    Ok(format!("{} {from}", String::from_utf8_lossy(&buffer[..length]).trim()))
}

fn hold(to: &str) {
    let mut stream = TcpStream::connect_timeout(&to.parse().unwrap(), PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    say("ready");
    for line in std::io::stdin().lines() {
        writeln!(stream, "{}", line.unwrap()).unwrap();
        let mut answer = String::new();
        match answers.read_line(&mut answer) {
            Ok(_) => say(answer.trim_end()),
            Err(error) => say(&format!("error: {error}")),
        }
    }
}

fn keep_asking(to: &str) {
    let to: SocketAddr = to.parse().unwrap();
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    say("ready");
    for _ in std::io::stdin().lines() {
        let mut buffer = [0; 64];
        match socket.send_to(b"who\n", to).and_then(|_| socket.recv_from(&mut buffer)) {
            Ok((length, _)) => {
                say(String::from_utf8_lossy(&buffer[..length]).split(' ').next().unwrap_or_default());
            }
            Err(error) => say(&format!("error: {error}")),
        }
    }
}

/// "who" is answered with the name, everything else with itself.
fn serve(name: &str) {
    let name = name.to_owned();
    let udp = UdpSocket::bind("[::]:8080").unwrap();
    let tcp = TcpListener::bind("[::]:8080").unwrap();
    say("ready");
    let udp_name = name.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        loop {
            let (_, from) = udp.recv_from(&mut buffer).unwrap();
            let _ = udp.send_to(format!("{udp_name} {}", from.ip().to_canonical()).as_bytes(), from);
        }
    });
    for stream in tcp.incoming() {
        let (mut stream, name) = (stream.unwrap(), name.clone());
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stream.try_clone().unwrap().take(1 << 20));
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
                let seen = stream.peer_addr().unwrap().ip().to_canonical();
                let answer = if line.trim() == "who" { format!("{name} {seen}\n") } else { line.clone() };
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
                line.clear();
            }
        });
    }
}

/// Any error, as text for the parent.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
