//! What dies comes back, and packets flow meanwhile: `kill -9` of an agent, of the control plane, and of etcd.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::traffic::{self, Background, Requests, Stream};
use super::{Report, contains, eventually, kubectl_with, kubectl_words};
use crate::cluster::plan::{Plan, url_host};
use crate::cluster::{agent, cgroup, control, demo, kubectl, plan};

pub(super) fn run(plan: &Plan, report: &mut Report) {
    report.check("the crash scenarios have their pods", || {
        let manifest = include_str!("rollout.yaml")
            .replace("name: long", "name: steady")
            .replace("app: long", "app: steady");
        kubectl_with("apply", &manifest.replace("GRACE", "2"))?;
        kubectl_words("rollout status deployment/steady --timeout=60s").map(drop)
    });
    for index in 0..plan.nodes().len() {
        let name =
            format!("kill -9 of the agent of {}: traffic flows, pods are adopted", plan.nodes()[index].name);
        report.check(&name, || agent_dies(plan, index));
    }
    report.check("kill -9 of the control plane: traffic flows, objects are there, watches resume", || {
        control_dies(plan, || control::daemon().crash())
    });
    report.check("kill -9 of etcd: traffic flows, objects are there, open watches go on", || {
        // A watch is the API server's connection, not etcd's: it must not even notice.
        let watch = Background::start(&mut kubectl::command(["get", "configmaps", "-w", "-o", "name"]))?;
        control_dies(plan, kill_etcd)?;
        kubectl_words("create configmap after-etcd")?;
        let seen = watch.read_until("configmap/after-etcd", Duration::from_secs(10));
        kubectl_words("delete configmap after-etcd")?;
        seen
    });
    report.check("the crash scenarios' pods are removed", || {
        kubectl_words("delete deployment,service steady --cascade=foreground --timeout=60s").map(drop)
    });
}

/// Long and short connections from the node's host and from the client outside, over services.
struct Traffic {
    streams: Vec<Stream>,
    requests: Vec<Requests>,
}

impl Traffic {
    fn start(plan: &Plan) -> Result<Self> {
        let ip = demo::field(&["get", "service", "steady"], "{.spec.clusterIP}")?;
        let inside = format!("http://{ip}/");
        let outside = format!("http://{}:30080/", url_host(plan.nodes()[0].addresses[0]));
        let mut traffic = Self { streams: Vec::new(), requests: Vec::new() };
        for index in 0..plan.nodes().len() {
            let host = traffic::host(plan, index);
            traffic.streams.push(Stream::open(&host, &inside, &format!("crash-{index}"))?);
            traffic.requests.push(Requests::start(&host, &inside, Duration::from_millis(20))?);
        }
        traffic.streams.push(Stream::open(&traffic::client(), &outside, "crash-client")?);
        traffic.requests.push(Requests::start(&traffic::client(), &outside, Duration::from_millis(20))?);
        Ok(traffic)
    }

    fn flows(&mut self) -> Result<()> {
        self.streams.iter_mut().try_for_each(Stream::flows)
    }

    fn stop(self) -> Result<()> {
        let mut totals = (0, 0);
        for requests in self.requests {
            let (answered, failed) = requests.stop()?;
            totals = (totals.0 + answered, totals.1 + failed);
        }
        println!(
            "    requests meanwhile: {}, failed: {}; streams: {}",
            totals.0,
            totals.1,
            self.streams.len()
        );
        if totals.1 > 0 || totals.0 == 0 {
            bail!("{} of {} requests failed", totals.1, totals.0 + totals.1);
        }
        Ok(())
    }
}

fn agent_dies(plan: &Plan, index: usize) -> Result<()> {
    let node = &plan.nodes()[index];
    let before = containers()?;
    let mut traffic = Traffic::start(plan)?;
    agent::daemon(node).crash()?;
    std::thread::sleep(Duration::from_secs(2));
    traffic.flows().context("while the agent is down")?;
    agent::ensure(plan, node)?;
    // The new agent shows that it works: a pod that it must start.
    let pod = format!("after-crash-{index}");
    let spec = format!(r#"{{"spec":{{"nodeName":"{}"}}}}"#, node.name);
    kubectl::output(["run", &pod, "--image=echo", "--image-pull-policy=Never", "--overrides", &spec])?;
    kubectl_words(&format!("wait --for=condition=Ready pod/{pod} --timeout=30s"))?;
    kubectl_words(&format!("delete pod {pod} --grace-period=1"))?;
    traffic.flows().context("after the new agent took over")?;
    traffic.stop()?;
    let after = containers()?;
    if before != after {
        bail!("containers were restarted or replaced:\n{before}\nnow\n{after}");
    }
    Ok(())
}

/// Each pod of the scenario with its container's id and restart count.
fn containers() -> Result<String> {
    let path = r#"{range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{"\n"}{end}"#;
    demo::field(&["get", "pods", "-l", "app=steady"], path)
}

fn control_dies(plan: &Plan, kill: impl FnOnce() -> Result<()>) -> Result<()> {
    let objects = "get pods,services,deployments,nodes,configmaps,endpointslices -A -o name";
    let before = kubectl_words(objects)?;
    let pods = containers()?;
    let mut traffic = Traffic::start(plan)?;
    kill()?;
    std::thread::sleep(Duration::from_secs(1));
    traffic.flows().context("while it is down")?;
    control::ensure(plan)?;
    let after = eventually(Duration::from_secs(20), || kubectl_words(objects))?;
    if let Some(lost) = before.lines().find(|line| !after.contains(line)) {
        bail!("{lost} is lost");
    }
    // Controllers, scheduler and agents follow again: a new pod comes up and answers.
    kubectl_words("create deployment revived --image=echo")?;
    let policy =
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"echo","imagePullPolicy":"Never"}]}}}}"#;
    kubectl::output(["patch", "deployment", "revived", "-p", policy])?;
    kubectl_words("rollout status deployment/revived --timeout=60s")?;
    kubectl_words("delete deployment revived --cascade=foreground --timeout=60s")?;
    traffic.flows().context("after it came back")?;
    traffic.stop()?;
    contains(&containers()?, &pods.lines().collect::<Vec<_>>())
}

/// Kills the etcd that runs in the control plane's cgroup.
fn kill_etcd() -> Result<()> {
    let group = cgroup::unified()?.join(plan::CGROUP).join("control/cgroup.procs");
    let pids = std::fs::read_to_string(group)?;
    let is_etcd = |pid: &&str| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "etcd")
    };
    let pid = pids.lines().find(is_etcd).context("no etcd runs")?.parse()?;
    let pid = rustix::process::Pid::from_raw(pid).context("a pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).context("kill etcd")
}
