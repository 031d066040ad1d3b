//! DefaultTolerationSeconds: pods stay five minutes on a node that is gone, unless they say otherwise.

use serde_json::{Value, json};

use super::{AdmissionRequest, Operation};

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
/// How long such a taint is tolerated, in seconds.
const SECONDS: u32 = 300;

pub(super) fn admit(request: &mut AdmissionRequest<'_>) {
    if !request.is("pods") || !matches!(request.operation, Operation::Create | Operation::Update) {
        return;
    }
    if let Some(pod) = &mut request.object {
        tolerate(pod);
    }
}

fn tolerate(pod: &mut Value) {
    let tolerations = &mut pod["spec"]["tolerations"];
    let mut list = tolerations.as_array().cloned().unwrap_or_default();
    let given = list.len();
    for taint in TAINTS {
        if !list.iter().any(|toleration| speaks_of(toleration, taint)) {
            list.push(json!({ "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS }));
        }
    }
    if list.len() > given {
        *tolerations = list.into();
    }
}

/// Whether a toleration says something about eviction by `taint`; an empty key or effect means all.
fn speaks_of(toleration: &Value, taint: &str) -> bool {
    let is = |field: &str, wanted: &str| {
        matches!(toleration[field].as_str(), None | Some("")) || toleration[field] == wanted
    };
    is("key", taint) && is("effect", "NoExecute")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(given: Value, added: &[&str]) {
        let mut pod = json!({"spec": {"tolerations": given}});
        tolerate(&mut pod);
        let list = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
        let before = given.as_array().map_or(0, Vec::len);
        let keys: Vec<&str> = list[before..].iter().filter_map(|t| t["key"].as_str()).collect();
        assert_eq!(keys, added, "{given}");
    }

    #[test]
    fn both_tolerations_are_added_unless_the_pod_speaks_of_them() {
        check(Value::Null, &TAINTS);
        check(json!([{"key": "gpu", "operator": "Exists"}]), &TAINTS);
        check(json!([{"key": TAINTS[0], "effect": "NoExecute", "tolerationSeconds": 5}]), &TAINTS[1..]);
        check(json!([{"key": TAINTS[0], "effect": "NoSchedule"}]), &TAINTS);
        check(json!([{"operator": "Exists"}]), &[]);
        check(json!([{"operator": "Exists", "effect": "NoExecute"}]), &[]);
        check(json!([{"operator": "Exists", "effect": "NoSchedule"}]), &TAINTS);
    }
}
