//! A local etcd: started as a child, started again when it dies, adopted when it outlived its last supervisor.
//!
//! A file in the data folder says which process serves it and where. There are never two on one folder: a process found there is
//! adopted if it answers, and ended before another one starts if it does not.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Ports of etcd, taken when free.
const PORTS: [u16; 2] = [2379, 2380];
/// Time between the starts of an etcd that keeps dying, growing.
const BACK_OFF: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];
/// An etcd that ran this long was sound: the next start is prompt again.
const SOUND_AFTER: Duration = Duration::from_secs(30);
/// Time for an etcd to end when told to, before it is killed.
const END: Duration = Duration::from_secs(5);

/// Why the local etcd cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// A file or folder of the local etcd cannot be used.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The program cannot be started.
    #[error("cannot start {binary}: {source}")]
    Start {
        /// The program.
        binary: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No port is free.
    #[error("no free port for etcd: {0}")]
    Port(std::io::Error),
}

/// Where an etcd serves, and which process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    pid: i32,
    client: u16,
    peer: u16,
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let place = Self {
            pid: words.next()?.parse().ok()?,
            client: words.next()?.parse().ok()?,
            peer: words.next()?.parse().ok()?,
        };
        (place.pid > 0).then_some(place)
    }

    fn to_text(self) -> String {
        format!("{} {} {}\n", self.pid, self.client, self.peer)
    }
}

/// The local etcd of one data folder.
pub struct LocalEtcd {
    binary: PathBuf,
    data: PathBuf,
    place_file: PathBuf,
    log_file: PathBuf,
    client: Port,
    peer: Port,
}

/// A running etcd.
enum Process {
    Child(Child),
    /// Not a child, so it cannot be waited for: a thread polls its pidfd.
    Adopted(i32, JoinHandle<()>),
}

impl LocalEtcd {
    /// An etcd with its data in `data_dir/etcd`. The ports are those of the last run, or free ones.
    ///
    /// # Errors
    /// [`EtcdError`] if the folder cannot be made or no port is free.
    pub fn new(binary: &Path, data_dir: &Path) -> Result<Self, EtcdError> {
        let data = data_dir.join("etcd");
        fs::create_dir_all(&data).map_err(|source| EtcdError::File { path: data.clone(), source })?;
        let place_file = data_dir.join("etcd.pid");
        let last = fs::read_to_string(&place_file).ok().and_then(|it| Place::parse(&it));
        let again = match last {
            // Its ports answer; it will be adopted or ended.
            Some(place) if is_ours(place.pid, &data) => {
                Some((Port::served(place.client), Port::served(place.peer)))
            }
            Some(place) => Port::free(place.client).zip(Port::free(place.peer)),
            None => None,
        };
        let (client, peer) = match again {
            Some(ports) => ports,
            None => (Port::any(PORTS[0])?, Port::any(PORTS[1])?),
        };
        let log_file = data_dir.join("etcd.log");
        Ok(Self { binary: binary.to_owned(), data, place_file, log_file, client, peer })
    }

    /// The client URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client.number)
    }

    /// Starts or adopts the process. The first start is the caller's to judge; later ones are [`Self::supervise`]'s.
    ///
    /// # Errors
    /// [`EtcdError`] if the program cannot be started.
    pub async fn start(self, stop: CancellationToken) -> Result<JoinHandle<()>, EtcdError> {
        let process = match self.adopt().await {
            Some(process) => process,
            None => self.spawn()?,
        };
        Ok(tokio::spawn(self.supervise(process, stop)))
    }

    /// Keeps one running until told to stop, then ends it.
    async fn supervise(self, mut process: Process, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            let started = Instant::now();
            if stop.run_until_cancelled(process.exited()).await.is_none() {
                process.end().await;
                // A stale file would only cost the next start a look at a process that is gone.
                let _ = fs::remove_file(&self.place_file);
                return;
            }
            failures = if started.elapsed() > SOUND_AFTER { 0 } else { failures + 1 };
            let pause = BACK_OFF[failures.min(BACK_OFF.len() - 1)];
            tracing::warn!(?pause, log = %self.log_file.display(), "etcd ended, starting it again");
            process = loop {
                tokio::time::sleep(pause).await;
                match self.spawn() {
                    Ok(process) => break process,
                    Err(error) => tracing::error!(%error, "etcd cannot be started, trying again"),
                }
                if stop.is_cancelled() {
                    return;
                }
            };
        }
    }

    fn spawn(&self) -> Result<Process, EtcdError> {
        let log = log_at(&self.log_file)
            .map_err(|source| EtcdError::File { path: self.log_file.clone(), source })?;
        let errors =
            log.try_clone().map_err(|source| EtcdError::File { path: self.log_file.clone(), source })?;
        let (client, peer) = (self.url(), format!("http://127.0.0.1:{}", self.peer.number));
        let child = Command::new(&self.binary)
            .arg("--name=default")
            .arg(format!("--data-dir={}", self.data.display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=default={peer}"))
            .arg("--logger=zap")
            .arg("--log-level=warn")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // A Ctrl-C meant for this process must not end etcd first.
            .process_group(0)
            .spawn()
            .map_err(|source| EtcdError::Start { binary: self.binary.clone(), source })?;
        let pid = child.id().and_then(|it| i32::try_from(it).ok()).unwrap_or(0);
        let place = Place { pid, client: self.client.number, peer: self.peer.number };
        fs::write(&self.place_file, place.to_text())
            .map_err(|source| EtcdError::File { path: self.place_file.clone(), source })?;
        tracing::info!(pid, url = self.url(), "etcd started");
        Ok(Process::Child(child))
    }

    /// The process that an earlier supervisor left behind: taken over if it answers, ended if it does not.
    async fn adopt(&self) -> Option<Process> {
        let place = fs::read_to_string(&self.place_file).ok().and_then(|it| Place::parse(&it))?;
        if !is_ours(place.pid, &self.data) {
            return None;
        }
        let pid = Pid::from_raw(place.pid)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let ended = tokio::task::spawn_blocking(move || {
            // Readable once the process has ended. An error can only be an interruption: look again.
            while poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).is_err() {}
        });
        let process = Process::Adopted(place.pid, ended);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, place.client));
        for _ in 0..20 {
            if TcpStream::connect(address).await.is_ok() {
                tracing::info!(pid = place.pid, "adopted the etcd that was running");
                return Some(process);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tracing::warn!(pid = place.pid, "an etcd holds the data folder but does not answer here: ending it");
        let mut process = process;
        process.end().await;
        None
    }
}

impl Process {
    async fn exited(&mut self) {
        match self {
            Self::Child(child) => drop(child.wait().await),
            Self::Adopted(_, ended) => drop(ended.await),
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = match self {
            Self::Child(child) => child.id().and_then(|it| i32::try_from(it).ok()),
            Self::Adopted(pid, _) => Some(*pid),
        };
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // Fails only for a process that is gone, which is what is wanted.
            let _ = kill_process(pid, signal);
        }
    }

    async fn end(&mut self) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(END, self.exited()).await.is_err() {
            self.signal(Signal::KILL);
            self.exited().await;
        }
    }
}

/// The process is an etcd that serves `data`, not a stranger that got the number later.
fn is_ours(pid: i32, data: &Path) -> bool {
    let mut line = Vec::new();
    let read = File::open(format!("/proc/{pid}/cmdline")).and_then(|mut it| it.read_to_end(&mut line));
    let wanted = format!("--data-dir={}", data.display());
    read.is_ok() && line.split(|it| *it == 0).any(|it| it == wanted.as_bytes())
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A port of this supervisor's etcd. Until etcd listens, and while it is started again, only the claim keeps the supervisor of
/// another data folder from choosing the same port: it would find a stranger's etcd there and take it for its own.
struct Port {
    number: u16,
    /// An abstract address with the port in its name: one holder in a network namespace, released with the process.
    _claim: Option<UnixListener>,
}

impl Port {
    /// `number`, if nothing listens there and nobody is about to.
    fn free(number: u16) -> Option<Self> {
        let claim = claim(number).ok()?;
        is_free(number).then_some(Self { number, _claim: Some(claim) })
    }

    /// `number`, where our process listens already.
    fn served(number: u16) -> Self {
        Self { number, _claim: claim(number).ok() }
    }

    /// `wanted` if it is free, else one that the kernel gives.
    fn any(wanted: u16) -> Result<Self, EtcdError> {
        if let Some(port) = Self::free(wanted) {
            return Ok(port);
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(EtcdError::Port)?;
        let number = listener.local_addr().map_err(EtcdError::Port)?.port();
        Ok(Self { number, _claim: Some(claim(number).map_err(EtcdError::Port)?) })
    }
}

fn claim(port: u16) -> std::io::Result<UnixListener> {
    let name = format!("beeline-etcd-{port}");
    UnixListener::bind_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)
}

/// The log, begun anew when it has grown large: it is for the last few starts, not for ever.
fn log_at(path: &Path) -> std::io::Result<File> {
    const LARGE: u64 = 16 << 20;
    let large = fs::metadata(path).is_ok_and(|it| it.len() > LARGE);
    OpenOptions::new().create(true).write(true).append(!large).truncate(large).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let place = Place { pid: 7, client: 2379, peer: 2380 };
        assert_eq!(Place::parse(&place.to_text()), Some(place));
        for text in ["", "7", "x 1 2", "0 1 2", "7 1"] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_port_is_claimed_before_anything_listens_there() -> Result<(), EtcdError> {
        let first = Port::any(PORTS[0])?;
        assert!(is_free(first.number) && Port::free(first.number).is_none());
        let second = Port::any(first.number)?;
        assert_ne!(first.number, second.number);
        let number = first.number;
        drop(first);
        assert!(Port::free(number).is_some(), "a claim ends with its holder");
        Ok(())
    }

    #[test]
    fn a_stranger_is_not_ours() {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        assert!(!is_ours(own, Path::new("/nowhere/etcd")));
        assert!(!is_ours(i32::MAX, Path::new("/nowhere/etcd")));
    }
}
