//! `/metrics` in the Prometheus text format, under upstream's names.
//!
//! Counters sit behind one short lock; what can be computed when asked (objects, memory) is not kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::core::Core;
use crate::request_info::RequestInfo;

/// Upper bounds of request latencies, in seconds (upstream's).
const LATENCY: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

#[derive(Clone)]
struct Histogram {
    buckets: [u64; LATENCY.len()],
    count: u64,
    sum: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; LATENCY.len()], count: 0, sum: 0.0 }
    }
}

impl Histogram {
    fn observe(&mut self, seconds: f64) {
        self.count += 1;
        self.sum += seconds;
        if let Some(at) = LATENCY.iter().position(|bound| seconds <= *bound) {
            self.buckets[at] += 1;
        }
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let mut total = 0;
        for (bound, count) in LATENCY.iter().zip(self.buckets) {
            total += count;
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
        }
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", self.count);
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", self.sum);
        let _ = writeln!(out, "{name}_count{{{labels}}} {}", self.count);
    }
}

#[derive(Default)]
struct Tables {
    /// By labels, ready to be written.
    requests: BTreeMap<String, u64>,
    latencies: BTreeMap<String, Histogram>,
    etcd: BTreeMap<&'static str, (Histogram, u64)>,
}

/// What is counted.
#[derive(Default)]
pub struct Metrics {
    tables: Mutex<Tables>,
    reading: Arc<AtomicI64>,
    mutating: Arc<AtomicI64>,
    long_running: Arc<AtomicI64>,
}

/// Counts something as long as it lives.
pub(crate) struct InFlight(Arc<AtomicI64>);

impl InFlight {
    fn start(gauge: &Arc<AtomicI64>) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a request as in flight.
    pub(crate) fn in_flight(&self, info: &RequestInfo) -> InFlight {
        let gauge = match info.verb.as_str() {
            _ if info.is_long_running() => &self.long_running,
            "get" | "list" | "head" => &self.reading,
            _ => &self.mutating,
        };
        InFlight::start(gauge)
    }

    /// Records a request that was answered.
    pub(crate) fn request(&self, info: &RequestInfo, code: u16, took: Duration) {
        let labels = labels(info);
        let mut tables = self.lock();
        *tables.requests.entry(format!("{labels},code=\"{code}\"")).or_default() += 1;
        if !info.is_long_running() {
            tables.latencies.entry(labels).or_default().observe(took.as_secs_f64());
        }
    }

    /// Records an etcd request.
    pub fn etcd(&self, operation: &'static str, took: Duration, succeeded: bool) {
        let mut tables = self.lock();
        let (latency, errors) = tables.etcd.entry(operation).or_default();
        latency.observe(took.as_secs_f64());
        *errors += u64::from(!succeeded);
    }

    /// The whole page.
    pub(crate) fn page(&self, core: &Core) -> String {
        let mut out = String::new();
        let tables = self.lock();
        head(
            &mut out,
            "apiserver_request_total",
            "counter",
            "Requests by verb, resource, scope and HTTP response code.",
        );
        for (labels, count) in &tables.requests {
            let _ = writeln!(out, "apiserver_request_total{{{labels}}} {count}");
        }
        head(&mut out, "apiserver_request_duration_seconds", "histogram", "Response latency in seconds.");
        for (labels, histogram) in &tables.latencies {
            histogram.write(&mut out, "apiserver_request_duration_seconds", labels);
        }
        head(
            &mut out,
            "etcd_request_duration_seconds",
            "histogram",
            "Etcd request latency in seconds by operation.",
        );
        for (operation, (histogram, _)) in &tables.etcd {
            histogram.write(&mut out, "etcd_request_duration_seconds", &format!("operation=\"{operation}\""));
        }
        head(&mut out, "etcd_request_errors_total", "counter", "Etcd failed request counts by operation.");
        for (operation, (_, errors)) in &tables.etcd {
            let _ = writeln!(out, "etcd_request_errors_total{{operation=\"{operation}\"}} {errors}");
        }
        drop(tables);
        self.gauges(core, &mut out);
        out
    }

    fn gauges(&self, core: &Core, out: &mut String) {
        let read = |gauge: &AtomicI64| gauge.load(Ordering::Relaxed);
        head(out, "apiserver_current_inflight_requests", "gauge", "Requests being served, by kind.");
        let _ = writeln!(
            out,
            "apiserver_current_inflight_requests{{request_kind=\"mutating\"}} {}",
            read(&self.mutating)
        );
        let _ = writeln!(
            out,
            "apiserver_current_inflight_requests{{request_kind=\"readOnly\"}} {}",
            read(&self.reading)
        );
        head(out, "apiserver_longrunning_requests", "gauge", "Long-running requests being served.");
        let _ = writeln!(out, "apiserver_longrunning_requests {}", read(&self.long_running));
        head(out, "apiserver_storage_objects", "gauge", "Stored objects by resource.");
        for (resource, objects, _) in sizes(core) {
            let _ = writeln!(out, "apiserver_storage_objects{{resource=\"{resource}\"}} {objects}");
        }
        head(
            out,
            "apiserver_registered_watchers",
            "gauge",
            "Watchers by resource, those of the server itself included.",
        );
        for (resource, _, watchers) in sizes(core) {
            let _ = writeln!(out, "apiserver_registered_watchers{{resource=\"{resource}\"}} {watchers}");
        }
        head(out, "apiserver_storage_revision", "gauge", "Revision of the copy in memory.");
        let _ = writeln!(out, "apiserver_storage_revision {}", core.registry.store().revision());
        if let Some(bytes) = resident_bytes() {
            head(out, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.");
            let _ = writeln!(out, "process_resident_memory_bytes {bytes}");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tables> {
        // Counters stay usable whatever happened to one of their writers.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resource, objects, watchers.
fn sizes(core: &Core) -> impl Iterator<Item = (&str, usize, usize)> {
    let sizes = core.registry.store().sizes();
    sizes.map(|(prefix, objects, watchers)| {
        (prefix.trim_start_matches("/registry/").trim_end_matches('/'), objects, watchers)
    })
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn labels(info: &RequestInfo) -> String {
    let verb = match info.verb.as_str() {
        "create" => "POST".to_owned(),
        "update" => "PUT".to_owned(),
        verb => verb.to_ascii_uppercase(),
    };
    let scope = match () {
        () if !info.resource_request => "",
        () if !info.name.is_empty() => "resource",
        () if !info.namespace.is_empty() => "namespace",
        () => "cluster",
    };
    // What a client may write into a URL must not grow the tables: unknown resources share a row.
    let known = api::registry::lookup(&info.group, &info.version, &info.resource);
    let (group, version, resource) = known.map_or(("", "", ""), |it| (it.group, it.version, it.plural));
    let subresource = known.and_then(|it| it.subresource(&info.subresource)).map_or("", |it| it.name);
    format!(
        "verb=\"{verb}\",group=\"{group}\",version=\"{version}\",resource=\"{resource}\",subresource=\"{subresource}\",scope=\"{scope}\""
    )
}

/// Resident set size, from `/proc/self/status`.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_when_written() {
        let mut histogram = Histogram::default();
        for seconds in [0.001, 0.03, 0.03, 100.0] {
            histogram.observe(seconds);
        }
        let mut out = String::new();
        histogram.write(&mut out, "x", "a=\"b\"");
        for line in [
            "x_bucket{a=\"b\",le=\"0.005\"} 1\n",
            "x_bucket{a=\"b\",le=\"60\"} 3\n",
            "x_bucket{a=\"b\",le=\"+Inf\"} 4\n",
            "x_count{a=\"b\"} 4\n",
        ] {
            assert!(out.contains(line), "{line} in {out}");
        }
    }

    #[test]
    fn unknown_resources_do_not_make_rows() {
        let info = RequestInfo {
            resource_request: true,
            verb: "get".into(),
            resource: "nonsense".into(),
            name: "x".into(),
            ..RequestInfo::default()
        };
        assert!(labels(&info).contains("resource=\"\""));
    }
}
