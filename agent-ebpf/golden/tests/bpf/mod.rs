//! The built object in the kernel, for tests: where it is, a network namespace to run it in, writing its maps.

use std::{
    path::{Path, PathBuf},
    thread,
};

use abi::{
    Config,
    config::CONFIG_GLOBAL,
    maps::{self, MapKind},
};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, LpmTrie, lpm_trie::Key as LpmKey},
};
use golden::world::Sink;
use rustix::thread::UnshareFlags;
use zerocopy::IntoBytes as _;

/// The object, or why there is none to test.
pub fn object() -> Result<PathBuf, &'static str> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root");
    }
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bpf/beeline.o");
    let path = std::env::var_os("BEELINE_BPF_OBJECT").map_or(built, PathBuf::from);
    if path.exists() { Ok(path) } else { Err("needs target/bpf/beeline.o (cargo xtask build)") }
}

/// Runs in a network namespace that lives as long as the call. `None`, aloud, if that is not possible here.
pub fn in_namespace<T: Send + 'static>(run: impl FnOnce(PathBuf) -> T + Send + 'static) -> Option<T> {
    match object() {
        Ok(path) => {
            let thread = thread::spawn(move || {
                leave_network();
                run(path)
            });
            Some(thread.join().unwrap())
        }
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

/// Gives the calling thread a network namespace of its own.
#[expect(
    deprecated,
    reason = "its unsafe successor is for flags that split file descriptors; this one does not"
)]
pub fn leave_network() {
    rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
}

/// Sets of unanswered flows.
pub const SETS: u32 = 256;

/// Loads the object with small tables: each test makes its own. (The numbers of rotors and socket slots are fixed by masks in the programs.)
pub fn load(path: &Path, config: &Config) -> Ebpf {
    let mut loader = EbpfLoader::new();
    for map in maps::MAPS
        .iter()
        .filter(|map| map.entries > 256 && ![maps::ROTOR.name, maps::SKSLOT.name].contains(&map.name))
    {
        loader.map_max_entries(map.name, 256);
    }
    loader.override_global("BL_FLOW_SETS", &SETS, true);
    loader.override_global(CONFIG_GLOBAL, config.as_bytes(), true).load_file(path).unwrap()
}

/// Writes one entry by the sizes of its map.
macro_rules! put {
    ($ebpf:ident, $map:ident, $key:ident, $value:ident, arrays: [$($array:literal),*], ranges: [$($p:literal),*], hashes: [$(($k:literal, $v:literal)),*]) => {{
        let spec = maps::MAPS.iter().find(|spec| spec.name == $map).unwrap();
        let map = $ebpf.map_mut($map).unwrap();
        match (spec.kind, spec.key_size, spec.value_size) {
            $((MapKind::MappedArray, 4, $array) => {
                let index = u32::from_ne_bytes($key.try_into().unwrap());
                let value: [u8; $array] = $value.try_into().unwrap();
                Array::<_, [u8; $array]>::try_from(map).unwrap().set(index, value, 0).unwrap();
            })*
            $((MapKind::LpmTrie, $p, 4) => {
                // Length, then the bits.
                let (length, bits) = $key.split_at(4);
                let bits: [u8; $p - 4] = bits.try_into().unwrap();
                let key = LpmKey::new(u32::from_ne_bytes(length.try_into().unwrap()), bits);
                let value: [u8; 4] = $value.try_into().unwrap();
                LpmTrie::<_, _, [u8; 4]>::try_from(map).unwrap().insert(&key, value, 0).unwrap();
            })*
            $((MapKind::Hash, $k, $v) => {
                let (key, value): ([u8; $k], [u8; $v]) = ($key.try_into().unwrap(), $value.try_into().unwrap());
                HashMap::<_, [u8; $k], [u8; $v]>::try_from(map).unwrap().insert(key, value, 0).unwrap();
            })*
            other => panic!("map {} of {other:?}", $map),
        }
    }};
}

/// The maps of a loaded object, to write to.
pub struct Loaded<'a>(pub &'a mut Ebpf);

impl Sink for Loaded<'_> {
    fn put(&mut self, map: &'static str, key: &[u8], value: &[u8]) {
        let ebpf = &mut *self.0;
        put!(ebpf, map, key, value,
            arrays: [4, 8, 16, 32, 64, 384, 640, 8192],
            ranges: [12, 24],
            hashes: [(8, 4), (8, 8), (24, 8), (4, 16), (16, 16)]);
    }
}
