//! Paths of the kubelet's HTTPS port and the permission that each needs. Pure.

/// A container of a pod, by names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Pod namespace.
    pub namespace: String,
    /// Pod name.
    pub pod: String,
    /// metadata.uid, if the path has one.
    pub uid: Option<String>,
    /// Container name.
    pub container: String,
}

/// A pod, by names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodTarget {
    /// Pod namespace.
    pub namespace: String,
    /// Pod name.
    pub pod: String,
    /// metadata.uid, if the path has one.
    pub uid: Option<String>,
}

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// /healthz and below.
    Healthz,
    /// /pods, /runningpods/.
    Pods,
    /// /stats/summary.
    Summary,
    /// /metrics and below.
    Metrics,
    /// /containerLogs/{namespace}/{pod}/{container}.
    ContainerLogs(Target),
    /// /exec/{namespace}/{pod}[/{uid}]/{container}.
    Exec(Target),
    /// /attach/{namespace}/{pod}[/{uid}]/{container}.
    Attach(Target),
    /// /portForward/{namespace}/{pod}[/{uid}].
    PortForward(PodTarget),
}

impl Route {
    /// Reads a path; `None`: there is no such thing.
    pub fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        Some(match parts.as_slice() {
            ["healthz", ..] => Self::Healthz,
            ["pods" | "runningpods"] => Self::Pods,
            ["stats", "summary"] => Self::Summary,
            ["metrics", ..] => Self::Metrics,
            ["containerLogs", rest @ ..] => Self::ContainerLogs(target(rest)?),
            ["exec", rest @ ..] => Self::Exec(target(rest)?),
            ["attach", rest @ ..] => Self::Attach(target(rest)?),
            ["portForward", namespace, pod] => Self::PortForward(pod_target(namespace, pod, None)),
            ["portForward", namespace, pod, uid] => Self::PortForward(pod_target(namespace, pod, Some(uid))),
            _ => return None,
        })
    }

    /// The subresource of nodes that a caller must be allowed.
    pub fn subresource(&self) -> &'static str {
        match self {
            Self::Summary => "stats",
            Self::Metrics => "metrics",
            Self::Healthz
            | Self::Pods
            | Self::ContainerLogs(_)
            | Self::Exec(_)
            | Self::Attach(_)
            | Self::PortForward(_) => "proxy",
        }
    }
}

fn pod_target(namespace: &str, pod: &str, uid: Option<&str>) -> PodTarget {
    PodTarget { namespace: namespace.into(), pod: pod.into(), uid: uid.map(str::to_owned) }
}

fn target(parts: &[&str]) -> Option<Target> {
    let (namespace, pod, uid, container) = match parts {
        [namespace, pod, container] => (namespace, pod, None, container),
        [namespace, pod, uid, container] => (namespace, pod, Some(*uid), container),
        _ => return None,
    };
    Some(Target {
        namespace: (*namespace).into(),
        pod: (*pod).into(),
        uid: uid.map(str::to_owned),
        container: (*container).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read() {
        let target = |uid: Option<&str>| Target {
            namespace: "ns".into(),
            pod: "web".into(),
            uid: uid.map(str::to_owned),
            container: "c".into(),
        };
        let table = [
            ("/healthz/ping", Some(Route::Healthz)),
            ("/runningpods/", Some(Route::Pods)),
            ("/exec/ns/web/c", Some(Route::Exec(target(None)))),
            ("/exec/ns/web/u-1/c", Some(Route::Exec(target(Some("u-1"))))),
            ("/containerLogs/ns/web/c", Some(Route::ContainerLogs(target(None)))),
            ("/containerLogs/ns/web", None),
            ("/portForward/ns/web", Some(Route::PortForward(pod_target("ns", "web", None)))),
            ("/portForward/ns/web/u-1", Some(Route::PortForward(pod_target("ns", "web", Some("u-1"))))),
            ("/portForward/ns", None),
            ("/run/ns/web/c", None),
            ("/", None),
        ];
        for (path, expected) in table {
            assert_eq!(Route::parse(path), expected, "{path}");
        }
        assert_eq!(Route::Summary.subresource(), "stats");
    }
}
