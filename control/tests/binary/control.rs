//! A control plane to test: the binary on a port of its own with its etcd. It asks nothing of what is tested.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use rustix::process::{Pid, Signal, kill_process};

/// A control plane on a port of its own; whatever is left of it is killed at the end.
pub struct Control {
    /// The running binary.
    pub process: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Control {
    /// A new one; none, said aloud, without an `etcd` program.
    pub fn start() -> Option<Self> {
        if let Err(error) = Command::new("etcd").arg("--version").stdout(Stdio::null()).status() {
            println!("skipped: needs the etcd program ({error})");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        Some(Self { process: spawn(folder.path(), port), folder, port })
    }

    /// The same again.
    pub fn restart(&mut self) {
        self.process = spawn(self.folder.path(), self.port);
    }

    /// Ends the binary by SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// The etcd that it keeps running.
    pub fn etcd(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.folder.path().join("etcd.pid")).ok()?;
        Pid::from_raw(text.split_whitespace().next()?.parse().ok()?)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("admin.kubeconfig")
    }

    /// A client of the administrator, once the server answers.
    pub async fn client(&self) -> kube::Client {
        eventually("the server serves", async || {
            let file = Kubeconfig::read_from(self.kubeconfig()).ok()?;
            let config =
                kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.ok()?;
            let client = kube::Client::try_from(config).ok()?;
            client.apiserver_version().await.ok()?;
            Some(client)
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

/// What `attempt` finds within 30 s.
pub async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(Instant::now() < end, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
