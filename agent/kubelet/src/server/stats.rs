//! `/pods`, `/stats/summary` and `/metrics`, read from state and cgroup files when asked. Network and file system
//! figures are not given.

use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Body, Context, respond};
use crate::cgroup::qos;
use crate::pods::actor::View;
use crate::pods::state::{name, namespace, uid};

/// The pods of this node as a PodList, with the statuses that this node has generated.
pub fn pods(context: &Context) -> Response<Body> {
    let items: Vec<Value> = context
        .workers
        .views()
        .into_iter()
        .map(|view| {
            let mut pod = (*view.pod).clone();
            pod.status = Some(view.status);
            serde_json::to_value(pod).unwrap_or_default()
        })
        .collect();
    json_answer(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

fn json_answer(value: &Value) -> Response<Body> {
    respond(StatusCode::OK, "application/json", value.to_string())
}

/// (container name, runtime id, cpu nanoseconds, working set bytes).
type Usage = (String, String, Option<u64>, Option<u64>);

fn usage(context: &Context, view: &View) -> Vec<Usage> {
    let cgroups = &context.host.cgroups;
    let pod = cgroups.pod_path(qos::class(&view.pod), uid(&view.pod));
    let read = |(container, id): (&String, &String)| {
        let (cpu, memory) = cgroups.usage(&format!("{pod}/{id}"));
        (container.clone(), id.clone(), cpu, memory)
    };
    view.running.iter().map(read).collect()
}

/// Kubernetes' stats summary, cpu and memory only.
pub fn summary(context: &Context) -> Response<Body> {
    let now = Timestamp::now().to_string();
    let figures = |cpu: Option<u64>, memory: Option<u64>| {
        json!({
            "cpu": {"time": now, "usageCoreNanoSeconds": cpu},
            "memory": {"time": now, "workingSetBytes": memory},
        })
    };
    let pods: Vec<Value> = context
        .workers
        .views()
        .iter()
        .map(|view| {
            let containers: Vec<Value> = usage(context, view)
                .into_iter()
                .map(|(container, _, cpu, memory)| {
                    let mut entry = figures(cpu, memory);
                    entry["name"] = json!(container);
                    entry
                })
                .collect();
            let reference =
                json!({"name": name(&view.pod), "namespace": namespace(&view.pod), "uid": uid(&view.pod)});
            json!({"podRef": reference, "startTime": view.status.start_time, "containers": containers})
        })
        .collect();
    // The whole machine: the root of the hierarchy.
    let (cpu, memory) = context.host.cgroups.usage("");
    let node = figures(cpu, memory);
    json_answer(
        &json!({"node": {"nodeName": context.host.config.node_name, "cpu": node["cpu"], "memory": node["memory"]}, "pods": pods}),
    )
}

/// Prometheus text: what metrics-server reads of containers, and the number of pods.
pub fn metrics(context: &Context) -> Response<Body> {
    let views = context.workers.views();
    let mut text = format!(
        "# HELP kubelet_running_pods Number of pods on this node that have not ended\n# TYPE kubelet_running_pods gauge\nkubelet_running_pods {}\n",
        views.iter().filter(|view| !view.ended).count()
    );
    let mut cpu_lines = String::new();
    let mut memory_lines = String::new();
    for view in &views {
        for (container, _, cpu, memory) in usage(context, view) {
            let labels = format!(
                "{{container=\"{container}\",namespace=\"{}\",pod=\"{}\"}}",
                namespace(&view.pod),
                name(&view.pod)
            );
            if let Some(nanoseconds) = cpu {
                let seconds = nanoseconds as f64 / 1e9;
                cpu_lines.push_str(&format!("container_cpu_usage_seconds_total{labels} {seconds}\n"));
            }
            if let Some(bytes) = memory {
                memory_lines.push_str(&format!("container_memory_working_set_bytes{labels} {bytes}\n"));
            }
        }
    }
    text.push_str("# HELP container_cpu_usage_seconds_total Cpu time used by the container\n# TYPE container_cpu_usage_seconds_total counter\n");
    text.push_str(&cpu_lines);
    text.push_str("# HELP container_memory_working_set_bytes Memory in use that cannot be taken back at once\n# TYPE container_memory_working_set_bytes gauge\n");
    text.push_str(&memory_lines);
    respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}
