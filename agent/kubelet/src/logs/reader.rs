//! Reads a container's log for `kubectl logs`: tail, since, timestamps, limit, and following through rotation until
//! the container has ended. Only the file being written is read at the start, as upstream does.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc::Sender;

use super::format::{Stream, parse};
use super::writer::rotated;

/// How often a follower looks whether the container still runs, when nothing is written.
const LIVENESS_CHECK: Duration = Duration::from_secs(1);

/// What to show of a log; the query of `/containerLogs`.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// Only records at or after this time.
    pub since: Option<Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
    /// Only one of the outputs.
    pub stream: Option<Stream>,
}

/// Sends the log's bytes to `out` until its end, or as long as `alive` says when following. Ends early without an
/// error when the reader at the other end goes away.
pub async fn send(
    path: &Path,
    options: &LogOptions,
    alive: impl Fn() -> bool,
    out: &Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut watch = if options.follow { Some(Watch::new(path)?) } else { None };
    let mut printer = Printer::new(options);
    let start = match options.tail_lines {
        Some(lines) => tail_offset(&mut std::fs::File::open(path)?, lines, options.stream)?,
        None => 0,
    };
    let mut file = tokio::fs::File::open(path).await?;
    file.seek(SeekFrom::Start(start)).await?;
    let mut inode = file.metadata().await?.ino();
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        // Both asked before reading: what was written before them is then surely read.
        let was_alive = alive();
        let newer = newer_file(path, inode);
        while reader.read_until(b'\n', &mut line).await? > 0 && line.ends_with(b"\n") {
            let (bytes, done) = printer.print(&line);
            line.clear();
            if (!bytes.is_empty() && out.send(Ok(bytes)).await.is_err()) || done {
                return Ok(());
            }
        }
        let Some(watch) = watch.as_mut() else { return Ok(()) };
        if let Some(newer) = newer {
            let file = tokio::fs::File::open(newer).await?;
            inode = file.metadata().await?.ino();
            reader = BufReader::new(file);
            line.clear();
            continue;
        }
        if !was_alive {
            return Ok(());
        }
        tokio::select! {
            () = watch.changed() => {}
            () = tokio::time::sleep(LIVENESS_CHECK) => {}
            () = out.closed() => return Ok(()),
        }
    }
}

/// The log file that follows the one with `inode`, if that has been rotated away.
fn newer_file(path: &Path, inode: u64) -> Option<PathBuf> {
    let inode_of = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.ino()).ok();
    if inode_of(path)? == inode {
        return None;
    }
    let mut files = rotated(path).unwrap_or_default();
    files.push(path.to_owned());
    // One that is gone already was older than all that are left.
    let position = files.iter().position(|file| inode_of(file) == Some(inode));
    files.into_iter().nth(position.map_or(0, |position| position + 1))
}

struct Watch(inotify::EventStream<[u8; 1024]>);

impl Watch {
    /// The directory is watched, to see the new file of a rotation.
    fn new(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let directory = path.parent().unwrap_or(path);
        inotify.watches().add(directory, WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO)?;
        Ok(Self(inotify.into_event_stream([0; 1024])?))
    }

    async fn changed(&mut self) {
        if self.0.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Turns records into what is shown.
struct Printer<'a> {
    options: &'a LogOptions,
    inside_line: bool,
    left: Option<u64>,
    /// Lines still to show: what is written while a tail is read is none of it, unless it is followed.
    lines: Option<u64>,
}

impl<'a> Printer<'a> {
    fn new(options: &'a LogOptions) -> Self {
        let lines = options.tail_lines.filter(|_| !options.follow);
        Self { options, inside_line: false, left: options.limit_bytes, lines }
    }

    /// The bytes to show for one record, and whether the limit is reached.
    fn print(&mut self, line: &[u8]) -> (Bytes, bool) {
        if self.lines == Some(0) {
            return (Bytes::new(), true);
        }
        let Some(record) = parse(line) else { return (Bytes::new(), false) };
        if self.options.stream.is_some_and(|stream| stream != record.stream) || !self.recent(record.time) {
            return (Bytes::new(), false);
        }
        let mut text = Vec::with_capacity(line.len());
        if self.options.timestamps && !self.inside_line {
            text.extend_from_slice(record.time.as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(record.payload);
        if record.full {
            text.push(b'\n');
        }
        self.inside_line = !record.full;
        let mut done = false;
        if let Some(left) = self.left.as_mut() {
            let take = (text.len() as u64).min(*left);
            text.truncate(take as usize);
            *left -= take;
            done = *left == 0;
        }
        if record.full
            && let Some(lines) = self.lines.as_mut()
        {
            *lines -= 1;
            done |= *lines == 0;
        }
        (text.into(), done)
    }

    fn recent(&self, time: &str) -> bool {
        self.options.since.is_none_or(|since| time.parse::<Timestamp>().is_ok_and(|time| time >= since))
    }
}

/// Where the last `lines` lines begin. Reads blocks from the end, each twice as long as the one before.
fn tail_offset(file: &mut std::fs::File, lines: u64, stream: Option<Stream>) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut size = 64 * 1024;
    loop {
        let start = length.saturating_sub(size);
        file.seek(SeekFrom::Start(start))?;
        let mut block = Vec::new();
        file.by_ref().take(length - start).read_to_end(&mut block)?;
        if let Some(offset) = line_start(&block, lines, stream, start == 0) {
            return Ok(start + offset);
        }
        size *= 2;
    }
}

/// Offset in `block` of the record that begins the last `lines` lines; `None` when the block is too short to tell.
/// `whole`: the block begins at the beginning of the file.
fn line_start(block: &[u8], lines: u64, stream: Option<Stream>, whole: bool) -> Option<u64> {
    let mut offset = 0;
    // Ends of full lines, and whether an unfinished one follows.
    let mut ends = Vec::new();
    let mut open = false;
    for (index, record) in block.split_inclusive(|byte| *byte == b'\n').enumerate() {
        offset += record.len();
        if index == 0 && !whole {
            continue; // may be the second half of a record
        }
        let Some(parsed) = parse(record).filter(|parsed| stream.is_none_or(|stream| stream == parsed.stream))
        else {
            continue;
        };
        open = !parsed.full;
        if parsed.full {
            ends.push(offset as u64);
        }
    }
    let wanted = lines.saturating_sub(u64::from(open)) as usize;
    if lines == 0 {
        return Some(block.len() as u64);
    }
    match ends.len().checked_sub(wanted + 1) {
        Some(before) => Some(ends[before]),
        None => whole.then_some(0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::logs::format::encode;
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn log(chunks: &[(i64, Stream, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (second, stream, text) in chunks {
            encode(&mut out, Timestamp::from_second(*second).unwrap(), *stream, text.as_bytes());
        }
        out
    }

    async fn read(content: &[u8], options: LogOptions) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1000);
        send(file.path(), &options, || false, &sender).await.unwrap();
        drop(sender);
        let mut text = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            text.extend_from_slice(&chunk.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn options_select_what_is_shown() {
        let (out, err) = (Stream::Stdout, Stream::Stderr);
        let content =
            log(&[(1, out, "one\n"), (2, err, "two\n"), (3, out, "thr"), (4, out, "ee\n"), (5, out, "end")]);
        let options = LogOptions::default;
        let table = [
            (options(), "one\ntwo\nthree\nend"),
            (LogOptions { tail_lines: Some(2), ..options() }, "three\nend"),
            (LogOptions { tail_lines: Some(0), ..options() }, ""),
            (LogOptions { tail_lines: Some(99), ..options() }, "one\ntwo\nthree\nend"),
            (LogOptions { since: Some(Timestamp::from_second(3).unwrap()), ..options() }, "three\nend"),
            (LogOptions { limit_bytes: Some(5), ..options() }, "one\nt"),
            (LogOptions { stream: Some(err), ..options() }, "two\n"),
            (
                LogOptions { timestamps: true, tail_lines: Some(3), stream: Some(out), ..options() },
                "1970-01-01T00:00:01.000000000Z one\n1970-01-01T00:00:03.000000000Z three\n1970-01-01T00:00:05.000000000Z end",
            ),
        ];
        for (options, expected) in table {
            let shown = format!("{options:?}");
            assert_eq!(read(&content, options).await, expected, "{shown}");
        }
    }

    #[test]
    fn a_tail_ends_with_its_lines_whatever_is_written_meanwhile() {
        let options = LogOptions { tail_lines: Some(1), ..LogOptions::default() };
        let mut printer = Printer::new(&options);
        let content = log(&[(1, Stream::Stdout, "asked for\n"), (2, Stream::Stdout, "written meanwhile\n")]);
        let text = content.as_slice();
        let shown: Vec<_> =
            text.split_inclusive(|byte| *byte == b'\n').map(|line| printer.print(line)).collect();
        assert_eq!(shown, [(Bytes::from("asked for\n"), true), (Bytes::new(), true)]);
    }

    #[tokio::test]
    async fn tail_finds_lines_beyond_the_first_block() {
        let line = "x".repeat(1000) + "\n";
        let content = log(&vec![(1, Stream::Stdout, line.as_str()); 300]);
        let shown = read(&content, LogOptions { tail_lines: Some(200), ..LogOptions::default() }).await;
        assert_eq!(shown.lines().count(), 200);
    }

    #[tokio::test]
    async fn following_survives_rotation_and_ends_with_the_container() {
        use crate::logs::writer::{LogWriter, Rotation};
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut writer = LogWriter::open(&path, Rotation { max_bytes: 300, max_files: 2 }).unwrap();
        let alive = std::sync::Arc::new(AtomicBool::new(true));
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1000);
        let task = tokio::spawn({
            let (path, alive) = (path.clone(), alive.clone());
            async move {
                let options = LogOptions { follow: true, ..LogOptions::default() };
                send(&path, &options, || alive.load(Ordering::SeqCst), &sender).await
            }
        });
        let mut shown = String::new();
        for number in 0..20 {
            writer.write(Timestamp::now(), Stream::Stdout, format!("line {number}\n").as_bytes()).unwrap();
            shown.push_str(std::str::from_utf8(&receiver.recv().await.unwrap().unwrap()).unwrap());
        }
        // The order in which it happens: what a container has said is written before its end is known.
        writer.write(Timestamp::now(), Stream::Stdout, b"last\n").unwrap();
        alive.store(false, Ordering::SeqCst);
        while let Some(chunk) = receiver.recv().await {
            shown.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
        task.await.unwrap().unwrap();
        assert_eq!(shown.lines().count(), 21, "{shown}");
    }
}
