//! Rules for probes and lifecycle hooks of containers (kubernetes `validateProbe`, `validateLifecycle`).

use crate::kinds::at::At;
use crate::kinds::names;
use crate::status::FieldError;

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// Checks the probes and hooks of one container of `list`. `grace` is the pod's termination grace period in seconds.
pub fn validate(container: &At<'_>, list: &str, grace: i64, errors: &mut Vec<FieldError>) {
    let sidecar = list == "initContainers" && container.text("restartPolicy") == "Always";
    let refused = match list {
        "initContainers" if !sidecar => {
            Some("may not be set for init containers without restartPolicy=Always")
        }
        "ephemeralContainers" => Some("cannot be set for an Ephemeral Container"),
        _ => None,
    };
    for key in ["lifecycle"].into_iter().chain(PROBES) {
        let Some(part) = container.present(key) else { continue };
        match (refused, key) {
            (Some(message), _) => errors.push(container.forbidden(key, message)),
            (None, "lifecycle") => {
                for hook in ["postStart", "preStop"].into_iter().filter_map(|hook| part.present(hook)) {
                    handler(&hook, Some(grace), errors);
                }
            }
            (None, _) => probe(&part, key, errors),
        }
    }
}

fn probe(probe: &At<'_>, key: &str, errors: &mut Vec<FieldError>) {
    handler(probe, None, errors);
    for number in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        probe.check_not_negative(number, errors);
    }
    let grace = probe.integer("terminationGracePeriodSeconds");
    match key {
        "readinessProbe" if grace.is_some() => {
            errors
                .push(probe.invalid("terminationGracePeriodSeconds", "must not be set for readinessProbes"));
        }
        _ if grace.is_some_and(|seconds| seconds <= 0) => {
            errors.push(probe.invalid("terminationGracePeriodSeconds", "must be greater than 0"));
        }
        _ => {}
    }
    if key != "readinessProbe" && probe.integer("successThreshold").is_some_and(|threshold| threshold != 1) {
        errors.push(probe.invalid("successThreshold", "must be 1"));
    }
}

/// Checks what a probe or hook does; `sleep` is for hooks, which know the pod's grace period.
fn handler(at: &At<'_>, grace: Option<i64>, errors: &mut Vec<FieldError>) {
    let mut given = 0;
    for key in HANDLERS {
        let Some(action) = at.present(key).filter(|_| key != "sleep" || grace.is_some()) else { continue };
        given += 1;
        if given > 1 {
            errors.push(at.forbidden(key, "may not specify more than 1 handler type"));
            continue;
        }
        match key {
            "exec" if action.len("command") == 0 => errors.push(action.required("command", "")),
            "httpGet" => http_get(&action, errors),
            "tcpSocket" | "grpc" => action.check_port("port", errors),
            "sleep" => {
                let limit = grace.unwrap_or(0);
                if action.integer("seconds").is_some_and(|seconds| !(0..=limit).contains(&seconds)) {
                    let message =
                        format!("must be non-negative and less than terminationGracePeriodSeconds ({limit})");
                    errors.push(FieldError::invalid(
                        action.path.clone(),
                        action.child("seconds").value.clone(),
                        message,
                    ));
                }
            }
            _ => {}
        }
    }
    if given == 0 {
        errors.push(FieldError::required(at.path.clone(), "must specify a handler type"));
    }
}

fn http_get(action: &At<'_>, errors: &mut Vec<FieldError>) {
    action.demand("path", errors);
    action.check_port("port", errors);
    action.check_choice("scheme", &["HTTP", "HTTPS"], errors);
    for header in action.items("httpHeaders") {
        let name = header.text("name");
        let path = action.path_of("httpHeaders");
        errors.extend(
            names::http_header(name)
                .into_iter()
                .map(|message| FieldError::invalid(path.clone(), name, message)),
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(list: &str, container: Value, expected: &[&str]) {
        let mut errors = Vec::new();
        validate(&At::new(&container, "c"), list, 30, &mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_probe_does_one_thing() {
        check(
            "containers",
            json!({"livenessProbe": {"httpGet": {"path": "/", "port": "web", "scheme": "HTTP"}}}),
            &[],
        );
        check(
            "containers",
            json!({"livenessProbe": {}}),
            &["c.livenessProbe: Required value: must specify a handler type"],
        );
        check(
            "containers",
            json!({"readinessProbe": {"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}, "periodSeconds": -1, "terminationGracePeriodSeconds": 1}}),
            &[
                "c.readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
                "c.readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                "c.readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes",
            ],
        );
        check(
            "containers",
            json!({"livenessProbe": {"tcpSocket": {"port": 0}, "successThreshold": 2}}),
            &[
                "c.livenessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "c.livenessProbe.successThreshold: Invalid value: 2: must be 1",
            ],
        );
    }

    #[test]
    fn init_containers_run_once_and_are_not_probed() {
        let probed =
            |policy: &str| json!({"restartPolicy": policy, "startupProbe": {"exec": {"command": ["x"]}}});
        check("initContainers", probed("Always"), &[]);
        check(
            "initContainers",
            probed(""),
            &["c.startupProbe: Forbidden: may not be set for init containers without restartPolicy=Always"],
        );
    }

    #[test]
    fn hooks_end_within_the_grace_period() {
        check(
            "containers",
            json!({"lifecycle": {"preStop": {"sleep": {"seconds": 60}}}}),
            &[
                "c.lifecycle.preStop.sleep: Invalid value: 60: must be non-negative and less than terminationGracePeriodSeconds (30)",
            ],
        );
    }
}
