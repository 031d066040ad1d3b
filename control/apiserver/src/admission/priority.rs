//! Priority: a pod's number from its class. Only the two built-in classes exist.

use api::status::ApiError;
use serde_json::Value;

use super::{AdmissionRequest, Operation};

/// Built-in classes and their numbers.
const CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

pub(super) fn admit(request: &mut AdmissionRequest<'_>) -> Result<(), ApiError> {
    if !request.is("pods") || request.operation != Operation::Create {
        return Ok(());
    }
    let Some(mut pod) = request.object.take() else { return Ok(()) };
    let outcome = prioritize(&mut pod);
    request.object = Some(pod);
    outcome.map_err(|why| request.forbidden(why))
}

fn prioritize(pod: &mut Value) -> Result<(), String> {
    let spec = &mut pod["spec"];
    let class = spec["priorityClassName"].as_str().unwrap_or_default();
    let priority = match CLASSES.iter().find(|(name, _)| *name == class) {
        Some((_, priority)) => *priority,
        None if class.is_empty() => 0,
        None => return Err(format!("no PriorityClass with name {class} was found")),
    };
    if let Some(given) = spec["priority"].as_i64().filter(|given| *given != priority) {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        ));
    }
    spec["priority"] = priority.into();
    if spec["preemptionPolicy"].is_null() {
        spec["preemptionPolicy"] = "PreemptLowerPriority".into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_class_decides_the_number() {
        for (spec, expected) in [
            (json!({}), Ok(0)),
            (json!({"priorityClassName": "system-node-critical"}), Ok(2_000_001_000)),
            (
                json!({"priorityClassName": "system-cluster-critical", "priority": 2_000_000_000_i64}),
                Ok(2_000_000_000),
            ),
            (json!({"priorityClassName": "gold"}), Err("no PriorityClass with name gold was found")),
            (
                json!({"priority": 7}),
                Err(
                    "the integer value of priority (7) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name",
                ),
            ),
        ] {
            let mut pod = json!({ "spec": spec });
            let outcome = prioritize(&mut pod);
            assert_eq!(
                outcome.map(|()| pod["spec"]["priority"].as_i64().unwrap_or(-1)),
                expected.map_err(str::to_owned)
            );
        }
    }
}
