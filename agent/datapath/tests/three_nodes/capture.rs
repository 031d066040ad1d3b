//! Frames as they cross the bridge, and the checksums in them.
//!
//! The uplinks of the fabric complete checksums before a frame leaves (no offloads), so every frame there must be right: of the IPv4
//! header, and of TCP, UDP and ICMP. Fragments are counted and not judged.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Whether this machine can capture.
pub fn possible() -> bool {
    Command::new("tcpdump").arg("--version").output().is_ok()
}

/// Running captures of ports of the bridge.
pub struct Captures(Vec<(Child, PathBuf)>);

impl Captures {
    pub fn start(namespace: &str, ports: &[&str], directory: &Path) -> Self {
        let start = |port: &&str| {
            let file = directory.join(format!("{port}.pcap"));
            let mut command = Command::new("ip");
            command
                .args(["netns", "exec", namespace, "tcpdump", "-U", "-Z", "root", "-s", "0", "-B", "16384"]);
            command.args(["-i", port, "-w"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
            (command.spawn().unwrap(), file)
        };
        let captures = Self(ports.iter().map(start).collect());
        // tcpdump writes the file's header when it listens.
        for (_, file) in &captures.0 {
            while std::fs::metadata(file).map_or(0, |file| file.len()) < 24 {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        captures
    }

    /// Ends the captures; all frames of each port.
    pub fn stop(self) -> Vec<Vec<u8>> {
        // What is in the kernel's ring is written within tcpdump's buffer timeout of a second.
        std::thread::sleep(Duration::from_millis(1300));
        let stop = |(mut child, file): (Child, PathBuf)| {
            // `ip netns exec` becomes the program that it runs.
            let _ = child.kill();
            let _ = child.wait();
            std::fs::read(file).unwrap()
        };
        self.0.into_iter().map(stop).collect()
    }
}

/// The IP packets of a capture file (pcap, little endian, Ethernet), with their EtherType.
fn packets(file: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    assert_eq!(file[..4], [0xd4, 0xc3, 0xb2, 0xa1], "a capture file");
    let mut rest = &file[24..];
    std::iter::from_fn(move || {
        let (header, after) = rest.split_at_checked(16)?;
        let length = u32::from_le_bytes(header[8..12].try_into().ok()?) as usize;
        // A capture that was cut off ends with half a frame.
        let (frame, after) = after.split_at_checked(length)?;
        rest = after;
        Some((u16::from_be_bytes([frame[12], frame[13]]), &frame[14..]))
    })
}

/// How many packets of a capture file come from this address.
pub fn count_from(file: &[u8], address: IpAddr) -> usize {
    let source = |(kind, packet): &(u16, &[u8])| match (kind, address) {
        (0x0800, IpAddr::V4(address)) => packet[12..16] == address.octets(),
        (0x86dd, IpAddr::V6(address)) => packet[8..24] == address.octets(),
        _ => false,
    };
    packets(file).filter(source).count()
}

/// What was found in captures.
#[derive(Debug, Default)]
pub struct Tally {
    pub tcp: usize,
    pub udp: usize,
    pub icmp: usize,
    pub fragments: usize,
    /// Frames with a wrong checksum.
    pub wrong: Vec<String>,
}

impl Tally {
    /// Judges a capture file.
    pub fn add(&mut self, port: usize, file: &[u8]) {
        for (kind, packet) in packets(file) {
            let verdict = match kind {
                0x0800 => self.ipv4(packet),
                0x86dd => self.ipv6(packet),
                _ => Ok(()),
            };
            if let Err(what) = verdict {
                self.wrong.push(format!("port {port}: {what}: {:02x?}", &packet[..packet.len().min(60)]));
            }
        }
    }

    fn ipv4(&mut self, packet: &[u8]) -> Result<(), &'static str> {
        let header = usize::from(packet[0] & 15) * 4;
        let whole = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        if sum(0, &packet[..header]) != 0xffff {
            return Err("IPv4 header");
        }
        if u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0 {
            self.fragments += 1;
            return Ok(());
        }
        self.transport(packet[9], &packet[12..20], &packet[header..whole])
    }

    fn ipv6(&mut self, packet: &[u8]) -> Result<(), &'static str> {
        let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
        if packet[6] == 44 {
            self.fragments += 1;
            return Ok(());
        }
        self.transport(packet[6], &packet[8..40], &packet[40..40 + length])
    }

    fn transport(&mut self, protocol: u8, ends: &[u8], segment: &[u8]) -> Result<(), &'static str> {
        let pseudo = sum(u32::from(protocol) + segment.len() as u32, ends);
        let good = |initial: u32| sum(initial, segment) == 0xffff;
        match protocol {
            6 => {
                self.tcp += 1;
                good(pseudo).then_some(()).ok_or("TCP")
            }
            17 => {
                self.udp += 1;
                // No checksum: allowed over IPv4.
                let absent = segment[6..8] == [0, 0] && ends.len() == 8;
                (absent || good(pseudo)).then_some(()).ok_or("UDP")
            }
            1 => {
                self.icmp += 1;
                good(0).then_some(()).ok_or("ICMP")
            }
            58 => {
                self.icmp += 1;
                good(pseudo).then_some(()).ok_or("ICMPv6")
            }
            _ => Ok(()),
        }
    }
}

/// The one's complement sum (RFC 1071) of 16-bit words, from an initial value, folded.
fn sum(initial: u32, bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = u64::from(initial) + words.sum::<u64>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u32
}
