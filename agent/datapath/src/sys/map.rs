//! Maps by descriptor: elements one at a time and in batches, as bytes. Sizes are those that the kernel names, so that no buffer is ever
//! shorter than what the kernel reads or writes.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::{bpf, bpf_fd, object_info};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;

const BPF_MAP_TYPE_PERCPU_HASH: u32 = 5;
const BPF_MAP_TYPE_PERCPU_ARRAY: u32 = 6;
const BPF_MAP_TYPE_LRU_PERCPU_HASH: u32 = 10;

/// `BPF_ANY`: insert or replace.
pub const BPF_ANY: u64 = 0;
/// `BPF_NOEXIST`: insert only.
pub const BPF_NOEXIST: u64 = 1;

/// Elements of a batch: more than any bucket's chain is long, few enough to be had at once.
const BATCH: usize = 4096;

/// What the kernel says of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapInfo {
    /// `enum bpf_map_type`.
    pub kind: u32,
    /// Number among all maps of the machine, never given twice.
    pub id: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value, of one CPU.
    pub value_size: u32,
    /// Room for entries.
    pub max_entries: u32,
    /// Flags of its creation.
    pub flags: u32,
}

/// A map.
#[derive(Debug)]
pub struct RawMap {
    fd: OwnedFd,
    info: MapInfo,
    /// Bytes of a value as commands move it: for per-CPU maps, of all CPUs.
    value_bytes: usize,
    batches: bool,
}

#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    _pad: u32,
    key: u64,
    /// The value, or the next key.
    value: u64,
    flags: u64,
}

#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

impl RawMap {
    /// The map pinned at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::new(super::get(path)?)
    }

    /// A map with the attributes of `info` (its id is ignored), not pinned.
    pub fn create(name: &str, info: &MapInfo) -> io::Result<Self> {
        #[repr(C)]
        struct Attr {
            map_type: u32,
            key_size: u32,
            value_size: u32,
            max_entries: u32,
            map_flags: u32,
            inner_map_fd: u32,
            numa_node: u32,
            map_name: [u8; 16],
        }
        let name = CString::new(name)?;
        let mut map_name = [0; 16];
        // The last byte stays zero (BPF_OBJ_NAME_LEN).
        map_name.iter_mut().zip(name.as_bytes()).take(15).for_each(|(to, from)| *to = *from);
        let mut attr = Attr {
            map_type: info.kind,
            key_size: info.key_size,
            value_size: info.value_size,
            max_entries: info.max_entries,
            map_flags: info.flags,
            inner_map_fd: 0,
            numa_node: 0,
            map_name,
        };
        Self::new(bpf_fd(BPF_MAP_CREATE, &mut attr)?)
    }

    fn new(fd: OwnedFd) -> io::Result<Self> {
        let info = map_info(fd.as_fd())?;
        let per_cpu = [BPF_MAP_TYPE_PERCPU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_LRU_PERCPU_HASH];
        let value_bytes = if per_cpu.contains(&info.kind) {
            (info.value_size as usize).next_multiple_of(8) * possible_cpus()?
        } else {
            info.value_size as usize
        };
        Ok(Self { fd, info, value_bytes, batches: true })
    }

    /// The same without batches, as on a kernel that has none for this kind of map.
    #[cfg(test)]
    pub fn without_batches(mut self) -> Self {
        self.batches = false;
        self
    }

    /// What the kernel said when the map was opened.
    pub fn info(&self) -> &MapInfo {
        &self.info
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Bytes of a key.
    pub fn key_bytes(&self) -> usize {
        self.info.key_size as usize
    }

    /// Bytes of a value as commands move it.
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// Copies the value under `key` to `value`; `false` if there is none.
    pub fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.check(key, Some(value))?;
        found(self.element(BPF_MAP_LOOKUP_ELEM, key.as_ptr() as u64, value.as_mut_ptr() as u64, 0))
    }

    /// Writes one element. With [`BPF_NOEXIST`], `AlreadyExists` if the key is there.
    pub fn update(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
        self.check(key, Some(value))?;
        self.element(BPF_MAP_UPDATE_ELEM, key.as_ptr() as u64, value.as_ptr() as u64, flags)
    }

    /// Deletes one element; `false` if there is none.
    pub fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.check(key, None)?;
        found(self.element(BPF_MAP_DELETE_ELEM, key.as_ptr() as u64, 0, 0))
    }

    /// Calls `visit` with each key and value. An element that moves meanwhile may be missed or seen twice.
    pub fn each(&self, mut visit: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        if !self.batches {
            return self.each_alone(visit);
        }
        let (key_bytes, value_bytes) = (self.key_bytes(), self.value_bytes);
        // Values of all CPUs may be large: about a megabyte at a time.
        let count = BATCH.min((1 << 20) / value_bytes.max(1)).max(64);
        let (mut keys, mut values) = (vec![0; count * key_bytes], vec![0; count * value_bytes]);
        // A bucket's number or a key, whatever the kind of map resumes from.
        let (mut from, mut to) = (vec![0; key_bytes.max(8)], vec![0; key_bytes.max(8)]);
        let mut begun = false;
        loop {
            let mut attr = BatchAttr {
                in_batch: if begun { from.as_ptr() as u64 } else { 0 },
                out_batch: to.as_mut_ptr() as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: count as u32,
                map_fd: self.fd.as_raw_fd() as u32,
                elem_flags: 0,
                flags: 0,
            };
            let result = bpf(BPF_MAP_LOOKUP_BATCH, &mut attr);
            let last = match result {
                Ok(_) => false,
                // The end was met after `count` elements.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                Err(error) if !begun && unsupported(&error) => return self.each_alone(visit),
                Err(error) => return Err(error),
            };
            let elements = (attr.count as usize).min(count);
            let pairs = keys.chunks_exact(key_bytes).zip(values.chunks_exact(value_bytes));
            pairs.take(elements).for_each(|(key, value)| visit(key, value));
            if last {
                return Ok(());
            }
            begun = true;
            std::mem::swap(&mut from, &mut to);
        }
    }

    fn each_alone(&self, mut visit: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        let (mut key, mut next) = (None, vec![0; self.key_bytes()]);
        let mut value = vec![0; self.value_bytes];
        loop {
            let from = key.as_ref().map_or(0, |key: &Vec<u8>| key.as_ptr() as u64);
            if !found(self.element(BPF_MAP_GET_NEXT_KEY, from, next.as_mut_ptr() as u64, 0))? {
                return Ok(());
            }
            if self.lookup(&next, &mut value)? {
                visit(&next, &value);
            }
            key = Some(next.clone());
        }
    }

    /// Writes `values[i]` under `keys[i]`, in order: whole elements of one number.
    pub fn update_all(&self, keys: &[u8], values: &[u8]) -> io::Result<()> {
        let count = self.count(keys)?;
        if values.len() != count * self.value_bytes {
            return Err(uneven());
        }
        if count == 0 {
            return Ok(());
        }
        if self.batches {
            let mut attr = self.batch(keys, count);
            attr.values = values.as_ptr() as u64;
            match bpf(BPF_MAP_UPDATE_BATCH, &mut attr) {
                Err(error) if unsupported(&error) => {}
                result => return result.map(drop),
            }
        }
        let mut pairs = keys.chunks_exact(self.key_bytes()).zip(values.chunks_exact(self.value_bytes));
        pairs.try_for_each(|(key, value)| self.update(key, value, BPF_ANY))
    }

    /// Deletes the elements under these keys; returns how many were there.
    pub fn delete_all(&self, keys: &[u8]) -> io::Result<usize> {
        let mut left = self.count(keys)?;
        let mut deleted = 0;
        while self.batches && left > 0 {
            let rest = &keys[keys.len() - left * self.key_bytes()..];
            let mut attr = self.batch(rest, left);
            let result = bpf(BPF_MAP_DELETE_BATCH, &mut attr);
            let done = (attr.count as usize).min(left);
            match result {
                Ok(_) => return Ok(deleted + done),
                // The kernel stops at a key that is not there: go on behind it.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) && done < left => {
                    deleted += done;
                    left -= done + 1;
                }
                Err(error) if unsupported(&error) => break,
                Err(error) => return Err(error),
            }
        }
        for key in keys[keys.len() - left * self.key_bytes()..].chunks_exact(self.key_bytes()) {
            deleted += usize::from(self.delete(key)?);
        }
        Ok(deleted)
    }

    fn batch(&self, keys: &[u8], count: usize) -> BatchAttr {
        BatchAttr {
            in_batch: 0,
            out_batch: 0,
            keys: keys.as_ptr() as u64,
            values: 0,
            count: count as u32,
            map_fd: self.fd.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        }
    }

    fn element(&self, command: libc::c_long, key: u64, value: u64, flags: u64) -> io::Result<()> {
        let mut attr = ElementAttr { map_fd: self.fd.as_raw_fd() as u32, _pad: 0, key, value, flags };
        bpf(command, &mut attr).map(drop)
    }

    fn check(&self, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        let whole =
            key.len() == self.key_bytes() && value.is_none_or(|value| value.len() == self.value_bytes);
        if whole { Ok(()) } else { Err(uneven()) }
    }

    fn count(&self, keys: &[u8]) -> io::Result<usize> {
        let whole = keys.len().is_multiple_of(self.key_bytes());
        if whole { Ok(keys.len() / self.key_bytes()) } else { Err(uneven()) }
    }
}

/// Whether the kernel has the batch commands: asked with a map that does not exist, which a kernel that has them notices.
pub fn has_batches() -> bool {
    let mut attr = BatchAttr {
        in_batch: 0,
        out_batch: 0,
        keys: 0,
        values: 0,
        count: 1,
        map_fd: u32::MAX,
        elem_flags: 0,
        flags: 0,
    };
    bpf(BPF_MAP_LOOKUP_BATCH, &mut attr).is_err_and(|error| error.raw_os_error() == Some(libc::EBADF))
}

fn uneven() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "keys and values must be whole elements of the map")
}

fn found(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the kernel lacks the command, or has it not for this kind of map (`ENOTSUPP`, which libc does not know).
fn unsupported(error: &io::Error) -> bool {
    const ENOTSUPP: i32 = 524;
    matches!(error.raw_os_error(), Some(ENOTSUPP | libc::EOPNOTSUPP | libc::EINVAL))
}

fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    /// The beginning of `struct bpf_map_info`.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
    }
    let mut info = Info::default();
    object_info(map, &mut info)?;
    Ok(MapInfo {
        kind: info.kind,
        id: info.id,
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries: info.max_entries,
        flags: info.map_flags,
    })
}

/// How many values a per-CPU element has: one for each CPU that may ever come up.
fn possible_cpus() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit([',', '-']).next().and_then(|last| last.parse::<usize>().ok());
    last.map(|last| last + 1).ok_or_else(|| io::Error::other(format!("possible CPUs: {text:?}")))
}
