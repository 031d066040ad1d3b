//! Connections that are held: one request after another on each, for as long as the soak lasts. One that breaks is
//! counted with the pod it led to, and opened anew.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Run;
use super::tally::{Failures, got, milliseconds, pod, reason};

/// Before a broken connection is opened anew.
const PAUSE: Duration = Duration::from_millis(100);
/// The soak starts without a connection whose first attempt has no outcome by then; it goes on trying.
const UP: Duration = Duration::from_secs(20);

/// What is counted.
#[derive(Default, Serialize)]
pub(super) struct Totals {
    /// Connections held at the end.
    open: u64,
    /// Connections that were up and broke.
    broken: u64,
    /// The same by the pod that had answered first (`-`: none had).
    broken_by_pod: BTreeMap<String, u64>,
    /// Attempts to open one, and those that failed.
    connects: u64,
    connects_failed: u64,
    requests: u64,
    answers: u64,
    /// Requests that had no answer: the connection broke, or the end came.
    unanswered: u64,
    /// Answers to something else than what was asked, or from another pod than the first.
    wrong: u64,
    failures: Failures,
    /// The longest time from a request to its answer, or to the end if none came.
    longest_ms: f64,
    /// Connections by the pod of their first answer.
    pods: BTreeMap<String, u64>,
}

impl Totals {
    pub(super) fn finish(&mut self) {
        self.unanswered = self.requests - self.answers;
    }
}

/// Opens the connections and returns when all have tried.
pub(super) async fn start(run: &Run, tasks: &mut JoinSet<()>) {
    if run.args.target.is_empty() {
        return;
    }
    let (up, mut ups) = tokio::sync::mpsc::channel(run.args.long.max(1));
    for index in 0..run.args.long {
        tasks.spawn_local(hold(run.clone(), index, up.clone()));
    }
    drop(up);
    // Each lets go of its end after its first attempt.
    let all = async { while ups.recv().await.is_some() {} };
    drop(tokio::time::timeout(UP, all).await);
}

async fn hold(mut run: Run, index: usize, up: tokio::sync::mpsc::Sender<()>) {
    let target = run.target(index);
    let mut up = Some(up);
    // Not all in the same millisecond.
    let spread = run.args.request_ms * index as u64 / run.args.long.max(1) as u64;
    while !run.is_over() {
        run.totals.borrow_mut().long.connects += 1;
        let connected = TcpStream::connect(target).await;
        drop(up.take());
        match connected {
            Ok(stream) => {
                drop(stream.set_nodelay(true));
                let mut held = Held { run: run.clone(), index, target, pod: None, sent: 0 };
                held.run.totals.borrow_mut().long.open += 1;
                if !run.sleep(Duration::from_millis(spread)).await {
                    return;
                }
                match held.talk(stream).await {
                    Ok(()) => return,
                    Err(error) => held.broke(&error),
                }
            }
            Err(error) => {
                let mut totals = run.totals.borrow_mut();
                totals.long.connects_failed += 1;
                totals
                    .long
                    .failures
                    .add(&reason(&error), &format!("long connection {index} to {target}: connect"));
            }
        }
        run.sleep(PAUSE).await;
    }
}

struct Held {
    run: Run,
    index: usize,
    target: SocketAddr,
    pod: Option<String>,
    sent: u64,
}

impl Held {
    /// Asks until the end.
    async fn talk(&mut self, stream: TcpStream) -> io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let interval = Duration::from_millis(self.run.args.request_ms);
        let mut line = String::new();
        loop {
            self.sent += 1;
            let question = format!("L{}-{}", self.index, self.sent);
            let waiting = Waiting::start(self.run.clone());
            writer.write_all(format!("{question}\n").as_bytes()).await?;
            line.clear();
            if reader.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            waiting.answered();
            self.judge(&line, &question);
            if !self.run.sleep(interval).await {
                return Ok(());
            }
        }
    }

    fn judge(&mut self, answer: &str, question: &str) {
        let mut totals = self.run.totals.borrow_mut();
        let from = pod(answer);
        let first = self.pod.get_or_insert_with(|| {
            *totals.long.pods.entry(from.to_owned()).or_default() += 1;
            from.to_owned()
        });
        if got(answer) != Some(question) || first != from {
            totals.long.wrong += 1;
            let what = format!("long connection {} to {}", self.index, self.target);
            totals.long.failures.add("wrong answer", &what);
        }
    }

    fn broke(&self, error: &io::Error) {
        let mut totals = self.run.totals.borrow_mut();
        let pod = self.pod.as_deref().unwrap_or("-");
        totals.long.open -= 1;
        totals.long.broken += 1;
        *totals.long.broken_by_pod.entry(pod.to_owned()).or_default() += 1;
        let what =
            format!("long connection {} to {} ({pod}), request {}", self.index, self.target, self.sent);
        totals.long.failures.add(&reason(error), &what);
    }
}

/// A request that is on its way; its time counts even when it is dropped unanswered.
struct Waiting {
    run: Run,
    since: Instant,
}

impl Waiting {
    fn start(run: Run) -> Self {
        run.totals.borrow_mut().long.requests += 1;
        Self { run, since: Instant::now() }
    }

    fn answered(self) {
        self.run.totals.borrow_mut().long.answers += 1;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let waited = milliseconds(self.since.elapsed());
        let mut totals = self.run.totals.borrow_mut();
        totals.long.longest_ms = totals.long.longest_ms.max(waited);
    }
}
