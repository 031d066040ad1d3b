//! The binary and its etcd, killed in turn: objects stay, watches resume, no second etcd. Skipped aloud without an `etcd` program.
#![allow(missing_docs, clippy::unwrap_used)]

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// A control plane on a port of its own; whatever is left of it is killed at the end.
struct Control {
    process: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Control {
    fn start() -> Option<Self> {
        if let Err(error) = Command::new("etcd").arg("--version").stdout(Stdio::null()).status() {
            println!("skipped: needs the etcd program ({error})");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        Some(Self { process: spawn(folder.path(), port), folder, port })
    }

    fn restart(&mut self) {
        self.process = spawn(self.folder.path(), self.port);
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn etcd(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.folder.path().join("etcd.pid")).ok()?;
        Pid::from_raw(text.split_whitespace().next()?.parse().ok()?)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("admin.kubeconfig")
    }

    /// Objects of the default namespace, once the server answers.
    async fn objects(&self) -> Api<ConfigMap> {
        eventually("the server serves", async || {
            let file = Kubeconfig::read_from(self.kubeconfig()).ok()?;
            let config =
                kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.ok()?;
            let api: Api<ConfigMap> = Api::namespaced(kube::Client::try_from(config).ok()?, "default");
            api.get_opt("none").await.ok()?;
            Some(api)
        })
        .await
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(etcd) = self.etcd() {
            let _ = kill_process(etcd, Signal::KILL);
        }
    }
}

fn spawn(folder: &Path, port: u16) -> Child {
    Command::new(env!("CARGO_BIN_EXE_beeline-control"))
        .args(["all", "--data-dir", &folder.display().to_string(), "--bind", &format!("127.0.0.1:{port}")])
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(Instant::now() < end, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn named(name: &str) -> ConfigMap {
    let mut object = ConfigMap::default();
    object.metadata.name = Some(name.to_owned());
    object
}

async fn create(objects: &Api<ConfigMap>, name: &str) -> String {
    let made = eventually("a write succeeds", async || {
        match objects.create(&PostParams::default(), &named(name)).await {
            Ok(made) => Some(made),
            // A write whose answer was lost is there all the same.
            Err(_) => objects.get_opt(name).await.ok().flatten(),
        }
    });
    made.await.metadata.resource_version.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_etcd_or_the_control_plane_loses_nothing() {
    let Some(mut control) = Control::start() else { return };
    let objects = control.objects().await;
    let first = create(&objects, "a").await;
    let etcd = control.etcd().unwrap();

    kill_process(etcd, Signal::KILL).unwrap();
    create(&objects, "b").await;
    let second = control.etcd().unwrap();
    assert_ne!(etcd, second, "another etcd was started");

    control.kill();
    assert!(test_kill_process(second).is_ok(), "etcd outlives the control plane");
    control.restart();
    let objects = control.objects().await;
    assert_eq!(control.etcd(), Some(second), "the running etcd was adopted, not joined by a second");
    create(&objects, "c").await;
    // A client that had seen `first` resumes there, at a server that was not yet running then.
    let mut events = objects.watch(&WatchParams::default().timeout(20), &first).await.unwrap().boxed();
    for name in ["b", "c"] {
        loop {
            match events.next().await.unwrap().unwrap() {
                WatchEvent::Added(object) if object.metadata.name.as_deref() == Some(name) => break,
                // What the controllers put into every namespace.
                WatchEvent::Added(_) | WatchEvent::Bookmark(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    control.kill();
    kill_process(second, Signal::KILL).unwrap();
    control.restart();
    let objects = control.objects().await;
    for name in ["a", "b", "c"] {
        assert!(objects.get_opt(name).await.unwrap().is_some(), "{name} is lost");
    }

    let last = control.etcd().unwrap();
    kill_process(Pid::from_raw(i32::try_from(control.process.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
    assert!(control.process.wait().unwrap().success(), "SIGTERM ends it in order");
    assert!(test_kill_process(last).is_err(), "and its etcd with it");
}
