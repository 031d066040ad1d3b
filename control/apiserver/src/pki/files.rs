//! How certificate files reach the disk: whole or not at all, keys readable by their owner alone.
//!
//! Knows nothing of what the files hold.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::PkiError;

/// Makes `dir` (and its parents) for its owner alone.
pub(super) fn create_private_dir(dir: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| PkiError::File {
        action: "create directory",
        path: dir.to_path_buf(),
        source,
    })
}

/// Reads `path`; `None` when there is no such file.
pub(super) fn read_if_present(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File { action: "read", path: path.to_path_buf(), source }),
    }
}

/// Replaces `path` by `content` in one step, mode 0600.
pub(super) fn write_private(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    replace(path, content, 0o600)
}

/// Replaces `path` by `content` in one step, mode 0644.
pub(super) fn write_public(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    replace(path, content, 0o644)
}

fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), PkiError> {
    let failed = |source| PkiError::File { action: "write", path: path.to_path_buf(), source };
    // Several processes may write at once (`issue-node` beside a running server): the name carries the pid.
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|source| {
        let _ = fs::remove_file(&temporary);
        failed(source)
    })
}
