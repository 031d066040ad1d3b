//! Load on one target for a time, from some threads: closed loop (the next operation starts when the last has ended)
//! or open loop (operations start by the clock).
//!
//! In an open loop a latency counts from when the operation was due, not from when it could start: a stall of the
//! target is seen by all operations that it delayed (no coordinated omission).

use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use crate::latency::{Latencies, Summary};
use crate::namespace::Namespace;
use crate::processor::{self, Shares, Ticks};
use crate::traffic::{Kind, Target};

/// A thread whose operations all fail stops after so many.
const IN_A_ROW: u64 = 10;

/// A sleep ends up to 50 us late by default (prctl(2), PR_SET_TIMERSLACK).
const SLACK: Duration = Duration::from_micros(80);

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) target: Target,
    pub(crate) time: Duration,
    /// Unmeasured, before it.
    pub(crate) warm_up: Duration,
    /// Each has sockets of its own.
    pub(crate) threads: usize,
    /// Operations a second over all threads; none: as fast as they are answered.
    pub(crate) rate: Option<f64>,
    /// Sum over all threads: it ends earlier then.
    pub(crate) most_operations: u64,
    pub(crate) namespace: Option<PathBuf>,
}

/// What was seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) seconds: f64,
    pub(crate) operations: u64,
    pub(crate) failures: u64,
    /// Operations a second.
    pub(crate) rate: f64,
    /// What was asked for, if anything.
    pub(crate) asked_rate: Option<f64>,
    /// CPU time of this process for one operation, microseconds.
    pub(crate) cpu_us: f64,
    pub(crate) latency: Summary,
    pub(crate) machine: Shares,
}

/// Runs it.
pub(crate) fn run(plan: &Plan) -> Result<Seen> {
    ensure!(plan.threads > 0, "threads: at least one");
    let namespace = plan.namespace.as_deref().map(Namespace::open).transpose()?;
    let warm = Barrier::new(plan.threads + 1);
    let mut total = One::new();
    let (mut seconds, mut cpu, mut machine) = (0.0, Duration::ZERO, Shares::default());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|index| {
                scope.spawn({
                    let (warm, namespace) = (&warm, namespace.as_ref());
                    move || one(plan, index, namespace, warm)
                })
            })
            .collect();
        warm.wait();
        let (started, own, ticks) = (Instant::now(), processor::own(), Ticks::now()?);
        for thread in threads {
            total.add(&thread.join().map_err(|_| anyhow!("a load thread panicked"))??);
        }
        seconds = started.elapsed().as_secs_f64();
        cpu = processor::own().saturating_sub(own);
        machine = Ticks::now()?.since(&ticks);
        anyhow::Ok(())
    })?;
    Ok(Seen {
        seconds,
        operations: total.operations,
        failures: total.failures,
        rate: (total.operations as f64 / seconds).round(),
        asked_rate: plan.rate,
        cpu_us: (cpu.as_secs_f64() * 1e8 / total.operations.max(1) as f64).round() / 100.0,
        latency: total.latencies.summary(),
        machine,
    })
}

/// One thread's part.
struct One {
    operations: u64,
    failures: u64,
    latencies: Latencies,
}

impl One {
    fn new() -> Self {
        Self { operations: 0, failures: 0, latencies: Latencies::new() }
    }

    fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.failures += other.failures;
        self.latencies.add(&other.latencies);
    }
}

fn one(plan: &Plan, index: usize, namespace: Option<&Namespace>, warm: &Barrier) -> Result<One> {
    let entered = namespace.map_or(Ok(()), Namespace::enter);
    let mut traffic = plan.kind.open(plan.target);
    let first = entered.and_then(|()| {
        let end = Instant::now() + plan.warm_up;
        traffic.once()?;
        while Instant::now() < end {
            traffic.once()?;
        }
        Ok(())
    });
    // All threads wait for all, those that failed too: or the others would wait for ever.
    warm.wait();
    first.context("the warm-up")?;
    let started = Instant::now();
    let most = plan.most_operations / plan.threads as u64;
    let mut schedule = plan.rate.map(|rate| Schedule::new(started, rate, plan.threads, index));
    let mut seen = One::new();
    let mut failed_in_a_row = 0;
    while seen.operations + seen.failures < most {
        let due = match &mut schedule {
            Some(schedule) => schedule.next(),
            None => Instant::now(),
        };
        if due.duration_since(started) >= plan.time {
            break;
        }
        wait_until(due);
        match traffic.once() {
            Ok(()) => {
                seen.operations += 1;
                failed_in_a_row = 0;
                seen.latencies.record(due.elapsed());
            }
            Err(error) => {
                seen.failures += 1;
                failed_in_a_row += 1;
                ensure!(failed_in_a_row < IN_A_ROW, "{IN_A_ROW} operations failed in a row: {error:#}");
            }
        }
    }
    Ok(seen)
}

/// Sleeps nearly until `due`, and watches the clock for the rest: a sleeping thread is woken late by the timer's slack.
fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if left > 2 * SLACK {
        thread::sleep(left - SLACK);
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

/// When operations are due, whatever became of those before.
struct Schedule {
    next: Instant,
    interval: Duration,
}

impl Schedule {
    fn new(started: Instant, rate: f64, threads: usize, index: usize) -> Self {
        let interval = Duration::from_secs_f64(threads as f64 / rate);
        // Threads take turns.
        Self { next: started + interval.mul_f64(index as f64 / threads as f64), interval }
    }

    fn next(&mut self) -> Instant {
        let due = self.next;
        self.next += self.interval;
        due
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::traffic::tests::server;

    fn plan(kind: Kind) -> Plan {
        Plan {
            kind,
            target: server(),
            time: Duration::from_millis(200),
            warm_up: Duration::from_millis(10),
            threads: 2,
            rate: None,
            most_operations: 1_000_000,
            namespace: None,
        }
    }

    #[test]
    fn every_kind_runs_in_a_closed_loop() {
        for kind in Kind::all() {
            let seen = run(&Plan { most_operations: 40, ..plan(kind) }).unwrap();
            assert!(seen.operations > 0 && seen.operations <= 40, "{}: {}", kind.name(), seen.operations);
            assert_eq!((seen.failures, seen.latency.count), (0, seen.operations));
        }
    }

    #[test]
    fn an_open_loop_does_what_the_clock_says() {
        let seen = run(&Plan { rate: Some(100.0), ..plan(Kind::Rr) }).unwrap();
        assert_eq!(seen.operations, 20);
    }

    #[test]
    fn a_stall_is_seen_by_every_operation_that_it_delayed() {
        struct Stalls(bool);
        impl crate::traffic::Traffic for Stalls {
            fn once(&mut self) -> Result<()> {
                if std::mem::take(&mut self.0) {
                    thread::sleep(Duration::from_millis(100));
                }
                Ok(())
            }
        }
        let mut traffic: Box<dyn crate::traffic::Traffic> = Box::new(Stalls(true));
        let started = Instant::now();
        let mut schedule = Schedule::new(started, 1000.0, 1, 0);
        let mut late = 0;
        for _ in 0..50 {
            let due = schedule.next();
            thread::sleep(due.saturating_duration_since(Instant::now()));
            traffic.once().unwrap();
            late += u32::from(due.elapsed() > Duration::from_millis(40));
        }
        assert!(late >= 40, "{late} of 50 saw the stall");
    }

    #[test]
    fn a_target_that_does_not_answer_is_an_error() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let target = Target { address: closed.ip(), echo: closed.port(), http: closed.port(), reset: false };
        let error = run(&Plan { target, ..plan(Kind::Crr) }).unwrap_err();
        assert!(format!("{error:#}").contains(&format!("connect to {closed}")), "{error:#}");
    }
}
