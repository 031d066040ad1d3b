//! Health and metrics of the data plane, under kube-proxy's names: /healthz and /livez on 10256, /metrics, /healthz and /proxyMode on 10249.

use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use datapath::{Dataplane, FlowCount};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Upper bounds of the histograms, seconds.
const BUCKETS: [f64; 16] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0];

/// What the data plane has done, for those who ask.
#[derive(Default)]
pub struct Progress {
    synced: AtomicBool,
    failing: AtomicBool,
    leaving: AtomicBool,
    service_changes: AtomicU64,
    endpoint_changes: AtomicU64,
    flows: AtomicU64,
    flows_deleted: AtomicU64,
    last: Mutex<Option<jiff::Timestamp>>,
    syncs: Histogram,
    programming: Histogram,
}

/// How often something took how long.
#[derive(Default)]
struct Histogram(Mutex<Counts>);

#[derive(Default, Clone, Copy)]
struct Counts {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum_s: f64,
}

impl Histogram {
    fn observe(&self, seconds: f64) {
        let mut counts = lock(&self.0);
        for (count, bound) in counts.buckets.iter_mut().zip(BUCKETS) {
            *count += u64::from(seconds <= bound);
        }
        counts.count += 1;
        counts.sum_s += seconds;
    }

    fn write(&self, text: &mut String, name: &str, help: &str) {
        let counts = *lock(&self.0);
        head(text, name, "histogram", help);
        for (count, bound) in counts.buckets.iter().zip(BUCKETS) {
            line(text, &format!("{name}_bucket{{le=\"{bound}\"}}"), count);
        }
        line(text, &format!("{name}_bucket{{le=\"+Inf\"}}"), counts.count);
        line(text, &format!("{name}_sum"), counts.sum_s);
        line(text, &format!("{name}_count"), counts.count);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress {
    /// The tables agree with the first complete lists.
    pub fn synced(&self) {
        self.synced.store(true, Ordering::Relaxed);
    }

    /// Whether the node takes part; an autoscaler about to remove it says no.
    pub fn eligible(&self, eligible: bool) {
        self.leaving.store(!eligible, Ordering::Relaxed);
    }

    /// A Service event came.
    pub fn service_change(&self) {
        self.service_changes.fetch_add(1, Ordering::Relaxed);
    }

    /// An EndpointSlice event came.
    pub fn endpoint_change(&self) {
        self.endpoint_changes.fetch_add(1, Ordering::Relaxed);
    }

    /// A difference was written, this long after its event arrived.
    pub fn applied(&self, took: Duration) {
        self.failing.store(false, Ordering::Relaxed);
        self.syncs.observe(took.as_secs_f64());
        *lock(&self.last) = Some(jiff::Timestamp::now());
    }

    /// A change of endpoints that happened at `trigger`, by the clock of whoever saw it first, is in the tables.
    pub fn programmed(&self, trigger: jiff::Timestamp) {
        let took = jiff::Timestamp::now().duration_since(trigger);
        self.programming.observe(took.as_secs_f64().max(0.0));
    }

    /// Whether the tables agree with the API.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }

    /// A pass over the flow tables is done.
    pub fn flows(&self, count: FlowCount) {
        self.flows.store((count.entries - count.deleted) as u64, Ordering::Relaxed);
        self.flows_deleted.fetch_add(count.deleted as u64, Ordering::Relaxed);
    }

    /// A difference could not be written.
    pub fn failed(&self) {
        self.failing.store(true, Ordering::Relaxed);
    }

    fn live(&self) -> bool {
        self.synced.load(Ordering::Relaxed) && !self.failing.load(Ordering::Relaxed)
    }

    fn health(&self, with_node: bool) -> (StatusCode, String) {
        let now = jiff::Timestamp::now();
        let eligible = !self.leaving.load(Ordering::Relaxed);
        let healthy = self.live() && (eligible || !with_node);
        let updated = lock(&self.last).unwrap_or(now);
        let body = serde_json::json!({"lastUpdated": updated.to_string(), "currentTime": now.to_string(), "nodeEligible": eligible});
        (if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body.to_string())
    }

    fn metrics(&self, dataplane: &Dataplane) -> String {
        let mut text = String::new();
        let syncs = "kubeproxy_sync_proxy_rules_duration_seconds";
        self.syncs.write(&mut text, syncs, "From an event's arrival to its being in the tables.");
        let programming = "kubeproxy_network_programming_duration_seconds";
        self.programming.write(
            &mut text,
            programming,
            "From a change of a pod or service to its being in the tables.",
        );
        let last = lock(&self.last).map_or(0.0, |last| last.as_millisecond() as f64 / 1000.0);
        for (name, kind, help, value) in [
            (
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                "gauge",
                "When the tables last changed.",
                last,
            ),
            (
                "kubeproxy_sync_proxy_rules_service_changes_total",
                "counter",
                "Service events.",
                load(&self.service_changes),
            ),
            (
                "kubeproxy_sync_proxy_rules_endpoint_changes_total",
                "counter",
                "EndpointSlice events.",
                load(&self.endpoint_changes),
            ),
            (
                "beeline_flow_entries",
                "gauge",
                "Entries of established flows, two for a connection.",
                load(&self.flows),
            ),
            (
                "beeline_flow_entries_deleted_total",
                "counter",
                "Entries deleted after being idle.",
                load(&self.flows_deleted),
            ),
        ] {
            head(&mut text, name, kind, help);
            line(&mut text, name, value);
        }
        write_tables(&mut text, dataplane);
        text
    }
}

fn write_tables(text: &mut String, dataplane: &Dataplane) {
    let (frontends, pods, addresses, ranges) = dataplane.counts();
    head(text, "beeline_table_rows", "gauge", "Rows in the data plane's tables.");
    for (table, rows) in
        [("frontends", frontends), ("pods", pods), ("node_addresses", addresses), ("pod_ranges", ranges)]
    {
        line(text, &format!("beeline_table_rows{{table=\"{table}\"}}"), rows);
    }
    head(
        text,
        "beeline_drops_total",
        "counter",
        "Packets and socket calls ended by the data plane, by reason.",
    );
    for (reason, packets) in dataplane.drops() {
        line(text, &format!("beeline_drops_total{{reason=\"{}\"}}", reason.as_str()), packets);
    }
}

fn load(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{name} {value}");
}

/// Which of the two ports a request came to.
#[derive(Clone, Copy)]
pub enum Port {
    /// 10256.
    Health,
    /// 10249.
    Metrics,
}

/// Serves one of the ports until the process ends.
pub async fn serve(
    address: SocketAddr,
    port: Port,
    progress: Arc<Progress>,
    dataplane: Arc<Dataplane>,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (progress, dataplane) = (Arc::clone(&progress), Arc::clone(&dataplane));
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let response = respond(port, &request, &progress, &dataplane);
                async { Ok::<_, Infallible>(response) }
            });
            // A client that hangs up early is its own affair.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

fn respond(
    port: Port,
    request: &Request<Incoming>,
    progress: &Progress,
    dataplane: &Dataplane,
) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (port, request.uri().path()) {
        (Port::Health, "/healthz") => with_kind(progress.health(true), "application/json"),
        (Port::Health, "/livez") => with_kind(progress.health(false), "application/json"),
        (Port::Metrics, "/metrics") => {
            (StatusCode::OK, "text/plain; version=0.0.4", progress.metrics(dataplane))
        }
        (Port::Metrics, "/healthz") => (StatusCode::OK, "text/plain", "ok".to_owned()),
        (Port::Metrics, "/proxyMode") => (StatusCode::OK, "text/plain", "ebpf".to_owned()),
        _ => (StatusCode::NOT_FOUND, "text/plain", "404 page not found\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn with_kind((status, body): (StatusCode, String), kind: &'static str) -> (StatusCode, &'static str, String) {
    (status, kind, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(progress: &Progress, healthz: u16, livez: u16) {
        assert_eq!((progress.health(true).0.as_u16(), progress.health(false).0.as_u16()), (healthz, livez));
    }

    #[test]
    fn histograms_count_into_every_bucket_that_is_large_enough() {
        let progress = Progress::default();
        progress.applied(Duration::from_micros(150));
        progress.applied(Duration::from_millis(3));
        let mut text = String::new();
        progress.syncs.write(&mut text, "x", "y");
        for expected in [
            "x_bucket{le=\"0.0001\"} 0\n",
            "x_bucket{le=\"0.0002\"} 1\n",
            "x_bucket{le=\"0.005\"} 2\n",
            "x_count 2\n",
        ] {
            assert!(text.contains(expected), "{expected}{text}");
        }
    }

    #[test]
    fn health_needs_complete_tables_and_a_node_that_stays() {
        let progress = Progress::default();
        check(&progress, 503, 503);
        progress.synced();
        check(&progress, 200, 200);
        progress.eligible(false);
        check(&progress, 503, 200);
        progress.eligible(true);
        progress.failed();
        check(&progress, 503, 503);
        progress.applied(Duration::from_millis(1));
        check(&progress, 200, 200);
    }
}
