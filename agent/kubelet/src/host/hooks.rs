//! Lifecycle hooks and probes of a container: by exec, HTTP, TCP or waiting.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod, Probe};

use super::{HOOK_LIMIT, Host};
use crate::pods::decide::seconds;
use crate::pods::effects::{ProbeOrder, StopOrder};
use crate::pods::state::{Sandbox, container};
use crate::probes::check;
use crate::probes::{Outcome, ProbeKind};

impl Host {
    pub(super) async fn run_post_start(self: &Arc<Self>, order: &StopOrder) -> Result<(), String> {
        let Some(container) = container(&order.pod, &order.container) else { return Ok(()) };
        let handler = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        match handler {
            Some(handler) => self
                .run_hook(&order.pod, container, &order.id, &order.sandbox, handler, HOOK_LIMIT)
                .await
                .map_err(|error| format!("PostStartHook failed: {error}")),
            None => Ok(()),
        }
    }

    /// Runs the preStop hook, if there is one, for at most `limit`.
    pub(super) async fn run_pre_stop(&self, order: &StopOrder, limit: Duration) -> Result<(), String> {
        let Some(container) = container(&order.pod, &order.container) else { return Ok(()) };
        let handler = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        match handler {
            Some(handler) => self
                .run_hook(&order.pod, container, &order.id, &order.sandbox, handler, limit)
                .await
                .map_err(|error| format!("PreStopHook failed: {error}")),
            None => Ok(()),
        }
    }

    async fn run_hook(
        &self,
        pod: &Pod,
        container: &Container,
        id: &str,
        sandbox: &Sandbox,
        handler: &LifecycleHandler,
        limit: Duration,
    ) -> Result<(), String> {
        if let Some(sleep) = &handler.sleep {
            tokio::time::sleep(seconds(sleep.seconds).min(limit)).await;
            return Ok(());
        }
        let outcome = if let Some(exec) = &handler.exec {
            self.exec_check(id, exec.command.as_deref().unwrap_or_default(), limit).await
        } else {
            let Some(address) = self.address(pod, sandbox) else {
                return Err("the pod has no address".into());
            };
            match (&handler.http_get, &handler.tcp_socket) {
                (Some(http), _) => check::http(http, container, address, limit).await,
                (None, Some(tcp)) => check::tcp(tcp, container, address, limit).await,
                (None, None) => return Err("no handler".into()),
            }
        };
        match outcome {
            Outcome::Success => Ok(()),
            Outcome::Failure(error) | Outcome::Unknown(error) => Err(error),
        }
    }

    pub(super) async fn make_probe(&self, order: &ProbeOrder) -> Outcome {
        let Some(container) = container(&order.pod, &order.container) else {
            return Outcome::Unknown("container is not in the spec".into());
        };
        let Some(probe) = probe_of(container, order.kind) else {
            return Outcome::Unknown("probe is not in the spec".into());
        };
        if let Some(exec) = &probe.exec {
            let words = exec.command.as_deref().unwrap_or_default();
            return self.exec_check(&order.id, words, order.timeout).await;
        }
        let Some(address) = self.address(&order.pod, &order.sandbox) else {
            return Outcome::Unknown("the pod has no address".into());
        };
        match (&probe.http_get, &probe.tcp_socket) {
            (Some(http), _) => check::http(http, container, address, order.timeout).await,
            (None, Some(tcp)) => check::tcp(tcp, container, address, order.timeout).await,
            (None, None) => Outcome::Unknown("grpc probes are not supported by this node".into()),
        }
    }

    async fn exec_check(&self, id: &str, words: &[String], limit: Duration) -> Outcome {
        match self.containerd.exec_collect(id, words, limit).await {
            Ok(output) if output.code == 0 => Outcome::Success,
            Ok(output) => Outcome::Failure(output.output),
            Err(error @ crate::containerd::RuntimeError::Timeout { .. }) => {
                Outcome::Failure(error.to_string())
            }
            Err(error) => Outcome::Unknown(error.to_string()),
        }
    }
}

fn probe_of(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
    }
}
