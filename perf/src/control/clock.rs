//! Two clocks: ours, and that of the prober's machine. If both run on one kernel they are one clock; otherwise the
//! difference is estimated from questions and answers, and how wrong it can be is part of the result.

use serde::Serialize;

/// Nanoseconds of this machine's `CLOCK_MONOTONIC`.
pub(super) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // It counts from the start of the machine: never below zero.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Which boot of which kernel the clock belongs to; empty if the kernel does not say.
pub(super) fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// A question and its answer: ours when it was sent and when the answer came, theirs in between.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) sent_ns: u64,
    pub(super) theirs_ns: u64,
    pub(super) came_ns: u64,
}

/// How the prober's clock stands to ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Offset {
    /// Theirs less ours.
    ns: i64,
    /// It is wrong by no more than this, if clocks run alike from the sample to the measurement.
    pub(super) uncertainty_ns: u64,
    /// Both are one clock: nothing was estimated.
    pub(super) same: bool,
}

impl Offset {
    /// From samples, of which the quickest says most: the answer was given somewhere between question and answer.
    /// `same_boot`: both name the same boot, so that the offset is zero, unless a sample shows that it is not (a time
    /// namespace of the pod's own).
    pub(super) fn estimate(samples: &[Sample], same_boot: bool) -> Option<Self> {
        let possible = |sample: &Sample| (sample.sent_ns..=sample.came_ns).contains(&sample.theirs_ns);
        if same_boot && samples.iter().all(possible) {
            return Some(Self { ns: 0, uncertainty_ns: 0, same: true });
        }
        let quickest = samples.iter().min_by_key(|sample| sample.came_ns.saturating_sub(sample.sent_ns))?;
        let half = quickest.came_ns.saturating_sub(quickest.sent_ns) / 2;
        let middle = quickest.sent_ns + half;
        Some(Self {
            ns: i64::try_from(i128::from(quickest.theirs_ns) - i128::from(middle)).unwrap_or(i64::MAX),
            uncertainty_ns: half,
            same: false,
        })
    }

    /// What their clock says when ours says `ours_ns`.
    pub(super) fn theirs(self, ours_ns: u64) -> u64 {
        ours_ns.saturating_add_signed(self.ns)
    }

    /// Nanoseconds from `ours`, by our clock, to `theirs`, by theirs. Below zero if it was before.
    pub(super) fn between(self, ours_ns: u64, theirs_ns: u64) -> i64 {
        let difference = i128::from(theirs_ns) - i128::from(self.ns) - i128::from(ours_ns);
        i64::try_from(difference).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(sent: u64, theirs: u64, came: u64) -> Sample {
        Sample { sent_ns: sent, theirs_ns: theirs, came_ns: came }
    }

    #[test]
    fn the_quickest_answer_decides_and_says_how_wrong_it_can_be() {
        let samples = [sample(1_000, 5_900, 2_000), sample(3_000, 7_150, 3_200), sample(5_000, 9_990, 9_000)];
        let offset = Offset::estimate(&samples, false);
        assert_eq!(offset, Some(Offset { ns: 4_050, uncertainty_ns: 100, same: false }));
        assert_eq!(offset.map(|offset| offset.between(4_000, 8_550)), Some(500));
        assert_eq!(Offset::estimate(&[], false), None);
    }

    #[test]
    fn one_boot_is_one_clock_unless_a_sample_denies_it() {
        let (inside, outside) = (sample(1_000, 1_400, 2_000), sample(1_000, 900, 2_000));
        for (samples, same_boot, same) in
            [(vec![inside], true, true), (vec![inside, outside], true, false), (vec![inside], false, false)]
        {
            let offset = Offset::estimate(&samples, same_boot);
            assert_eq!(offset.map(|offset| offset.same), Some(same), "{samples:?} {same_boot}");
        }
    }

    #[test]
    fn the_clock_goes_on() {
        let before = now_ns();
        assert!(before > 0 && now_ns() >= before);
    }
}
