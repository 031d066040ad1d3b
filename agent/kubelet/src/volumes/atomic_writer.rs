//! Replaces a set of files at once: a reader sees either the old set or the new one.
//!
//! Layout as upstream's: `..<time>/` holds the files, `..data` links to it, and each top-level name links through
//! `..data`. A new set is a new directory and one rename.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::Path;

use jiff::Timestamp;

/// One file of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Contents.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// Files by path relative to the volume, e.g. `tls/cert.pem`.
pub type Files = BTreeMap<String, File>;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Makes `directory` hold exactly `files`. Gives false when it did already. `group`: owner group of the files.
pub fn write(directory: &Path, files: &Files, group: Option<u32>, now: Timestamp) -> io::Result<bool> {
    let current = fs::read_link(directory.join(DATA)).ok();
    if current.as_ref().is_some_and(|current| same(&directory.join(current), files)) {
        return Ok(false);
    }
    let stamp = format!("..{}", now.strftime("%Y_%m_%d_%H_%M_%S.%9f"));
    let fresh = directory.join(&stamp);
    write_set(&fresh, files, group)?;
    let temporary = directory.join(DATA_NEW);
    remove_if_there(&temporary)?;
    symlink(&stamp, &temporary)?;
    fs::rename(&temporary, directory.join(DATA))?;
    link_names(directory, files)?;
    if let Some(old) = current.filter(|old| *old != Path::new(&stamp)) {
        fs::remove_dir_all(directory.join(old))?;
    }
    Ok(true)
}

fn write_set(fresh: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    let directory = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    directory(fresh)?;
    for (name, file) in files {
        let path = fresh.join(name);
        if let Some(parent) = path.parent() {
            directory(parent)?;
        }
        fs::write(&path, &file.bytes)?;
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        if group.is_some() {
            std::os::unix::fs::chown(&path, None, group)?;
        }
    }
    Ok(())
}

/// Links the first component of each path through `..data`; removes links of names that are gone.
fn link_names(directory: &Path, files: &Files) -> io::Result<()> {
    let wanted: std::collections::BTreeSet<OsString> =
        files.keys().filter_map(|name| name.split('/').next()).map(OsString::from).collect();
    for name in &wanted {
        let link = directory.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(directory)?.flatten() {
        let name = entry.file_name();
        let ours = name.to_string_lossy().starts_with("..");
        if !ours && !wanted.contains(&name) && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether a set on disk has these contents and modes and nothing else.
fn same(set: &Path, files: &Files) -> bool {
    let unchanged = |(name, file): (&String, &File)| {
        fs::read(set.join(name)).is_ok_and(|bytes| bytes == file.bytes)
            && fs::metadata(set.join(name))
                .is_ok_and(|meta| meta.permissions().mode() & file.mode == file.mode)
    };
    files.iter().all(unchanged) && count(set) == Some(files.len())
}

fn count(directory: &Path) -> Option<usize> {
    let mut total = 0;
    for entry in fs::read_dir(directory).ok()? {
        let entry = entry.ok()?;
        total += if entry.file_type().ok()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Some(total)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter()
            .map(|(name, text)| ((*name).to_owned(), File { bytes: text.as_bytes().into(), mode: 0o644 }))
            .collect()
    }

    #[test]
    fn sets_replace_each_other_and_equal_ones_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(write(root, &files(&[("a", "1"), ("d/b", "2")]), None, at(1)).unwrap());
        assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(root.join("d/b")).unwrap(), "2");
        assert!(!write(root, &files(&[("a", "1"), ("d/b", "2")]), None, at(2)).unwrap());
        assert!(write(root, &files(&[("a", "3")]), None, at(3)).unwrap());
        assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "3");
        assert!(!root.join("d").exists());
        let names: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 3, "{names:?}: one set, ..data and a");
        assert!(write(root, &Files::new(), None, at(4)).unwrap());
        assert!(!root.join("a").exists());
    }
}
