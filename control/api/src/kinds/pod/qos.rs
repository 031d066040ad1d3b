//! A pod's quality of service class, which decides its cgroup and who is killed first when memory runs out.

use serde_json::Value;

use crate::kinds::field;
use crate::quantity::Quantity;

/// `Guaranteed`, `Burstable` or `BestEffort`, from cpu and memory of all containers that run for the pod's life or before it.
#[must_use]
pub fn class(pod: &Value) -> &'static str {
    const COUNTED: [&str; 2] = ["cpu", "memory"];
    let containers = ["/spec/initContainers", "/spec/containers"].map(|list| field::list(pod, list));
    let amount = |container: &Value, list: &str, resource: &str| -> Option<Quantity> {
        let value = container.pointer("/resources")?.get(list)?.get(resource)?;
        let quantity = Quantity::parse(value.as_str()?).ok()?;
        (!quantity.is_zero() && !quantity.is_negative()).then_some(quantity)
    };
    let mut any = false;
    let mut guaranteed = true;
    for container in containers.into_iter().flatten() {
        for resource in COUNTED {
            let request = amount(container, "requests", resource);
            let limit = amount(container, "limits", resource);
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_class_follows_requests_and_limits() {
        let check = |resources: &[Value], expected: &str| {
            let containers: Vec<Value> = resources.iter().map(|r| json!({ "resources": r })).collect();
            assert_eq!(class(&json!({"spec": {"containers": containers}})), expected, "{resources:?}");
        };
        let full =
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}});
        check(&[json!({})], "BestEffort");
        check(&[json!({"requests": {"cpu": "0"}})], "BestEffort");
        check(&[json!({"limits": {"example.com/gpu": "1"}})], "BestEffort");
        check(&[json!({"requests": {"cpu": "100m"}})], "Burstable");
        check(std::slice::from_ref(&full), "Guaranteed");
        check(&[full, json!({})], "Burstable");
    }
}
