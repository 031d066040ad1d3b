//! An etcd on ports of its own, ended with the test, and the registry on it.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use apiserver::registry_access::{self, Registry};

/// A running etcd; killed when dropped.
pub struct Etcd {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Etcd {
    /// `None`, said aloud, when there is no etcd program.
    pub fn start() -> Option<Self> {
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (client, peer) = (free(), free());
        let (port, peer_port) = (client.local_addr().unwrap().port(), peer.local_addr().unwrap().port());
        drop((client, peer));
        let folder = tempfile::tempdir().unwrap();
        let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
        let spawned = Command::new("etcd")
            .arg(format!("--data-dir={}", folder.path().display()))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--log-level=error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match spawned {
            Ok(process) => Some(Self { process, port, _folder: folder }),
            Err(error) => {
                println!("skipped: needs the etcd program ({error})");
                None
            }
        }
    }

    /// A registry over it, loaded.
    pub async fn registry(&self) -> Registry {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let config =
            store::Config { compaction_interval: None, ..store::Config::new(vec![endpoint], vec![]) };
        let store = registry_access::open(config).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), store.ready()).await.expect("etcd serves within 20 s");
        Registry::new(store)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
