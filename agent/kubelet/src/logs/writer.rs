//! Appends container output to its log file and rotates it. Writes are plain `write(2)` on the caller's thread: the
//! page cache takes them, and nothing that was read from a container waits in memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::format::{Stream, encode};

/// Size and number of a container instance's log files.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// A file at least this large is rotated, in bytes.
    pub max_bytes: u64,
    /// Files kept, the one being written included.
    pub max_files: u32,
}

/// The log of one container instance.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: File,
    size: u64,
    rotation: Rotation,
    buffer: Vec<u8>,
}

impl LogWriter {
    /// Opens the log for appending; makes it and its directory if needed.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, rotation, buffer: Vec::new() })
    }

    /// Appends a piece of output.
    pub fn write(&mut self, now: Timestamp, stream: Stream, chunk: &[u8]) -> io::Result<()> {
        self.buffer.clear();
        encode(&mut self.buffer, now, stream, chunk);
        self.file.write_all(&self.buffer)?;
        self.size += self.buffer.len() as u64;
        if self.size >= self.rotation.max_bytes { self.rotate(now) } else { Ok(()) }
    }

    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        let stamp = now.strftime("%Y%m%d-%H%M%S%.6f");
        fs::rename(&self.path, format!("{}.{stamp}", self.path.display()))?;
        self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        self.size = 0;
        let mut old = rotated(&self.path)?;
        let keep = self.rotation.max_files.saturating_sub(1) as usize;
        old.truncate(old.len().saturating_sub(keep));
        for path in old {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// Rotated files of a log, oldest first.
pub fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let Some((directory, name)) = path.parent().zip(path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{name}.");
    let mut list: Vec<PathBuf> = fs::read_dir(directory)?
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|file| file.starts_with(&prefix)))
        .map(|entry| entry.path())
        .collect();
    list.sort();
    Ok(list)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_full_file_is_rotated_and_old_ones_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ns_pod_uid/c/0.log");
        let mut writer = LogWriter::open(&path, Rotation { max_bytes: 100, max_files: 3 }).unwrap();
        for second in 0..12 {
            let now = Timestamp::from_second(second).unwrap();
            writer.write(now, Stream::Stdout, format!("line {second}\n").as_bytes()).unwrap();
        }
        assert_eq!(rotated(&path).unwrap().len(), 2);
        assert!(fs::metadata(&path).unwrap().len() < 100);
        drop(writer);
        let reopened = LogWriter::open(&path, Rotation { max_bytes: 100, max_files: 3 }).unwrap();
        assert_eq!(reopened.size, fs::metadata(&path).unwrap().len(), "appends after a restart");
    }
}
