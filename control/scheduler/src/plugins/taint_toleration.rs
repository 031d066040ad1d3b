//! Taints keep pods away that do not tolerate them: NoSchedule and NoExecute strictly, PreferNoSchedule by score.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::{Filter, Fit, Score, scale};
use crate::event::ClusterEvent;
use crate::snapshot::{NodeInfo, PodInfo};

/// The plugin.
pub struct TaintToleration;

/// Whether `toleration` bears `taint`. An empty key with `Exists` bears every taint, an empty effect every effect.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => {
            !key.is_empty()
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
        _ => false,
    }
}

/// Whether any of `tolerations` bears `taint`.
pub fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|it| tolerates(it, taint))
}

fn tolerations(pod: &PodInfo) -> &[Toleration] {
    pod.pod.spec.as_ref().and_then(|it| it.tolerations.as_deref()).unwrap_or_default()
}

fn taints(node: &NodeInfo) -> &[Taint] {
    node.node.as_ref().and_then(|it| it.spec.as_ref()).and_then(|it| it.taints.as_deref()).unwrap_or_default()
}

impl Filter for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn wakes(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdd, ClusterEvent::NodeTaint]
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Fit {
        let hard = taints(node).iter().filter(|it| matches!(it.effect.as_str(), "NoSchedule" | "NoExecute"));
        if hard.into_iter().all(|it| is_tolerated(it, tolerations(pod))) {
            Fit::Yes
        } else {
            Fit::never("node(s) had untolerated taint(s)")
        }
    }
}

impl Score for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn weight(&self) -> i64 {
        3
    }

    /// How many soft taints the pod does not bear: less is better.
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let soft = taints(node).iter().filter(|it| it.effect == "PreferNoSchedule");
        i64::try_from(soft.filter(|it| !is_tolerated(it, tolerations(pod))).count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale(scores, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toleration_bears_a_taint_by_key_value_and_effect() {
        // toleration as "key operator value effect", "-" for absent; the taint is a=1:NoExecute.
        for (text, want) in [
            ("a Equal 1 NoExecute", true),
            ("a - 1 -", true),
            ("a Equal 2 NoExecute", false),
            ("a Exists - -", true),
            ("a Exists - NoSchedule", false),
            ("- Exists - -", true),
            ("- Equal 1 -", false),
            ("b Exists - -", false),
        ] {
            let words: Vec<Option<String>> =
                text.split(' ').map(|it| (it != "-").then(|| it.to_owned())).collect();
            let [key, operator, value, effect] = words.try_into().unwrap_or_default();
            let toleration = Toleration { key, operator, value, effect, toleration_seconds: None };
            let taint = Taint {
                key: "a".into(),
                value: Some("1".into()),
                effect: "NoExecute".into(),
                time_added: None,
            };
            assert_eq!(tolerates(&toleration, &taint), want, "{text}");
        }
    }
}
