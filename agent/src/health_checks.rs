//! healthCheckNodePort: one HTTP server a Service, by which load balancers ask whether this node has endpoints of it.
//!
//! The answer is kube-proxy's (kubernetes `pkg/proxy/healthcheck`): 200 with a ready endpoint on this node and tables that follow the API,
//! otherwise 503, on every path. Servers open, change and close while the agent runs. A port that cannot be bound is tried again.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::ObjectReference;
use runtime::{EventKind, Recorder};
use service::{HealthCheck, ObjectKey};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::progress::Progress;

/// How long to wait before a port that is taken is tried for the second time: a Service that gave it up may just be closing it.
const SECOND_TRY: Duration = Duration::from_millis(200);
/// How long to wait before each further try.
const RETRY: Duration = Duration::from_secs(10);
/// Weight of the node among others, for balancers that look at it (KEP-5093).
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// The servers of this node.
pub struct HealthChecks {
    progress: Arc<Progress>,
    recorder: Option<Recorder>,
    servers: HashMap<ObjectKey, Server>,
}

struct Server {
    port: u16,
    local_endpoints: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ends the connections, too: they belong to the task.
        self.task.abort();
    }
}

impl HealthChecks {
    /// No servers yet. Ports that cannot be served become Events of their Services by `recorder`.
    pub fn new(progress: Arc<Progress>, recorder: Option<Recorder>) -> Self {
        Self { progress, recorder, servers: HashMap::new() }
    }

    /// Opens, changes or (with `None`) closes the server of a Service. Must be called within a tokio runtime.
    pub fn set(&mut self, service: &ObjectKey, check: Option<HealthCheck>) {
        let Some(check) = check else {
            self.servers.remove(service);
            return;
        };
        if let Some(server) = self.servers.get(service).filter(|server| server.port == check.port) {
            server.local_endpoints.store(check.local_endpoints, Ordering::Relaxed);
            return;
        }
        // The old port closes before a new one opens: two Services may swap theirs.
        self.servers.remove(service);
        let local_endpoints = Arc::new(AtomicU32::new(check.local_endpoints));
        let answers = Answers {
            service: service.clone(),
            local_endpoints: Arc::clone(&local_endpoints),
            progress: Arc::clone(&self.progress),
            recorder: self.recorder.clone(),
        };
        let task = tokio::spawn(run(check.port, Arc::new(answers)));
        self.servers.insert(service.clone(), Server { port: check.port, local_endpoints, task });
    }
}

/// What a server answers by.
struct Answers {
    service: ObjectKey,
    local_endpoints: Arc<AtomicU32>,
    progress: Arc<Progress>,
    recorder: Option<Recorder>,
}

impl Answers {
    /// Tells that nobody can be answered. Reason and text are kube-proxy's.
    fn refuse(&self, port: u16, error: &std::io::Error) {
        let service = &self.service;
        tracing::warn!(%error, port, %service, "healthCheckNodePort cannot be served");
        let Some(recorder) = &self.recorder else { return };
        let regarding = ObjectReference {
            kind: Some("Service".to_owned()),
            namespace: Some(service.namespace.clone()),
            name: Some(service.name.clone()),
            uid: Some(service.to_string()),
            ..ObjectReference::default()
        };
        let message = format!("node failed to start healthcheck \"{service}\" on port {port}: {error}");
        recorder.event(&regarding, EventKind::Warning, "FailedToStartServiceHealthcheck", &message);
    }

    fn answer(&self) -> Response<Full<Bytes>> {
        let count = self.local_endpoints.load(Ordering::Relaxed);
        let healthy = self.progress.is_live();
        let body = serde_json::json!({
            "service": {"namespace": self.service.namespace, "name": self.service.name},
            "localEndpoints": count,
            "serviceProxyHealthy": healthy,
        });
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        if count == 0 || !healthy {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(WEIGHT, HeaderValue::from(count));
        response
    }
}

async fn run(port: u16, answers: Arc<Answers>) {
    let mut connections = JoinSet::new();
    let mut pause = SECOND_TRY;
    loop {
        match bind(port).await {
            Ok(listener) => loop {
                // A failed accept is one client's loss, or the end of file descriptors, which others give back.
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                while connections.try_join_next().is_some() {}
                let answers = Arc::clone(&answers);
                connections.spawn(async move {
                    let respond = service_fn(move |_| {
                        let response = answers.answer();
                        async { Ok::<_, Infallible>(response) }
                    });
                    // A client that hangs up early is its own affair.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), respond)
                        .await;
                });
            },
            Err(error) => {
                if pause == RETRY {
                    answers.refuse(port, &error);
                }
                tokio::time::sleep(pause).await;
                pause = RETRY;
            }
        }
    }
}

/// Both families on one socket; IPv4 alone where there is no IPv6.
async fn bind(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(error),
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// A port that was free a moment ago.
    async fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
    }

    /// Asks until somebody answers; the answer in lower case, with its body.
    async fn ask(address: SocketAddr) -> String {
        for _ in 0..200 {
            let Ok(mut stream) = TcpStream::connect(address).await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            stream
                .write_all(b"GET /anything HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n")
                .await
                .unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            return text.to_lowercase();
        }
        panic!("nobody answers on {address}");
    }

    #[track_caller]
    fn check(answer: &str, status: u16, parts: &[&str]) {
        assert!(answer.starts_with(&format!("http/1.1 {status}")), "{answer}");
        for part in parts {
            assert!(answer.contains(part), "{part}: {answer}");
        }
    }

    #[tokio::test]
    async fn a_node_with_endpoints_says_200_and_one_without_503_and_the_port_closes() {
        let progress = Arc::new(Progress::default());
        progress.synced();
        let mut checks = HealthChecks::new(Arc::clone(&progress), None);
        let (port, service) = (free_port().await, ObjectKey::new("ns", "web"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        checks.set(&service, Some(HealthCheck { port, local_endpoints: 2 }));
        check(
            &ask(address).await,
            200,
            &[
                "x-load-balancing-endpoint-weight: 2",
                "x-content-type-options: nosniff",
                "content-type: application/json",
                "\"service\":{\"namespace\":\"ns\",\"name\":\"web\"}",
                "\"localendpoints\":2",
                "\"serviceproxyhealthy\":true",
            ],
        );
        checks.set(&service, Some(HealthCheck { port, local_endpoints: 0 }));
        check(&ask(address).await, 503, &["x-load-balancing-endpoint-weight: 0", "\"localendpoints\":0"]);
        checks.set(&service, Some(HealthCheck { port, local_endpoints: 1 }));
        progress.failed();
        check(&ask(address).await, 503, &["\"localendpoints\":1", "\"serviceproxyhealthy\":false"]);
        checks.set(&service, None);
        let closed = async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), closed).await.unwrap();
    }

    #[tokio::test]
    async fn a_leaving_node_is_no_matter_of_a_service_and_both_families_are_answered() {
        let progress = Arc::new(Progress::default());
        progress.synced();
        progress.eligible(false);
        let mut checks = HealthChecks::new(progress, None);
        let port = free_port().await;
        checks.set(&ObjectKey::new("ns", "web"), Some(HealthCheck { port, local_endpoints: 1 }));
        check(&ask(SocketAddr::from(([127, 0, 0, 1], port))).await, 200, &[]);
        if TcpListener::bind("[::1]:0").await.is_ok() {
            check(&ask(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await, 200, &[]);
        }
    }

    #[tokio::test]
    async fn two_services_may_swap_their_ports() {
        let progress = Arc::new(Progress::default());
        progress.synced();
        let mut checks = HealthChecks::new(progress, None);
        let ports = [free_port().await, free_port().await];
        let services = [ObjectKey::new("ns", "a"), ObjectKey::new("ns", "b")];
        for (service, port) in services.iter().zip(ports) {
            checks.set(service, Some(HealthCheck { port, local_endpoints: 1 }));
        }
        for port in ports {
            check(&ask(SocketAddr::from(([127, 0, 0, 1], port))).await, 200, &[]);
        }
        checks.set(&services[0], None);
        checks.set(&services[1], Some(HealthCheck { port: ports[0], local_endpoints: 7 }));
        let swapped = async {
            loop {
                let answer = ask(SocketAddr::from(([127, 0, 0, 1], ports[0]))).await;
                if answer.contains("\"name\":\"b\"") && answer.contains("\"localendpoints\":7") {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(15), swapped).await.unwrap();
    }
}
