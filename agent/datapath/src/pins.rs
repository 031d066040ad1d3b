//! Where tables are pinned, which of them the attached programs use, and which a build with other layouts has left.
//!
//! A pin's name is that of the map and its layout ([`MapSpec::layout`]), so builds share every table whose layout they agree on. Which of
//! two layouts of a map is in use is asked from the kernel, never noted down: it is the one that the programs inside the pinned links name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use abi::maps::{
    AFF4, AFF6, AFFSK, EPSEEN4, EPSEEN6, FLOW4, FLOW4_NEXT, FLOW6, FLOW6_NEXT, FLOWQ4, FLOWQ6, MAPS, MapKind,
    MapSpec, SKSLOT,
};

use crate::links::Links;
use crate::sys::{self, MapInfo, RawMap};

/// Digits of a layout in a pin's name.
const DIGITS: usize = 16;

/// Tables in which programs keep connections. While hooks change over, programs of two builds are at work, and a connection that opens then
/// must be known to both: so these are shared as long as the sizes agree, which the rule of [`MapSpec::layout`] allows.
const CONNECTIONS: &[MapSpec] = &[FLOW4, FLOW6, FLOWQ4, FLOWQ6, AFF4, AFF6, AFFSK, EPSEEN4, EPSEEN6, SKSLOT];

/// The pinned tables below one directory of a BPF filesystem.
#[derive(Debug, Clone)]
pub struct Pins {
    directory: PathBuf,
    salt: u64,
}

/// A table of another layout whose entries the table of this build needs.
#[derive(Debug)]
pub struct Predecessor {
    /// The map.
    pub spec: &'static MapSpec,
    /// Pin of the old table.
    pub old: PathBuf,
}

impl Pins {
    /// The tables below `bpf_dir`, of this build's layouts or of those that `salt` makes of them.
    pub fn new(bpf_dir: &Path, salt: u64) -> Self {
        Self { directory: bpf_dir.join("maps"), salt }
    }

    /// Makes the directory.
    pub fn create(&self) -> io::Result<()> {
        fs::create_dir_all(&self.directory)
    }

    /// Where this build pins a map.
    pub fn path(&self, spec: &MapSpec) -> PathBuf {
        self.directory.join(format!("{}-{:016x}", spec.name, self.layout(spec)))
    }

    /// Layout of a map. What cannot be carried over keeps its layout whatever the salt.
    fn layout(&self, spec: &MapSpec) -> u64 {
        let salt = if spec.kind == MapKind::SocketStorage { 0 } else { self.salt };
        spec.layout() ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Layout of all maps together, as `abi::Control::layout` has it.
    pub fn layout_of_all(&self) -> u64 {
        abi::LAYOUT ^ self.salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Pins of a map in other layouts.
    pub fn others(&self, spec: &MapSpec) -> Vec<PathBuf> {
        let own = self.path(spec);
        let of_map = |path: &PathBuf| name_of(path).is_some_and(|name| name == spec.name) && *path != own;
        self.all().into_iter().filter(of_map).collect()
    }

    /// All pins whose names are those of tables.
    fn all(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| name_of(path).is_some()).collect()
    }

    /// Finds out what has to be carried over. A pin of this build's layout that no attached program uses while one of another layout is
    /// in use was left by an upgrade that did not happen, or was undone: it is removed and will be made anew.
    pub fn predecessors(&self, links: &Links) -> io::Result<Vec<Predecessor>> {
        let live = links.maps_in_use();
        let in_use = |path: &Path| id(path).is_some_and(|id| live.contains(&id));
        let mut found = Vec::new();
        for spec in MAPS.iter().filter(|spec| spec.kind != MapKind::SocketStorage && !is_next(spec)) {
            let (own, others) = (self.path(spec), self.others(spec));
            let replaced = others.iter().filter(|path| in_use(path)).max_by_key(|path| id(path));
            let old = match replaced {
                Some(old) if !in_use(&own) => {
                    if own.exists() {
                        fs::remove_file(&own)?;
                    }
                    Some(old)
                }
                // Programs of both layouts are attached: an upgrade was interrupted. Its tables are complete.
                Some(_) => None,
                None if own.exists() => None,
                None => others.iter().max_by_key(|path| id(path)),
            };
            let Some(old) = old else { continue };
            if !self.share(spec, old)? {
                found.push(Predecessor { spec, old: old.clone() });
            }
            // Its programs may have ended in the middle of growing.
            let next =
                [(FLOW4, FLOW4_NEXT), (FLOW6, FLOW6_NEXT)].into_iter().find(|(map, _)| map.name == spec.name);
            let next = next.map(|(_, next)| self.others(&next)).unwrap_or_default();
            found.extend(next.into_iter().map(|old| Predecessor { spec, old }));
        }
        Ok(found)
    }

    /// Pins a table of connections of another layout under this build's name as well, if it has the same form; says whether it did.
    fn share(&self, spec: &MapSpec, old: &Path) -> io::Result<bool> {
        if !CONNECTIONS.iter().any(|one| one.name == spec.name) {
            return Ok(false);
        }
        let map = RawMap::open(old)?;
        let info = map.info();
        let same = kind_of(spec.kind).is_some_and(|(kind, _)| kind == info.kind)
            && (info.key_size, info.value_size) == (spec.key_size as u32, spec.value_size as u32);
        if same {
            sys::pin(map.fd(), &self.path(spec))?;
        }
        Ok(same)
    }

    /// The pin of a map as an observer finds it: of this build's layout, or else the one that attached programs use.
    pub fn current(&self, spec: &MapSpec, live: &HashSet<u32>) -> PathBuf {
        let own = self.path(spec);
        let in_use = |path: &PathBuf| id(path).is_some_and(|id| live.contains(&id));
        if in_use(&own) {
            return own;
        }
        self.others(spec).into_iter().find(in_use).unwrap_or(own)
    }

    /// Makes and pins the maps that are not there.
    pub fn make_missing(
        &self,
        entries: &BTreeMap<&'static str, u32>,
    ) -> Result<(), (&'static str, io::Error)> {
        let missing = |spec: &&MapSpec| !is_next(spec) && !self.path(spec).exists();
        for spec in MAPS.iter().filter(missing) {
            let Some((kind, flags)) = kind_of(spec.kind) else { continue };
            let info = MapInfo {
                kind,
                id: 0,
                key_size: spec.key_size as u32,
                value_size: spec.value_size as u32,
                max_entries: entries.get(spec.name).copied().unwrap_or(spec.entries as u32),
                flags,
            };
            let made = RawMap::create(spec.name, &info);
            made.and_then(|map| sys::pin(map.fd(), &self.path(spec))).map_err(|error| (spec.name, error))?;
        }
        Ok(())
    }

    /// Removes the pins of other layouts; returns how many there were.
    pub fn forget_others(&self) -> io::Result<usize> {
        let own: HashSet<PathBuf> = MAPS.iter().map(|spec| self.path(spec)).collect();
        let others: Vec<PathBuf> = self.all().into_iter().filter(|path| !own.contains(path)).collect();
        others.iter().try_for_each(fs::remove_file)?;
        Ok(others.len())
    }
}

/// Whether a map exists only while flow tables grow.
pub fn is_next(spec: &MapSpec) -> bool {
    spec.name == FLOW4_NEXT.name || spec.name == FLOW6_NEXT.name
}

/// `enum bpf_map_type` and flags of creation; `None` for what needs the object's BTF.
fn kind_of(kind: MapKind) -> Option<(u32, u32)> {
    const BPF_F_NO_PREALLOC: u32 = 1 << 0;
    const BPF_F_MMAPABLE: u32 = 1 << 10;
    Some(match kind {
        MapKind::Hash => (1, 0),
        MapKind::MappedArray => (2, BPF_F_MMAPABLE),
        MapKind::PerCpuArray => (6, 0),
        MapKind::LruHash => (9, 0),
        MapKind::LpmTrie => (11, BPF_F_NO_PREALLOC),
        MapKind::SocketStorage => return None,
    })
}

/// Name of the map whose pin this is.
fn name_of(path: &Path) -> Option<&str> {
    let (name, layout) = path.file_name()?.to_str()?.rsplit_once('-')?;
    let is_layout = layout.len() == DIGITS && layout.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_layout && name.starts_with("bl1_")).then_some(name)
}

/// The kernel's number of a pinned map; of two, the larger was made later.
fn id(path: &Path) -> Option<u32> {
    RawMap::open(path).ok().map(|map| map.info().id)
}

/// Ids of the maps that the programs in these links use.
pub fn maps_of_links(links: impl Iterator<Item = PathBuf>) -> HashSet<u32> {
    use std::os::fd::AsFd;

    let mut by_program: HashMap<u32, Vec<u32>> = HashMap::new();
    for link in links {
        let Ok(info) = sys::get(&link).and_then(|link| sys::link_info(link.as_fd())) else { continue };
        by_program.entry(info.program_id).or_insert_with(|| {
            let maps = sys::program(info.program_id).and_then(|program| sys::program_maps(program.as_fd()));
            maps.unwrap_or_default()
        });
    }
    by_program.into_values().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_named_by_map_and_layout() {
        let pins = Pins::new(Path::new("/sys/fs/bpf/x"), 0);
        let path = pins.path(&abi::maps::FE4);
        assert_eq!(name_of(&path), Some("bl1_fe4"));
        assert_eq!(path, Path::new(&format!("/sys/fs/bpf/x/maps/bl1_fe4-{:016x}", abi::maps::FE4.layout())));
        for other in ["bl1_fe4", "bl1_fe4-12", "x-0123456789abcdef", "bl1_fe4-0123456789abcdeg"] {
            assert_eq!(name_of(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn salt_gives_every_table_another_layout_but_socket_storage() {
        let (plain, salted) = (Pins::new(Path::new("/x"), 0), Pins::new(Path::new("/x"), 1));
        for spec in MAPS {
            let differs = plain.path(spec) != salted.path(spec);
            assert_eq!(differs, spec.kind != MapKind::SocketStorage, "{}", spec.name);
        }
    }
}
