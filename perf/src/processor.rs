//! What the load costs in CPU time: this process by the kernel's clock, the machine by /proc/stat.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// CPU time of this process so far: user, system, and the softirq work that ran on its account.
pub(crate) fn own() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Ticks of the whole machine since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticks {
    busy: u64,
    softirq: u64,
    stolen: u64,
    total: u64,
}

/// How a time was spent, as shares of all CPUs' time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shares {
    /// Not idle (and not waiting for a disk).
    pub(crate) busy: f64,
    /// In softirq, as far as the kernel counts it apart.
    pub(crate) softirq: f64,
    /// Taken away by the hypervisor.
    pub(crate) stolen: f64,
}

impl Ticks {
    /// Now.
    pub(crate) fn now() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        Self::parse(&text).context("the first line of /proc/stat")
    }

    /// user nice system idle iowait irq softirq steal (proc(5)).
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.lines().next()?.split_whitespace();
        (words.next()? == "cpu").then_some(())?;
        let fields: Vec<u64> = words.map_while(|word| word.parse().ok()).take(8).collect();
        let [user, nice, system, idle, iowait, irq, softirq, stolen] = fields[..] else { return None };
        let busy = user + nice + system + irq + softirq;
        Some(Self { busy, softirq, stolen, total: busy + idle + iowait + stolen })
    }

    /// The shares of the time since `before`.
    pub(crate) fn since(&self, before: &Self) -> Shares {
        let total = (self.total - before.total).max(1) as f64;
        let share = |now: u64, before: u64| (1e4 * (now - before) as f64 / total).round() / 1e4;
        Shares {
            busy: share(self.busy, before.busy),
            softirq: share(self.softirq, before.softirq),
            stolen: share(self.stolen, before.stolen),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn shares_are_of_all_cpus_time() {
        let before = Ticks::parse("cpu  10 0 10 80 0 0 0 0 0 0\ncpu0 ..").unwrap();
        let after = Ticks::parse("cpu  20 0 20 140 0 0 10 10 0 0\n").unwrap();
        assert_eq!(after.since(&before), Shares { busy: 0.3, softirq: 0.1, stolen: 0.1 });
        assert_eq!(Ticks::parse("intr 5"), None);
    }

    #[test]
    fn the_own_clock_goes_on() {
        let before = own();
        let mut sum = 0_u64;
        while own() == before {
            sum = sum.wrapping_mul(31).wrapping_add(1);
        }
        assert!(own() > before, "{sum}");
        assert!(Ticks::now().is_ok());
    }
}
