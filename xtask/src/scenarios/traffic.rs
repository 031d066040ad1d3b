//! Clients for scenarios: short HTTP requests and long streams from a place of the cluster, counted.
//!
//! A client is a child process (busybox), since socket load balancing is decided by a process's cgroup.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cluster::plan::{self, Plan};
use crate::place::Place;
use crate::{shell, tree};

/// The client outside the cluster.
pub(super) fn client() -> Place {
    Place { namespace: Some(plan::CLIENT.to_owned()), cgroup: None }
}

/// The host of the node at `index`.
pub(super) fn host(plan: &Plan, index: usize) -> Place {
    plan.nodes()[index].host()
}

/// The body of one HTTP answer.
pub(super) fn get(place: &Place, url: &str) -> Result<String> {
    // busybox's own `wget -T` crashes in Debian 12's static build.
    place.run(|| {
        shell::quiet(
            place.command("/bin/busybox")?.args(["timeout", "3", "busybox", "wget", "-q", "-O", "-", url]),
        )
    })
}

/// One datagram to `address` and the answer.
pub(super) fn datagram(plan: &Plan, place: &Place, address: SocketAddr, text: &str) -> Result<String> {
    let perf = tree::program(plan.profile, "perf");
    place.run(|| {
        shell::quiet(place.command(&perf)?.args([
            "datagram",
            "--target",
            &address.to_string(),
            "--text",
            text,
        ]))
    })
}

/// Short requests, one connection each, until it is stopped.
pub(super) struct Requests {
    child: Child,
}

impl Requests {
    /// Starts one request after another, as fast as they are answered, with `pause` between them.
    pub(super) fn start(place: &Place, url: &str, pause: Duration) -> Result<Self> {
        let pause = pause.as_secs_f64();
        // On TERM the loop ends after the request in flight, and the totals are printed.
        let script = format!(
            "stop=; trap 'stop=1' TERM; n=0; f=0; while [ -z \"$stop\" ]; do \
             if busybox timeout 3 busybox wget -q -O /dev/null {url}; then n=$((n+1)); else f=$((f+1)); fi; busybox sleep {pause}; \
             done; echo \"$n $f\""
        );
        let mut command = place.command("/bin/busybox")?;
        command.args(["sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = place.run(|| command.spawn().context("start the requests"))?;
        Ok(Self { child })
    }

    /// Ends it; `(answered, failed)`.
    pub(super) fn stop(self) -> Result<(usize, usize)> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let output = self.child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut numbers = text.split_whitespace().map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(answered)), Some(Ok(failed))) => Ok((answered, failed)),
            _ => bail!("the requests ended without totals: {text:?}"),
        }
    }
}

/// A long HTTP stream; its lines are counted in a file.
pub(super) struct Stream {
    child: Child,
    file: std::path::PathBuf,
}

impl Stream {
    /// Opens `URL/stream` and waits for its first lines.
    pub(super) fn open(place: &Place, url: &str, name: &str) -> Result<Self> {
        let file = plan::directory().join(format!("stream-{name}"));
        let output = std::fs::File::create(&file)?;
        let mut command = place.command("/bin/busybox")?;
        command.args(["wget", "-q", "-O", "-", &format!("{url}stream?seconds=600")]);
        command.stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
        let child = place.run(|| command.spawn().context("open the stream"))?;
        let stream = Self { child, file };
        super::eventually(Duration::from_secs(5), || stream.backend())?;
        Ok(stream)
    }

    /// The pod at the other end.
    pub(super) fn backend(&self) -> Result<String> {
        let text = std::fs::read_to_string(&self.file)?;
        let pod = text.split_whitespace().find_map(|word| word.strip_prefix("pod="));
        pod.map(str::to_owned).context("no line of the stream yet")
    }

    /// Lines so far.
    pub(super) fn lines(&self) -> usize {
        std::fs::read_to_string(&self.file)
            .map_or(0, |text| text.lines().filter(|line| line.starts_with("pod=")).count())
    }

    /// Fails unless lines still arrive.
    pub(super) fn flows(&mut self) -> Result<()> {
        let before = self.lines();
        super::eventually(Duration::from_secs(3), || {
            if self.lines() > before { Ok(()) } else { bail!("the stream stands still at {before} lines") }
        })?;
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the stream's client ended with {status}"),
        }
    }

    /// Whether the stream has ended.
    pub(super) fn ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Ours, by its own handle; an error means that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_file(&self.file));
    }
}

/// A child that is killed when it goes out of scope.
pub(super) struct Background(pub(super) Child);

impl Background {
    /// Starts `command` with its output captured.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let line = shell::describe(command);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Ok(Self(child.with_context(|| format!("start `{line}`"))?))
    }

    /// Reads its output until it contains `text`.
    pub(super) fn read_until(mut self, text: &str, limit: Duration) -> Result<()> {
        use std::io::Read;
        let mut output = self.0.stdout.take().context("the output of a background command")?;
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        let deadline = std::time::Instant::now() + limit;
        let mut seen = String::new();
        while !seen.contains(text) {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let bytes = receiver
                .recv_timeout(left)
                .with_context(|| format!("`{text}` did not come; seen: {seen}"))?;
            seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
