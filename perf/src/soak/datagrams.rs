//! Numbered datagrams at a steady rate, each of which must come back once. Nothing is sent twice: a datagram that the
//! path drops is lost, and counted with the pod that had answered last on the same socket.
//!
//! Whoever serves a Service may end a connected socket whose backend has left (`SOCK_DESTROY`: the socket gets `ECONNABORTED`). A question
//! that is under way at that moment has no socket left for its answer: it is counted as cut off, apart from what the path loses.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Run;
use super::tally::{Failures, Silence, got, milliseconds, pod, reason};

/// After the last datagram answers are waited for until none has come for so long.
const QUIET: Duration = Duration::from_secs(1);
/// A question is under way for no longer than this: what was asked earlier and had no answer when its socket ended was lost before.
const UNDER_WAY: Duration = Duration::from_millis(20);

/// What is counted.
#[derive(Default, Serialize)]
pub(super) struct Totals {
    sent: u64,
    answered: u64,
    lost: u64,
    /// Those that were under way when their socket was ended, and the longest time between asking and that.
    cut_off: u64,
    longest_cut_off_ms: f64,
    /// Answers that came more than once.
    duplicated: u64,
    /// Answers to something that was not asked.
    wrong: u64,
    /// Lost ones by the pod that had answered last on the same socket (`-`: none had).
    lost_by_pod: BTreeMap<String, u64>,
    /// The first runs of lost datagrams: `FLOW: FIRST-LAST`.
    lost_runs: Vec<String>,
    /// Datagrams that could not be sent, and errors that came back (ICMP).
    failures: Failures,
    /// The longest time between two answers on a socket.
    longest_gap_ms: f64,
    /// How often a socket was connected anew: whoever serves it may end a connected socket whose backend has left, and
    /// tells it by an error.
    reconnects: u64,
    /// Answers by pod.
    pods: BTreeMap<String, u64>,
}

impl Totals {
    pub(super) fn finish(&mut self) {
        self.lost = self.sent - self.answered - self.cut_off;
    }
}

/// Starts a task a socket.
pub(super) async fn start(run: &Run, tasks: &mut JoinSet<()>) -> Result<()> {
    if run.args.udp_target.is_empty() || run.args.udp_rate == 0 {
        return Ok(());
    }
    for index in 0..run.args.udp_flows {
        let target = run.args.udp_target[index as usize % run.args.udp_target.len()];
        let any: IpAddr =
            if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(target).await.with_context(|| format!("connect a datagram socket to {target}"))?;
        let flow = Flow { index, target, run: run.clone(), sent: Rc::default() };
        tasks.spawn_local(flow.stream(Rc::new(socket)));
    }
    Ok(())
}

struct Flow {
    index: u64,
    target: SocketAddr,
    run: Run,
    sent: Rc<RefCell<Sent>>,
}

/// What became of each datagram, by number.
#[derive(Default)]
struct Sent {
    answers: Vec<u32>,
    at: Vec<Instant>,
    /// How long it had been under way when its socket ended.
    cut_off: BTreeMap<usize, Duration>,
    /// Who had answered last when it was sent: an index into `pods`.
    owner: Vec<u32>,
    pods: Vec<String>,
    silence: Silence,
}

impl Sent {
    fn push(&mut self, now: Instant) {
        if self.pods.is_empty() {
            self.pods.push("-".to_owned());
        }
        self.answers.push(0);
        self.at.push(now);
        self.owner.push(self.pods.len() as u32 - 1);
    }

    fn answered_by(&mut self, pod: &str) {
        if self.pods.last().is_none_or(|last| last != pod) {
            self.pods.push(pod.to_owned());
        }
        self.silence.broken();
    }

    /// The socket was ended.
    fn ended(&mut self, now: Instant) {
        for (number, at) in self.at.iter().enumerate().rev() {
            let under_way = now.duration_since(*at);
            if under_way > UNDER_WAY {
                break;
            }
            if self.answers[number] == 0 {
                self.cut_off.insert(number, under_way);
            }
        }
    }

    /// The runs of datagrams without an answer, those aside that were cut off: first, last.
    fn lost(&self) -> Vec<(usize, usize)> {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        let silent = self.answers.iter().enumerate().filter(|(_, answers)| **answers == 0);
        for (number, _) in silent.filter(|(number, _)| !self.cut_off.contains_key(number)) {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => runs.push((number, number)),
            }
        }
        runs
    }
}

impl Flow {
    async fn stream(mut self, socket: Rc<UdpSocket>) {
        let interval = Duration::from_secs(self.run.args.udp_flows).div_f64(self.run.args.udp_rate as f64);
        let mut next = Instant::now() + interval.mul_f64(self.index as f64 / self.run.args.udp_flows as f64);
        self.sent.borrow_mut().silence.broken();
        let mut buffer = [0; 2048];
        loop {
            tokio::select! {
                biased;
                received = socket.recv(&mut buffer) => {
                    if received.as_ref().is_err_and(wants_connect) {
                        self.connect_again(&socket).await;
                    }
                    self.received(&buffer, received);
                }
                more = self.run.sleep(next.saturating_duration_since(Instant::now())) => {
                    if !more {
                        break;
                    }
                    self.send(&socket).await;
                    next += interval;
                }
            }
        }
        while let Ok(received) = tokio::time::timeout(QUIET, socket.recv(&mut buffer)).await {
            self.received(&buffer, received);
        }
    }

    async fn send(&self, socket: &UdpSocket) {
        let number = self.sent.borrow().answers.len();
        let text = format!("U{}-{number}", self.index);
        let mut result = socket.send(text.as_bytes()).await;
        if result.as_ref().is_err_and(wants_connect) {
            // What could not be sent is sent on the connection that follows: it counts once.
            self.connect_again(socket).await;
            result = socket.send(text.as_bytes()).await;
        }
        match result {
            Ok(_) => {
                self.sent.borrow_mut().push(Instant::now());
                self.run.totals.borrow_mut().udp.sent += 1;
            }
            Err(error) => self.failed("send", &error),
        }
    }

    fn received(&self, buffer: &[u8], result: io::Result<usize>) {
        let length = match result {
            Ok(length) => length,
            Err(error) => return self.failed("receive", &error),
        };
        let answer = String::from_utf8_lossy(&buffer[..length]);
        let mut totals = self.run.totals.borrow_mut();
        let mut sent = self.sent.borrow_mut();
        let number = got(&answer)
            .and_then(|got| got.strip_prefix(&format!("U{}-", self.index)))
            .and_then(|number| number.parse::<usize>().ok());
        let known = number.filter(|number| *number < sent.answers.len());
        let Some(number) = known else {
            totals.udp.wrong += 1;
            return;
        };
        sent.answers[number] += 1;
        sent.cut_off.remove(&number);
        if sent.answers[number] > 1 {
            totals.udp.duplicated += 1;
            return;
        }
        totals.udp.answered += 1;
        *totals.udp.pods.entry(pod(&answer).to_owned()).or_default() += 1;
        sent.answered_by(pod(&answer));
    }

    /// What a client does whose socket has lost its peer.
    async fn connect_again(&self, socket: &UdpSocket) {
        self.run.totals.borrow_mut().udp.reconnects += 1;
        self.sent.borrow_mut().ended(Instant::now());
        if let Err(error) = socket.connect(self.target).await {
            self.failed("connect", &error);
        }
    }

    fn failed(&self, step: &str, error: &io::Error) {
        let what = format!("datagrams to {}", self.target);
        self.run.totals.borrow_mut().udp.failures.add(&format!("{step}: {}", reason(error)), &what);
    }
}

/// Whether an error says that the socket is connected to nobody any more: it was aborted, or has no peer (udp(7)).
fn wants_connect(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::NotConnected)
        || error.raw_os_error() == Some(rustix::io::Errno::DESTADDRREQ.raw_os_error())
}

impl Drop for Flow {
    /// At the end, whether all answers came or the grace period ended.
    fn drop(&mut self) {
        let mut sent = self.sent.borrow_mut();
        let runs = sent.lost();
        if runs.last().is_some_and(|(_, last)| last + 1 == sent.answers.len()) {
            sent.silence.still_waiting();
        }
        let mut totals = self.run.totals.borrow_mut();
        totals.udp.longest_gap_ms = totals.udp.longest_gap_ms.max(milliseconds(sent.silence.longest));
        totals.udp.cut_off += sent.cut_off.len() as u64;
        let longest = sent.cut_off.values().max().copied().unwrap_or_default();
        totals.udp.longest_cut_off_ms = totals.udp.longest_cut_off_ms.max(milliseconds(longest));
        for (first, last) in runs {
            for number in first..=last {
                let owner = &sent.pods[sent.owner[number] as usize];
                *totals.udp.lost_by_pod.entry(owner.clone()).or_default() += 1;
            }
            if totals.udp.lost_runs.len() < 10 {
                totals.udp.lost_runs.push(format!("{}: {first}-{last}", self.index));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_without_peer_is_connected_anew() {
        for (number, wanted) in [
            (rustix::io::Errno::DESTADDRREQ, true),
            (rustix::io::Errno::CONNABORTED, true),
            (rustix::io::Errno::NOTCONN, true),
            (rustix::io::Errno::CONNREFUSED, false),
        ] {
            assert_eq!(wants_connect(&number.into()), wanted, "{number:?}");
        }
    }

    #[test]
    fn a_question_under_way_is_cut_off_when_its_socket_ends_and_an_older_one_was_lost() {
        let start = Instant::now();
        let mut sent = Sent::default();
        sent.push(start);
        let later = start + UNDER_WAY * 2;
        (0..3).for_each(|_| sent.push(later));
        sent.answers[2] = 1;
        sent.ended(later + UNDER_WAY);
        assert_eq!(sent.cut_off.keys().collect::<Vec<_>>(), [&1, &3]);
        assert_eq!(sent.lost(), [(0, 0)]);
    }

    #[test]
    fn lost_datagrams_are_runs_with_the_pod_that_had_answered_last() {
        let mut sent = Sent::default();
        let now = Instant::now();
        sent.push(now);
        sent.answered_by("a");
        sent.answers[0] = 1;
        (0..4).for_each(|_| sent.push(now));
        sent.answers[3] = 1;
        assert_eq!(sent.lost(), [(1, 2), (4, 4)]);
        let owners: Vec<_> = sent.owner.iter().map(|owner| sent.pods[*owner as usize].as_str()).collect();
        assert_eq!(owners, ["-", "a", "a", "a", "a"]);
    }
}
