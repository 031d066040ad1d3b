//! The text of /metrics (the Prometheus exposition format): kube-proxy's names where it has one, ours beside them.

use std::fmt::{Display, Write};

use datapath::Dataplane;

use crate::progress::{BUCKETS, Histogram, Progress};

/// Clock ticks of `/proc/PID/stat` in a second (`USER_HZ`, fixed at 100 in what the kernel shows).
const TICKS_PER_S: f64 = 100.0;
/// Bytes of a page on the architectures that the data plane runs on.
const PAGE: u64 = 4096;

/// Everything there is.
pub fn text(progress: &Progress, dataplane: &Dataplane) -> String {
    let mut text = String::new();
    of_progress(&mut text, progress);
    of_flows(&mut text, progress);
    of_tables(&mut text, dataplane);
    of_process(&mut text);
    text
}

fn of_progress(text: &mut String, progress: &Progress) {
    let histograms = [
        (
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "From an event's arrival to its being in the tables.",
            &progress.syncs,
        ),
        (
            "kubeproxy_sync_full_proxy_rules_duration_seconds",
            "From the start of the first lists to their being in the tables.",
            &progress.full_sync,
        ),
        (
            "kubeproxy_network_programming_duration_seconds",
            "From a change of a pod or service to its being in the tables.",
            &progress.programming,
        ),
    ];
    for (name, help, histogram) in histograms {
        write_histogram(text, name, help, histogram);
    }
    let last = progress.last_change().map_or(0.0, |last| last.as_millisecond() as f64 / 1000.0);
    let name = "kubeproxy_sync_proxy_rules_last_timestamp_seconds";
    head(text, name, "gauge", "When the tables last changed.");
    line(text, name, last);
    of_counters(text, progress);
    of_alarms(text, progress);
}

fn of_counters(text: &mut String, progress: &Progress) {
    let counters = [
        ("kubeproxy_sync_proxy_rules_service_changes_total", "Service events.", &progress.service_changes),
        (
            "kubeproxy_sync_proxy_rules_endpoint_changes_total",
            "EndpointSlice events.",
            &progress.endpoint_changes,
        ),
        ("beeline_flow_entries_deleted_total", "Entries deleted after being idle.", &progress.flows_deleted),
        ("beeline_flow_table_growths_total", "Times that a flow table grew.", &progress.flow_table_growths),
        (
            "beeline_udp_sockets_destroyed_total",
            "Connected UDP sockets destroyed because their backend was gone.",
            &progress.sockets_destroyed,
        ),
    ];
    for (name, help, counter) in counters {
        head(text, name, "counter", help);
        line(text, name, counter.get());
    }
    for (name, counters) in [
        ("kubeproxy_proxy_healthz_total", &progress.healthz),
        ("kubeproxy_proxy_livez_total", &progress.livez),
    ] {
        head(text, name, "counter", "Answers by status.");
        for (code, counter) in ["200", "503"].iter().zip(counters) {
            line(text, &format!("{name}{{code=\"{code}\"}}"), counter.get());
        }
    }
}

fn of_alarms(text: &mut String, progress: &Progress) {
    head(text, "beeline_feature_missing", "gauge", "Parts of the design that do not work on this node.");
    for feature in progress.missing_features().keys() {
        line(text, &format!("beeline_feature_missing{{feature=\"{feature}\"}}"), 1);
    }
    let alarms = progress.alarms();
    head(text, "beeline_alarm", "gauge", "Whether an alarm is on.");
    for (name, alarm) in &alarms {
        line(text, &format!("beeline_alarm{{alarm=\"{name}\"}}"), u8::from(alarm.on));
    }
    head(text, "beeline_alarms_total", "counter", "Times that an alarm went on.");
    for (name, alarm) in &alarms {
        line(text, &format!("beeline_alarms_total{{alarm=\"{name}\"}}"), alarm.raised);
    }
}

fn of_flows(text: &mut String, progress: &Progress) {
    let count = progress.last_flows().unwrap_or_default();
    for (name, help, value) in [
        (
            "beeline_flow_entries",
            "Entries of established flows, two for a connection.",
            count.entries - count.deleted,
        ),
        ("beeline_flow_table_entries", "Entries that the flow tables have room for.", count.capacity),
        ("beeline_snat_connections", "Connections that hold a source port of this node.", count.translated),
    ] {
        head(text, name, "gauge", help);
        line(text, name, value);
    }
}

fn of_tables(text: &mut String, dataplane: &Dataplane) {
    let (frontends, pods, addresses, ranges) = dataplane.counts();
    head(text, "beeline_table_rows", "gauge", "Rows in the data plane's tables.");
    for (table, rows) in
        [("frontends", frontends), ("pods", pods), ("node_addresses", addresses), ("pod_ranges", ranges)]
    {
        line(text, &format!("beeline_table_rows{{table=\"{table}\"}}"), rows);
    }
    let name = "beeline_snat_ports_in_use";
    head(
        text,
        name,
        "gauge",
        "Source ports in use towards the backend that most of an address's connections lead to.",
    );
    for ports in dataplane.source_ports() {
        line(text, &format!("{name}{{address=\"{}\"}}", ports.address), ports.ports);
    }
    let name = "beeline_drops_total";
    head(text, name, "counter", "Packets and socket calls ended by the data plane, by reason.");
    for (reason, packets) in dataplane.drops() {
        line(text, &format!("{name}{{reason=\"{}\"}}", reason.as_str()), packets);
    }
}

/// The process's own, under the names of every Prometheus client.
fn of_process(text: &mut String) {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    if let Some(bytes) = resident_bytes(&read("/proc/self/statm")) {
        head(text, "process_resident_memory_bytes", "gauge", "Resident memory.");
        line(text, "process_resident_memory_bytes", bytes);
    }
    if let Some(seconds) = cpu_seconds(&read("/proc/self/stat")) {
        head(text, "process_cpu_seconds_total", "counter", "CPU time, user and system.");
        line(text, "process_cpu_seconds_total", seconds);
    }
}

/// Second field of /proc/PID/statm, in pages.
fn resident_bytes(statm: &str) -> Option<u64> {
    Some(statm.split(' ').nth(1)?.parse::<u64>().ok()? * PAGE)
}

/// Fields 14 and 15 of /proc/PID/stat; the second is in parentheses and may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<f64>().ok()?, fields.next()?.parse::<f64>().ok()?);
    Some((user + system) / TICKS_PER_S)
}

fn write_histogram(text: &mut String, name: &str, help: &str, histogram: &Histogram) {
    let counts = histogram.counts();
    head(text, name, "histogram", help);
    for (count, bound) in counts.buckets.iter().zip(BUCKETS) {
        line(text, &format!("{name}_bucket{{le=\"{bound}\"}}"), count);
    }
    line(text, &format!("{name}_bucket{{le=\"+Inf\"}}"), counts.count);
    line(text, &format!("{name}_sum"), counts.sum_s);
    line(text, &format!("{name}_count"), counts.count);
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, value: impl Display) {
    let _ = writeln!(text, "{name} {value}");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        for expected in expected {
            assert!(text.contains(expected), "{expected}{text}");
        }
    }

    #[test]
    fn histograms_count_into_every_bucket_that_is_large_enough() {
        let progress = Progress::default();
        progress.applied(Duration::from_micros(150));
        progress.applied(Duration::from_millis(3));
        let mut text = String::new();
        write_histogram(&mut text, "x", "y", &progress.syncs);
        check(
            &text,
            &[
                "x_bucket{le=\"0.0001\"} 0\n",
                "x_bucket{le=\"0.0002\"} 1\n",
                "x_bucket{le=\"0.005\"} 2\n",
                "x_count 2\n",
            ],
        );
    }

    #[test]
    fn what_is_missing_and_what_is_alarming_is_named() {
        let progress = Progress::default();
        progress.missing("destroying UDP sockets", "why");
        progress.alarm("ports-exhausted", true);
        let mut text = String::new();
        of_progress(&mut text, &progress);
        check(
            &text,
            &[
                "beeline_feature_missing{feature=\"destroying UDP sockets\"} 1\n",
                "beeline_alarm{alarm=\"ports-exhausted\"} 1\n",
                "beeline_alarms_total{alarm=\"ports-exhausted\"} 1\n",
                "kubeproxy_proxy_healthz_total{code=\"503\"} 0\n",
            ],
        );
    }

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 100 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(resident_bytes("100 25 3 4"), Some(25 * PAGE));
        assert_eq!((cpu_seconds(""), resident_bytes("")), (None, None));
    }
}
