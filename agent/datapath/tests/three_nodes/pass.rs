//! A program that passes every packet, on the far end of a veth: there native XDP's frames wake the receiver.
//!
//! It is loaded by aya from an object that is put together here, so that the test needs neither a compiler nor a system call of its own.

use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

use crate::fabric::open;

/// `r0 = XDP_PASS; exit`.
const CODE: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
const LICENSE: &[u8] = b"Dual MIT/GPL\0";
/// Names of sections and of the program.
const NAMES: &[u8] = b"\0xdp\0license\0.symtab\0.strtab\0pass_all\0";
const HEADER: usize = 64;

/// The attached program; detached when dropped.
pub struct PassAll {
    _object: Ebpf,
}

impl PassAll {
    /// Attaches it to a device of a namespace, in the driver.
    pub fn attach(namespace: &str, device: &str) -> Self {
        let mut object = EbpfLoader::new().load(&object()).unwrap();
        let program: &mut Xdp = object.program_mut("pass_all").unwrap().try_into().unwrap();
        program.load().unwrap();
        open(namespace).run(|| program.attach(device, XdpMode::Driver).map(drop).unwrap()).unwrap();
        Self { _object: object }
    }
}

/// Where a name stands in [`NAMES`].
fn name(wanted: &str) -> u32 {
    let at = NAMES.windows(wanted.len() + 2).position(|found| {
        found[0] == 0 && &found[1..=wanted.len()] == wanted.as_bytes() && found[wanted.len() + 1] == 0
    });
    at.unwrap() as u32 + 1
}

/// A relocatable ELF object (System V ABI, chapter 4) for the machine `EM_BPF`, little endian.
fn object() -> Vec<u8> {
    // One function symbol in section 1, after the null symbol.
    let mut symbols = vec![0; 24];
    symbols.extend(name("pass_all").to_le_bytes());
    symbols.extend([0x12, 0, 1, 0]);
    symbols.extend(0_u64.to_le_bytes());
    symbols.extend((CODE.len() as u64).to_le_bytes());
    // Name, type, flags, contents, link, info, alignment, entry size.
    let sections: [(u32, u32, u64, &[u8], u32, u32, u64, u64); 5] = [
        (0, 0, 0, &[], 0, 0, 0, 0),
        (name("xdp"), 1, 6, &CODE, 0, 0, 8, 0),
        (name("license"), 1, 3, LICENSE, 0, 0, 1, 0),
        (name(".symtab"), 2, 0, &symbols, 4, 1, 8, 24),
        (name(".strtab"), 3, 0, NAMES, 0, 0, 1, 0),
    ];
    let (mut contents, mut table) = (Vec::new(), Vec::new());
    for (name, kind, flags, bytes, link, info, align, entry) in sections {
        contents.resize(contents.len().next_multiple_of(8), 0);
        let at = (HEADER + contents.len()) as u64;
        table.extend([name.to_le_bytes(), kind.to_le_bytes()].concat());
        table.extend([flags, 0, at, bytes.len() as u64].map(u64::to_le_bytes).concat());
        table.extend([link, info].map(u32::to_le_bytes).concat());
        table.extend([align, entry].map(u64::to_le_bytes).concat());
        contents.extend(bytes);
    }
    contents.resize(contents.len().next_multiple_of(8), 0);
    let mut object = b"\x7fELF\x02\x01\x01".to_vec();
    object.resize(16, 0);
    object.extend([1_u16, 247].map(u16::to_le_bytes).concat());
    object.extend(1_u32.to_le_bytes());
    object.extend([0, 0, (HEADER + contents.len()) as u64].map(u64::to_le_bytes).concat());
    object.extend(0_u32.to_le_bytes());
    object.extend([HEADER as u16, 0, 0, 64, sections.len() as u16, 4].map(u16::to_le_bytes).concat());
    object.extend(contents);
    object.extend(table);
    object
}
