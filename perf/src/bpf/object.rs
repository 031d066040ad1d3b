//! Assembled programs as an ELF object, the form that loaders read: code, the maps it names, relocations between them.

use std::collections::HashMap;

use anyhow::{Context, Result};
use object::write::{Object, Relocation, StandardSection, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
};

use super::assemble::Program;

/// What the program is attached to: the name of its section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Xdp,
    /// XDP that accepts packets in several buffers: programs of the two kinds do not call each other.
    XdpFragments,
    Tc,
}

impl Hook {
    fn section(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::XdpFragments => "xdp.frags",
            Self::Tc => "classifier",
        }
    }
}

/// A map that programs name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Map {
    pub(crate) name: &'static str,
    /// `enum bpf_map_type`.
    pub(crate) kind: MapKind,
    pub(crate) value_size: u32,
    pub(crate) entries: u32,
}

/// Kinds of maps, all with keys of four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapKind {
    ProgramArray = 3,
    PerCpuArray = 6,
}

/// The object with one program of this name.
pub(crate) fn write(name: &str, hook: Hook, program: &Program, maps: &[Map]) -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let symbol = |name: &str, value, size, kind, section| Symbol {
        name: name.as_bytes().to_vec(),
        value,
        size,
        kind,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    };
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"Apache-2.0\0", 1);
    let mut symbols = HashMap::new();
    if !maps.is_empty() {
        let section = object.add_section(Vec::new(), b"maps".to_vec(), SectionKind::Data);
        for map in maps {
            // struct bpf_map_def: type, key size, value size, entries, flags.
            let words = [map.kind as u32, 4, map.value_size, map.entries, 0];
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let at = object.append_section_data(section, &bytes, 4);
            let id = object.add_symbol(symbol(map.name, at, bytes.len() as u64, SymbolKind::Data, section));
            symbols.insert(map.name, id);
        }
    }
    // A text section is expected even where there are no functions to link.
    object.section_id(StandardSection::Text);
    let section = object.add_section(Vec::new(), hook.section().into(), SectionKind::Text);
    object.append_section_data(section, &program.code, 8);
    object.add_symbol(symbol(name, 0, program.code.len() as u64, SymbolKind::Text, section));
    for (offset, map) in &program.maps {
        let symbol = *symbols
            .get(map)
            .with_context(|| format!("program {name} names map {map}, which is not there"))?;
        // R_BPF_64_64.
        let flags = RelocationFlags::Elf { r_type: 1 };
        object.add_relocation(section, Relocation { offset: *offset, symbol, addend: 0, flags })?;
    }
    object.write().with_context(|| format!("write the object of {name}"))
}
