//! `perf probe`: the part of `perf control` that runs in a client's pod. It sends numbered questions to nobody's order but
//! its caller's: a datagram from a new socket (a new flow, which no proxy has decided about yet) every so often, until the
//! server that is waited for answers. It ends with its standard input.

use std::collections::VecDeque;
use std::io::{BufRead, Write, stdin, stdout};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::clock;
use super::protocol::{Answer, Ask, Counts, Watch};

/// Sockets whose answer may still come; the oldest makes room.
const WAITING: usize = 64;

/// `perf probe`.
pub(crate) fn run() -> Result<()> {
    for line in stdin().lock().lines() {
        let line = line.context("read what is asked")?;
        match serde_json::from_str(&line).with_context(|| format!("read {line:?}"))? {
            Ask::Clock => say(&Answer::Clock { now_ns: clock::now_ns(), boot: clock::boot() })?,
            Ask::Watch(watch) => {
                say(&Answer::Begun { now_ns: clock::now_ns() })?;
                say(&look(&watch)?)?;
            }
        }
    }
    Ok(())
}

fn say(answer: &Answer) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{}", serde_json::to_string(answer)?)?;
    out.flush().context("answer")
}

fn look(watch: &Watch) -> Result<Answer> {
    let (interval, limit) = (watch.interval_us.max(10) * 1_000, watch.limit_ms * 1_000_000);
    let begun = clock::now_ns();
    let mut probe = Probe { watch, waiting: VecDeque::new(), counts: Counts::default() };
    let mut next = begun;
    loop {
        let now = clock::now_ns();
        if now - begun > limit {
            return Ok(Answer::NotSeen { counts: probe.counts });
        }
        if now >= next {
            probe.send()?;
            // What was missed is not made up for: a stalled prober must not send a burst.
            next = now + interval;
        }
        if let Some(at_ns) = probe.wait(Duration::from_nanos(next.saturating_sub(clock::now_ns())))? {
            return Ok(Answer::Seen { at_ns, counts: probe.counts });
        }
    }
}

struct Probe<'a> {
    watch: &'a Watch,
    waiting: VecDeque<UdpSocket>,
    counts: Counts,
}

impl Probe<'_> {
    /// One datagram from a socket of its own. That nobody takes it is no failure: it is what is measured.
    fn send(&mut self) -> Result<()> {
        let any: SocketAddr = if self.watch.target.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(any).context("open a socket")?;
        socket.set_nonblocking(true)?;
        self.counts.sent += 1;
        if socket.connect(self.watch.target).and_then(|()| socket.send(b"x")).is_err() {
            self.counts.refused += 1;
            return Ok(());
        }
        if self.waiting.len() == WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(socket);
        Ok(())
    }

    /// Takes answers for at most `time`; when the right one came, if it did.
    fn wait(&mut self, time: Duration) -> Result<Option<u64>> {
        let timeout = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let mut fds: Vec<_> = self.waiting.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error).context("wait for answers"),
        }
        let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        for index in (0..ready.len()).rev().filter(|index| ready[*index]) {
            let Some(socket) = self.waiting.remove(index) else { continue };
            let mut buffer = [0; 2048];
            match socket.recv(&mut buffer) {
                Ok(length) if answered_by(&buffer[..length], &self.watch.pod) => {
                    return Ok(Some(clock::now_ns()));
                }
                Ok(_) => self.counts.other += 1,
                Err(_) => self.counts.refused += 1,
            }
        }
        Ok(None)
    }
}

/// Whether an answer of `echo` names this pod.
fn answered_by(answer: &[u8], pod: &str) -> bool {
    let answer = String::from_utf8_lossy(answer);
    answer.split_whitespace().find_map(|word| word.strip_prefix("pod=")) == Some(pod)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::thread;

    fn watch(target: SocketAddr, limit_ms: u64) -> Watch {
        Watch { target, pod: "new".to_owned(), interval_us: 500, limit_ms }
    }

    #[test]
    fn the_first_answer_of_the_right_pod_ends_it() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        thread::spawn(move || {
            for pod in ["old", "older", "newest", "new"] {
                let (_, peer) = server.recv_from(&mut [0; 8]).unwrap();
                server.send_to(format!("pod={pod} node=n got=x\n").as_bytes(), peer).unwrap();
            }
        });
        let before = clock::now_ns();
        let Answer::Seen { at_ns, counts } = look(&watch(target, 10_000)).unwrap() else {
            panic!("not seen");
        };
        assert!(at_ns > before && at_ns <= clock::now_ns());
        assert_eq!((counts.other, counts.refused), (3, 0));
        assert!(counts.sent >= 4);
    }

    #[test]
    fn refusals_are_counted_and_the_limit_ends_it() {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let Answer::NotSeen { counts } = look(&watch(free, 20)).unwrap() else { panic!("seen") };
        assert!(counts.refused > 0 && counts.sent >= counts.refused, "{counts:?}");
    }
}
