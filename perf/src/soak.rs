//! `perf soak`: long connections, short connections and datagrams for a bounded time, and an honest count of what was
//! lost. It judges nothing: whoever runs it knows what may be lost.
//!
//! It gives up on nothing early. A path that pauses is waited for; what has no answer at the end (and after
//! `--grace-seconds`) is counted as a failure, and how long the silence was stands in the result. After SIGTERM or
//! SIGINT it ends in the same way, only sooner.
//!
//! `ready` is printed once all long connections have been tried, then one JSON object at the end.

mod datagrams;
mod long;
mod short;
mod tally;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout};

use crate::flags::Soak;
use crate::namespace::Namespace;

/// What is shared by everything that is on its way.
#[derive(Clone)]
struct Run {
    args: Rc<Soak>,
    totals: Rc<RefCell<Totals>>,
    /// Turns true when nothing new is to be sent.
    over: watch::Receiver<bool>,
}

/// The result.
#[derive(Default, Serialize)]
struct Totals {
    case: &'static str,
    seconds: f64,
    long: long::Totals,
    short: short::Totals,
    udp: datagrams::Totals,
}

/// Runs it and prints the result.
pub(crate) fn run(args: &Soak) -> Result<()> {
    ensure!(
        !args.target.is_empty() || !args.udp_target.is_empty(),
        "nothing to ask: --target or --udp-target is needed"
    );
    if let Some(path) = &args.netns {
        Namespace::open(path)?.enter()?;
    }
    allow_many_connections();
    // One thread: sockets are made in its namespace, and nothing moves between CPUs.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let totals = runtime.block_on(LocalSet::new().run_until(soak(args)))?;
    println!("{}", serde_json::to_string(&totals)?);
    Ok(())
}

async fn soak(args: &Soak) -> Result<Totals> {
    let started = Instant::now();
    let (end, over) = watch::channel(false);
    let run = Run { args: Rc::new(args.clone()), totals: Rc::default(), over };
    let mut tasks = tokio::task::JoinSet::new();
    long::start(&run, &mut tasks).await;
    println!("ready");
    if !args.target.is_empty() && args.short_per_minute > 0 {
        tasks.spawn_local(short::keep_asking(run.clone()));
    }
    datagrams::start(&run, &mut tasks).await?;

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(args.seconds)) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    end.send_replace(true);
    let rest = async { while tasks.join_next().await.is_some() {} };
    let ended = timeout(Duration::from_secs(args.grace_seconds), rest).await;
    // What is still on its way now is dropped, and with it counted as unanswered.
    tasks.shutdown().await;
    drop(ended);
    let mut totals = std::mem::take(&mut *run.totals.borrow_mut());
    totals.case = "soak";
    totals.seconds = started.elapsed().as_secs_f64();
    totals.finish();
    Ok(totals)
}

impl Totals {
    fn finish(&mut self) {
        self.long.finish();
        self.short.finish();
        self.udp.finish();
    }
}

impl Run {
    /// The target of the `index`th connection.
    fn target(&self, index: usize) -> SocketAddr {
        self.args.target[index % self.args.target.len()]
    }

    fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    /// Waits for `time` or the end; false at the end.
    async fn sleep(&mut self, time: Duration) -> bool {
        let end = self.over.wait_for(|over| *over);
        // An error: whoever would have told the end is gone, and that is an end too.
        tokio::time::timeout(time, end).await.is_err()
    }
}

/// Takes as many file descriptors as the hard limit gives. What cannot be raised stays as it is.
fn allow_many_connections() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap_or_default();
}

#[cfg(test)]
mod tests;
