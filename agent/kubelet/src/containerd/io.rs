//! Standard input and output of containers: FIFOs that the shim and this agent share. Output goes to the log and to
//! whoever is attached. The shim keeps both ends of each FIFO, so an agent that is gone only makes writers wait when
//! the pipe is full, and a new agent goes on at the next byte.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::{CWD, FileType, Mode};
use rustix::io::Errno;
use tokio::net::unix::pipe;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::images::lock;
use crate::logs::format::Stream;
use crate::logs::writer::{LogWriter, Rotation};

/// Chunks that an attached client may lag behind before it loses some.
const ATTACH_BACKLOG: usize = 256;
/// Read size: the capacity of a pipe.
const CHUNK: usize = 64 * 1024;

/// Paths of the FIFOs of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fifos {
    directory: PathBuf,
    /// Standard input, if it is wanted.
    pub stdin: Option<PathBuf>,
    /// Standard output.
    pub stdout: PathBuf,
    /// Standard error; a terminal has none.
    pub stderr: Option<PathBuf>,
}

impl Fifos {
    /// The FIFOs of the process `id` (a container, or `<container>-<exec>`), not made yet.
    pub fn new(run_dir: &Path, id: &str, stdin: bool, terminal: bool) -> Self {
        let directory = run_dir.join("io").join(id);
        Self {
            stdin: stdin.then(|| directory.join("stdin")),
            stdout: directory.join("stdout"),
            stderr: (!terminal).then(|| directory.join("stderr")),
            directory,
        }
    }

    /// Makes what is missing.
    pub fn create(&self) -> io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        for path in self.stdin.iter().chain([&self.stdout]).chain(&self.stderr) {
            match rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Removes them.
    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// As containerd wants it: a path, or nothing.
    pub fn uri(path: Option<&Path>) -> String {
        path.map(|path| path.display().to_string()).unwrap_or_default()
    }
}

/// Opens the reading end. Opened for both directions, it neither waits for a writer nor ends with the last one.
pub fn open_reader(path: &Path) -> io::Result<pipe::Receiver> {
    pipe::OpenOptions::new().read_write(true).open_receiver(path)
}

/// Opens the writing end, in both directions for the same reason.
pub fn open_writer(path: &Path) -> io::Result<pipe::Sender> {
    pipe::OpenOptions::new().read_write(true).open_sender(path)
}

/// Reads what is in the pipe this moment; 0: nothing. Asks the kernel itself: the async runtime may not have heard
/// yet of bytes that were written just before their writer ended.
pub fn read_rest(receiver: &pipe::Receiver, buffer: &mut [u8]) -> usize {
    loop {
        match rustix::io::read(receiver, &mut *buffer) {
            Ok(length) => return length,
            Err(Errno::INTR) => {}
            Err(_) => return 0,
        }
    }
}

/// Output of a running container.
pub struct ContainerIo {
    fifos: Fifos,
    output: broadcast::Sender<(Stream, Bytes)>,
    ended: CancellationToken,
    pumps: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

impl ContainerIo {
    /// Makes and opens the FIFOs and begins to copy output to the log.
    pub fn start(fifos: Fifos, log_path: &Path, rotation: Rotation) -> io::Result<Arc<Self>> {
        fifos.create()?;
        let log = Arc::new(Mutex::new(LogWriter::open(log_path, rotation)?));
        let (output, _) = broadcast::channel(ATTACH_BACKLOG);
        let ended = CancellationToken::new();
        let mut pumps = Vec::new();
        let sources = [(Stream::Stdout, Some(&fifos.stdout)), (Stream::Stderr, fifos.stderr.as_ref())];
        for (stream, path) in sources {
            let Some(path) = path else { continue };
            let receiver = open_reader(path)?;
            let pump =
                Pump { receiver, stream, log: log.clone(), output: output.clone(), ended: ended.clone() };
            pumps.push(tokio::spawn(pump.run()));
        }
        Ok(Arc::new(Self { fifos, output, ended, pumps: Mutex::new(pumps) }))
    }

    /// Output from now on, for an attached client.
    pub fn subscribe(&self) -> broadcast::Receiver<(Stream, Bytes)> {
        self.output.subscribe()
    }

    /// The writing end of standard input, if the container keeps it open.
    pub fn stdin(&self) -> io::Result<Option<pipe::Sender>> {
        self.fifos.stdin.as_deref().map(open_writer).transpose()
    }

    /// Resolves when the container's output has ended.
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// The container is gone: copies what is left, then removes the FIFOs.
    pub async fn finish(&self) {
        self.ended.cancel();
        let pumps = std::mem::take(&mut *lock(&self.pumps));
        for pump in pumps {
            // A panic in a pump is reported by the runtime; the log just ends.
            let _ = pump.await;
        }
        if let Err(error) = self.fifos.remove() {
            tracing::warn!(directory = %self.fifos.directory.display(), %error, "FIFOs not removed");
        }
    }
}

struct Pump {
    receiver: pipe::Receiver,
    stream: Stream,
    log: Arc<Mutex<LogWriter>>,
    output: broadcast::Sender<(Stream, Bytes)>,
    ended: CancellationToken,
}

impl Pump {
    async fn run(self) {
        let mut buffer = vec![0; CHUNK];
        loop {
            while let Ok(length) = self.receiver.try_read(&mut buffer)
                && length > 0
            {
                self.deliver(&buffer[..length]);
            }
            if self.ended.is_cancelled() {
                break;
            }
            tokio::select! {
                readable = self.receiver.readable() => if readable.is_err() { return },
                () = self.ended.cancelled() => {}
            }
        }
        loop {
            let length = read_rest(&self.receiver, &mut buffer);
            if length == 0 {
                return;
            }
            self.deliver(&buffer[..length]);
        }
    }

    fn deliver(&self, chunk: &[u8]) {
        if let Err(error) = lock(&self.log).write(Timestamp::now(), self.stream, chunk) {
            tracing::warn!(%error, "container log not written");
        }
        // Nobody attached is the ordinary case.
        let _ = self.output.send((self.stream, Bytes::copy_from_slice(chunk)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn output_survives_a_change_of_reader() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("0.log");
        let rotation = Rotation { max_bytes: 1 << 20, max_files: 2 };
        let fifos = Fifos::new(directory.path(), "c", false, false);
        let io = ContainerIo::start(fifos.clone(), &log, rotation).unwrap();
        // The shim's ends.
        let mut writer = std::fs::OpenOptions::new().read(true).write(true).open(&fifos.stdout).unwrap();
        let mut attached = io.subscribe();
        writer.write_all(b"one\n").unwrap();
        assert_eq!(attached.recv().await.unwrap().1, "one\n");
        // The agent dies: its pumps stop, nothing is removed.
        for pump in std::mem::take(&mut *lock(&io.pumps)) {
            pump.abort();
        }
        drop(io);
        writer.write_all(b"two\n").unwrap();
        let io = ContainerIo::start(fifos, &log, rotation).unwrap();
        writer.write_all(b"three\n").unwrap();
        io.finish().await;
        let text = std::fs::read_to_string(&log).unwrap();
        let lines: Vec<_> = text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert_eq!(lines, ["one", "two", "three"]);
        assert!(!directory.path().join("io/c").exists());
    }
}
