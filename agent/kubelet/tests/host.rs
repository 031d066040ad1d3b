//! One pod on a real, private containerd: sandbox, volumes, start, logs, exec, adoption, stop, removal. Needs root,
//! containerd, runc, ctr and a static busybox; without them it says so and passes.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::runtime::reflector::store;
use kube::runtime::watcher::Event;
use kubelet::cgroup::tree::CgroupTree;
use kubelet::containerd::Containerd;
use kubelet::containerd::containers::Task;
use kubelet::host::Host;
use kubelet::logs::writer::Rotation;
use kubelet::objects::Objects;
use kubelet::oci::machine::Machine;
use kubelet::podnet::BoxError;
use kubelet::pods::effects::{PodEffects, StartOrder, StopOrder};
use kubelet::pods::state::{Instance, Sandbox};
use kubelet::{KubeletConfig, NetPod, PodNetworking};
use serde_json::json;
use sha2::{Digest, Sha256};

const NODE: &str = "kubelet-test";
const CGROUP_ROOT: &str = "kubelet-test/node";

/// A daemon of its own, ended with the test.
struct Daemon {
    process: Child,
    directory: PathBuf,
}

impl Daemon {
    fn start(directory: &Path) -> Self {
        let config = directory.join("containerd.toml");
        let text = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n[grpc]\n  address = \"{0}/sock\"\n",
            directory.display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(directory.join("log")).unwrap();
        let mut command = Command::new("containerd");
        let process = command.arg("-c").arg(config).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { process, directory: directory.to_owned() }
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("sock")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("root");
    }
    let present = |program: &str| {
        let path = std::env::var("PATH").unwrap_or_default();
        path.split(':').chain(["/usr/sbin"]).any(|directory| Path::new(directory).join(program).exists())
    };
    ["containerd", "runc", "ctr", "busybox"].into_iter().find(|program| !present(program))
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// An OCI image of one layer with busybox in it, as a tar.
fn image_tar(target: &Path) {
    let busybox =
        ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|path| Path::new(path).exists()).unwrap();
    let entry = |archive: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        header.set_cksum();
        archive.append_data(&mut header, path, bytes).unwrap();
    };
    let mut layer = tar::Builder::new(Vec::new());
    entry(&mut layer, "bin/busybox", &fs::read(busybox).unwrap());
    entry(&mut layer, "bin/sh", b"#!/bin/busybox sh\nexec /bin/busybox sh \"$@\"\n");
    entry(&mut layer, "etc/passwd", b"root:x:0:0::/:/bin/sh\nweb:x:101:102::/:/bin/sh\n");
    let layer = layer.into_inner().unwrap();
    let config = json!({
        "architecture": kubelet::oci::image::architecture(), "os": "linux",
        "config": {"User": "web", "Env": ["PATH=/bin"], "Entrypoint": ["/bin/busybox"], "Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]}})
    .to_string();
    let descriptor = |kind: &str, bytes: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(bytes), "size": bytes.len()});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", config.as_bytes()),
        "layers": [descriptor("layer.v1.tar", &layer)]})
    .to_string();
    let mut listed = descriptor("manifest.v1+json", manifest.as_bytes());
    listed["annotations"] = json!({"io.containerd.image.name": "docker.io/library/box:latest"});
    let index = json!({"schemaVersion": 2, "manifests": [listed]}).to_string();
    let mut archive = tar::Builder::new(Vec::new());
    entry(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    entry(&mut archive, "index.json", index.as_bytes());
    for bytes in [layer.as_slice(), config.as_bytes(), manifest.as_bytes()] {
        entry(&mut archive, &format!("blobs/{}", digest(bytes).replace(':', "/")), bytes);
    }
    fs::write(target, archive.into_inner().unwrap()).unwrap();
}

fn import(socket: &Path, tar: &Path) {
    let mut command = Command::new("ctr");
    let command = command.arg("-a").arg(socket).args(["-n", NODE, "images", "import"]).arg(tar);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A network that only names addresses.
struct NoNetwork;

impl PodNetworking for NoNetwork {
    fn set_pod_cidrs(&self, _: Vec<String>) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async { Ok(()) })
    }

    fn setup<'a>(&'a self, _: &'a NetPod, netns: &'a Path) -> BoxFuture<'a, Result<Vec<IpAddr>, BoxError>> {
        assert!(netns.exists());
        Box::pin(async { Ok(vec!["10.244.0.5".parse()?]) })
    }

    fn teardown<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(async { Ok(()) })
    }

    fn recover(&self, _: Vec<NetPod>) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async { Ok(()) })
    }
}

async fn host(daemon: &Daemon, directory: &Path) -> Arc<Host> {
    let mut config = KubeletConfig::new(NODE, directory.join("root-dir"), directory.join("run"));
    config.cgroup_root = CGROUP_ROOT.into();
    let rotation = Rotation { max_bytes: 1 << 20, max_files: 2 };
    let mut patience = 100;
    let containerd = loop {
        match Containerd::connect(&daemon.socket(), NODE, &config.run_dir, rotation).await {
            Ok(containerd) => break containerd,
            Err(error) if patience == 0 => panic!("{error}"),
            Err(_) => patience -= 1,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // Nothing answers there: a pod that needs no object must run without the API.
    let client = kube::Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
    let (services, mut writer) = store::<Service>();
    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitDone);
    Arc::new(Host {
        containerd,
        network: Arc::new(NoNetwork),
        objects: Objects::new(client.clone(), services),
        cgroups: CgroupTree::detect("/sys/fs/cgroup", CGROUP_ROOT),
        machine: Machine::detect(),
        recorder: runtime::Recorder::new(client.clone(), "kubelet", None),
        hostname: NODE.into(),
        allocatable: std::collections::BTreeMap::new(),
        owners: Mutex::new(HashMap::new()),
        start_slots: tokio::sync::Semaphore::new(2),
        config,
        client,
    })
}

fn pod() -> Arc<Pod> {
    let script = "echo hello from $(/bin/busybox hostname); /bin/busybox id -u; echo left > /dev/termination-log; \
                  trap 'echo bye; exit 3' TERM; while true; do /bin/busybox sleep 0.1; done";
    let object = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": uuid::Uuid::new_v4().to_string()},
        "spec": {
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{
                "name": "c", "image": "box", "imagePullPolicy": "Never", "command": ["/bin/busybox", "sh", "-c", script],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "resources": {"limits": {"memory": "64Mi"}}}]}});
    Arc::new(serde_json::from_value(object).unwrap())
}

async fn start(host: &Arc<Host>, pod: &Arc<Pod>) -> (Instance, Sandbox) {
    host.cgroups.create_root(None).unwrap();
    let sandbox = host.clone().prepare_sandbox(pod.clone()).await.unwrap();
    host.clone().prepare_volumes(pod.clone(), None).await.unwrap();
    let order = StartOrder { pod: pod.clone(), container: "c".into(), attempt: 0, sandbox: sandbox.clone() };
    (host.clone().start(order).await.unwrap(), sandbox)
}

/// The processes of the container, by its cgroup in the hierarchy that BPF programs attach to.
fn unified_processes(host: &Host, pod: &Pod, id: &str) -> usize {
    let class = kubelet::cgroup::qos::class(pod);
    let path = host.cgroups.pod_path(class, pod.metadata.uid.as_deref().unwrap());
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let read =
        |root: &&str| fs::read_to_string(Path::new(root).join(&path).join(id).join("cgroup.procs")).ok();
    roots.iter().find_map(read).unwrap_or_default().lines().count()
}

async fn log_holds(path: &Path, line: &str) {
    for _ in 0..100 {
        if fs::read_to_string(path).unwrap_or_default().contains(line) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("\"{line}\" is not in {}", fs::read_to_string(path).unwrap_or_default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_on_a_real_containerd_and_leaves_nothing_behind() {
    if let Some(what) = missing() {
        println!("skipped: needs {what}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path());
    let first = host(&daemon, directory.path()).await;
    let tar = directory.path().join("box.tar");
    image_tar(&tar);
    import(&daemon.socket(), &tar);
    let pod = pod();
    let (instance, sandbox) = start(&first, &pod).await;
    let uid = pod.metadata.uid.as_deref().unwrap();
    let log = first.config.pod_log_dir("default", "web", uid).join("c/0.log");
    log_holds(&log, "stdout F hello from web").await;
    log_holds(&log, "stdout F 101").await;
    assert!(unified_processes(&first, &pod, &instance.id) > 0, "BPF programs of the node see the container");

    let words = ["/bin/busybox", "sh", "-c", "echo out; echo err >&2; exit 5"].map(str::to_owned);
    let output = first.containerd.exec_collect(&instance.id, &words, Duration::from_secs(10)).await.unwrap();
    assert_eq!(output.code, 5);
    assert!(output.output.contains("out") && output.output.contains("err"), "{output:?}");
    let endless = ["/bin/busybox", "sleep", "100"].map(str::to_owned);
    let late = first.containerd.exec_collect(&instance.id, &endless, Duration::from_secs(1)).await;
    assert!(late.unwrap_err().to_string().contains("timed out"));

    // A second agent finds the container by its labels, running.
    let second = host(&daemon, directory.path()).await;
    let found = second.containerd.list().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].id.as_str(), &found[0].task), (instance.id.as_str(), &Task::Running));
    assert_eq!(found[0].identity.pod_uid, uid);

    let deadline = Timestamp::now() + jiff::SignedDuration::from_secs(20);
    let (_keep, deadline) = tokio::sync::watch::channel(deadline);
    let order =
        StopOrder { pod: pod.clone(), container: "c".into(), id: instance.id.clone(), deadline, sandbox };
    first.clone().stop(order).await;
    let Task::Stopped { code, at } = first.containerd.task(&instance.id).await.unwrap() else {
        panic!("not stopped");
    };
    let exit = first.clone().reap(pod.clone(), "c".into(), instance.clone(), code, at.unwrap()).await;
    assert_eq!((exit.code, exit.reason.as_str(), exit.message.as_deref()), (3, "Error", Some("left\n")));
    log_holds(&log, "stdout F bye").await;

    first.clone().clean_up(pod.clone()).await.unwrap();
    first.clone().clean_up(pod.clone()).await.unwrap();
    assert!(first.containerd.list().await.unwrap().is_empty());
    assert!(!first.config.pins_dir(uid).exists());
    first.forget(&pod);
    assert!(!first.config.pod_dir(uid).exists() && !log.exists());
    first.cgroups.remove("kubelet-test").unwrap();
}
