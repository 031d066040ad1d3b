//! `perf compare`: two files of results, result by result: better, worse, or no difference seen. Intervals decide: where
//! they touch, no difference was seen, which does not say that there is none.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::report::Report;
use crate::results::{self, Outcome};

/// What two results of one name say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Better,
    Worse,
    NoDifferenceSeen,
    /// One of them has no value, or another unit.
    NotComparable,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NoDifferenceSeen => "no difference seen",
            Self::NotComparable => "not comparable",
        }
    }
}

/// Judges `new` against `old`.
pub(crate) fn judge(old: &Outcome, new: &Outcome) -> Verdict {
    if old.unit != new.unit || old.skipped.is_some() || new.skipped.is_some() {
        return Verdict::NotComparable;
    }
    let ([old_low, old_high], [new_low, new_high]) = (old.estimate.interval, new.estimate.interval);
    let (more, less) = (new_low > old_high, new_high < old_low);
    match (more, less, new.unit.more_is_better()) {
        (true, _, true) | (_, true, false) => Verdict::Better,
        (true, _, false) | (_, true, true) => Verdict::Worse,
        _ => Verdict::NoDifferenceSeen,
    }
}

/// `perf compare`.
pub(crate) fn run(old: &Path, new: &Path) -> Result<()> {
    let read = |path: &Path| -> Result<BTreeMap<String, Outcome>> {
        let report = Report::new(results::read(path)?);
        let measured = report.outcomes.into_iter().filter(|outcome| outcome.published.is_none());
        Ok(measured.map(|outcome| (outcome.name(), outcome)).collect())
    };
    let (old_results, new_results) = (read(old)?, read(new)?);
    let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
    for (name, now) in &new_results {
        let Some(before) = old_results.get(name) else {
            println!("{name}: only in {}", new.display());
            continue;
        };
        let verdict = judge(before, now);
        *counts.entry(verdict).or_default() += 1;
        println!("{}", line(name, before, now, verdict));
    }
    for name in old_results.keys().filter(|name| !new_results.contains_key(*name)) {
        println!("{name}: only in {}", old.display());
    }
    ensure!(!counts.is_empty(), "no result is in both files");
    let said: Vec<_> =
        counts.iter().map(|(verdict, count)| format!("{count} {}", verdict.as_str())).collect();
    println!("{}", said.join(", "));
    Ok(())
}

fn line(name: &str, before: &Outcome, now: &Outcome, verdict: Verdict) -> String {
    let text = |outcome: &Outcome| {
        let [low, high] = outcome.estimate.interval;
        match &outcome.skipped {
            Some(why) => format!("none ({why})"),
            None => format!("{:.3}{} ({low:.3} to {high:.3})", outcome.estimate.value, outcome.unit.as_str()),
        }
    };
    format!("{name}: {} -> {}: {}", text(before), text(now), verdict.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Unit;
    use crate::results::tests::outcome;

    #[test]
    fn intervals_decide_and_units_say_which_way_is_better() {
        let of = |unit, value, half| outcome(["g", "t", "l"], 10, unit, value, half);
        for (unit, old, new, half, verdict) in [
            (Unit::Ratio, 0.90, 0.95, 0.01, Verdict::Better),
            (Unit::Ratio, 0.95, 0.90, 0.01, Verdict::Worse),
            (Unit::Ratio, 0.95, 0.90, 0.05, Verdict::NoDifferenceSeen),
            (Unit::Nanoseconds, 100.0, 90.0, 1.0, Verdict::Better),
            (Unit::Nanoseconds, 90.0, 100.0, 1.0, Verdict::Worse),
            (Unit::Rate, 90.0, 90.0, 1.0, Verdict::NoDifferenceSeen),
        ] {
            assert_eq!(judge(&of(unit, old, half), &of(unit, new, half)), verdict, "{unit:?} {old} {new}");
        }
        let mut skipped = of(Unit::Ratio, 0.0, 0.0);
        skipped.skipped = Some("not installed".to_owned());
        assert_eq!(judge(&of(Unit::Ratio, 0.9, 0.01), &skipped), Verdict::NotComparable);
        assert_eq!(judge(&of(Unit::Ratio, 0.9, 0.01), &of(Unit::Rate, 0.9, 0.01)), Verdict::NotComparable);
    }
}
