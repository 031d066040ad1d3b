//! TaintNodesByCondition: a new node takes no pods before it was seen ready.

use serde_json::{Value, json};

use super::{AdmissionRequest, Operation};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) fn admit(request: &mut AdmissionRequest<'_>) {
    if !request.is("nodes") || request.operation != Operation::Create {
        return;
    }
    if let Some(node) = &mut request.object {
        taint(node);
    }
}

fn taint(node: &mut Value) {
    let taints = &mut node["spec"]["taints"];
    let mut list = taints.as_array().cloned().unwrap_or_default();
    if !list.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule") {
        list.push(json!({ "key": NOT_READY, "effect": "NoSchedule" }));
    }
    *taints = list.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_tainted_once_and_keeps_its_other_taints() {
        let mut node = json!({"spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}]}});
        taint(&mut node);
        taint(&mut node);
        assert_eq!(
            node["spec"]["taints"],
            json!([{"key": "gpu", "effect": "NoSchedule"}, {"key": NOT_READY, "effect": "NoSchedule"}])
        );
        let mut bare = json!({});
        taint(&mut bare);
        assert_eq!(bare["spec"]["taints"], json!([{"key": NOT_READY, "effect": "NoSchedule"}]));
    }
}
