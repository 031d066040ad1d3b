//! Connections that are opened, asked once and closed. They start by the clock, whatever became of those before
//! (open loop): a path that pauses meets as many as one that does not.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::Run;
use super::tally::{Failures, got, milliseconds, pod, reason};

/// An answer that takes longer is a failure: six SYNs were sent by then (tcp(7), `tcp_syn_retries`).
const LIMIT: Duration = Duration::from_secs(60);
/// A SYN is sent again after one second: what took longer lost a packet, even though it succeeded.
const SLOW: Duration = Duration::from_millis(950);

/// What is counted.
#[derive(Default, Serialize)]
pub(super) struct Totals {
    attempts: u64,
    ok: u64,
    failed: u64,
    /// Of those that succeeded: how many took so long that a packet must have been lost.
    slow: u64,
    failures: Failures,
    longest_ms: f64,
    /// Answers by pod.
    pods: BTreeMap<String, u64>,
}

impl Totals {
    pub(super) fn finish(&mut self) {
        let unanswered = self.attempts - self.ok - self.failures.count();
        if unanswered > 0 {
            self.failures.reasons.insert("no answer at the end".to_owned(), unanswered);
        }
        self.failed = self.failures.count();
    }
}

/// Starts connections until the end, and returns when all have been answered.
pub(super) async fn keep_asking(mut run: Run) {
    let interval = Duration::from_secs(60).div_f64(run.args.short_per_minute as f64);
    let mut tasks = JoinSet::new();
    let mut next = Instant::now();
    let mut index = 0;
    loop {
        if !run.sleep(next.saturating_duration_since(Instant::now())).await {
            break;
        }
        next += interval;
        tasks.spawn_local(ask(run.clone(), index));
        index += 1;
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}

async fn ask(run: Run, index: usize) {
    let target = run.target(index);
    run.totals.borrow_mut().short.attempts += 1;
    let started = Instant::now();
    let question = format!("S{index}");
    let result = timeout(LIMIT, exchange(target, &question)).await;
    let took = started.elapsed();
    let mut totals = run.totals.borrow_mut();
    let short = &mut totals.short;
    short.longest_ms = short.longest_ms.max(milliseconds(took));
    let why = match result {
        Ok(Ok(answer)) if got(&answer) == Some(&question) => {
            short.ok += 1;
            short.slow += u64::from(took > SLOW);
            *short.pods.entry(pod(&answer).to_owned()).or_default() += 1;
            return;
        }
        Ok(Ok(_)) => "wrong answer".to_owned(),
        Ok(Err((step, error))) => format!("{step}: {}", reason(&error)),
        Err(_) => "no answer in time".to_owned(),
    };
    short.failures.add(&why, &format!("short connection {index} to {target} after {took:.1?}"));
}

async fn exchange(target: SocketAddr, question: &str) -> Result<String, (&'static str, io::Error)> {
    let mut stream = TcpStream::connect(target).await.map_err(|error| ("connect", error))?;
    // Without it the answer is late, not wrong.
    drop(stream.set_nodelay(true));
    stream.write_all(format!("{question}\n").as_bytes()).await.map_err(|error| ("send", error))?;
    let mut answer = String::new();
    let mut reader = BufReader::new(stream);
    match reader.read_line(&mut answer).await {
        Ok(0) => Err(("receive", io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => Ok(answer),
        Err(error) => Err(("receive", error)),
    }
}
