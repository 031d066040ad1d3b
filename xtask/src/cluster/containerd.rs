//! The cluster's private containerd: own socket, root and state, one containerd namespace a node.
//!
//! The CRI plugin and everything else that Beeline does not use is switched off.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::daemon::Daemon;
use crate::cluster::plan;
use crate::place::Place;

/// Its socket.
pub(crate) fn socket() -> PathBuf {
    PathBuf::from(plan::RUN).join("containerd.sock")
}

/// The process.
pub(crate) fn daemon() -> Daemon {
    Daemon::new("containerd")
}

/// Starts it unless it runs, and waits for its socket.
pub(crate) fn ensure() -> Result<()> {
    let directory = plan::directory().join("containerd");
    std::fs::create_dir_all(&directory)?;
    std::fs::create_dir_all(plan::RUN)?;
    let config = directory.join("config.toml");
    std::fs::write(&config, configuration()).context("write containerd's configuration")?;
    let place = Place { namespace: None, cgroup: Some(format!("{}/containerd", plan::CGROUP)) };
    let mut command = place.command("containerd")?;
    command.arg("--config").arg(&config).arg("--log-level").arg("warn");
    daemon().start(&place, &mut command, Stdio::null())?;
    daemon().wait(Duration::from_secs(20), || std::os::unix::net::UnixStream::connect(socket()).is_ok())
}

fn configuration() -> String {
    let root = plan::directory().join("containerd/root");
    format!(
        r#"version = 2
root = "{root}"
state = "{run}/containerd"
oom_score = 0
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{socket}"
"#,
        root = root.display(),
        run = plan::RUN,
        socket = socket().display(),
    )
}
