//! `cargo xtask codegen`: tables in documents that are made from code, between markers; `--check` only compares.
//!
//! Sources are `agent-ebpf/abi`'s own tables, so that the documents cannot part from what the programs are built with.

use abi::maps::{MAPS, MapKind, MapSpec};
use abi::programs::{Hook, PROGRAMS};
use anyhow::{Context, Result, bail};

use crate::tree;

/// A generated block: its file, its marker, and what makes it.
type Block = (&'static str, &'static str, fn() -> String);

const BLOCKS: &[Block] = &[
    ("docs/DATAPATH.md", "programs", programs),
    ("docs/DATAPATH.md", "maps", maps),
    ("docs/DATAPATH.md", "reasons", reasons),
];

/// Renews every block, or with `check` fails when one is stale.
pub(crate) fn run(check: bool) -> Result<()> {
    let stale = stale()?;
    if check && !stale.is_empty() {
        bail!(
            "stale: {}; `cargo xtask codegen` renews them",
            stale.iter().map(|(path, _)| *path).collect::<Vec<_>>().join(", ")
        );
    }
    for (path, text) in stale {
        std::fs::write(tree::root().join(path), text).with_context(|| format!("write {path}"))?;
        println!("codegen: {path}");
    }
    Ok(())
}

/// The files whose blocks are not what the code says, with their new text.
pub(crate) fn stale() -> Result<Vec<(&'static str, String)>> {
    let mut files: Vec<(&'static str, String, String)> = Vec::new();
    for (path, marker, make) in BLOCKS {
        if !files.iter().any(|(known, ..)| known == path) {
            let text =
                std::fs::read_to_string(tree::root().join(path)).with_context(|| format!("read {path}"))?;
            files.push((path, text.clone(), text));
        }
        let Some((_, _, text)) = files.iter_mut().find(|(known, ..)| known == path) else { continue };
        *text =
            replace(text, marker, &make()).with_context(|| format!("{path}: no markers of `{marker}`"))?;
    }
    Ok(files.into_iter().filter(|(_, old, new)| old != new).map(|(path, _, new)| (path, new)).collect())
}

/// `text` with what stands between the markers of `name` replaced by `block`.
fn replace(text: &str, name: &str, block: &str) -> Option<String> {
    let (begin, end) =
        (format!("<!-- begin generated: {name} -->\n"), format!("<!-- end generated: {name} -->"));
    let start = text.find(&begin)? + begin.len();
    let stop = start + text[start..].find(&end)?;
    Some(format!("{}{block}{}", &text[..start], &text[stop..]))
}

fn programs() -> String {
    let mut table = "| program | hook | what it does |\n|---|---|---|\n".to_owned();
    for program in PROGRAMS {
        let hook = match program.hook {
            Hook::Xdp => "XDP, uplink",
            Hook::XdpGeneric => "XDP, uplink (generic mode)",
            Hook::UplinkIngress => "tcx ingress, uplink",
            Hook::UplinkEgress => "tcx egress, uplink",
            Hook::PodIngress => "tcx ingress, host end of a pod's link",
            Hook::PodEgress => "tcx egress, host end of a pod's link",
            Hook::TunnelIngress => "tcx ingress, VXLAN device",
            Hook::SockAddr | Hook::Sock => "cgroup, the node's",
        };
        push(&mut table, format_args!("| `{}` | {hook} | {} |", program.name, program.does));
    }
    table
}

fn maps() -> String {
    let mut table = "| map | kind | key | value | entries | memory | written by | read by | a stale entry |\n|---|---|---|---|---|---|---|---|---|\n".to_owned();
    for map in MAPS {
        let MapSpec { name, key_size, value_size, entries, key, value, writer, readers, stale, .. } = map;
        let (kind, memory) = (kind(map.kind), memory(map));
        push(
            &mut table,
            format_args!(
                "| `{name}` | {kind} | {key} ({key_size} B) | {value} ({value_size} B) | {entries} | {memory} | {writer} | {readers} | {stale} |"
            ),
        );
    }
    table
}

fn kind(kind: MapKind) -> &'static str {
    match kind {
        MapKind::Hash => "hash",
        MapKind::LruHash => "LRU hash",
        MapKind::MappedArray => "array, mapped by the agent",
        MapKind::PerCpuArray => "array per CPU",
        MapKind::LpmTrie => "LPM trie",
        MapKind::SocketStorage => "socket storage",
    }
}

/// What the map's elements take: a hash element has 48 bytes before its key (`struct htab_elem`), key and value are
/// padded to 8; buckets are not counted.
fn memory(map: &MapSpec) -> String {
    let pad = |size: usize| size.next_multiple_of(8);
    let bytes = match map.kind {
        MapKind::Hash | MapKind::LruHash => 48 + pad(map.key_size) + pad(map.value_size),
        MapKind::MappedArray => pad(map.value_size),
        MapKind::PerCpuArray => return format!("{} per CPU", size(pad(map.value_size) * map.entries)),
        // Not preallocated: a node has 24 bytes before the address, and each range may need an inner node.
        MapKind::LpmTrie => {
            return format!("up to {}", size((pad(map.key_size) + 24 + pad(map.value_size)) * map.entries));
        }
        MapKind::SocketStorage => return "per socket".to_owned(),
    };
    size(bytes * map.entries)
}

fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

fn reasons() -> String {
    let mut table = "| number | reason |\n|---|---|\n".to_owned();
    for reason in abi::Reason::ALL {
        push(&mut table, format_args!("| {} | `{}` |", reason as u8, reason.as_str()));
    }
    table
}

/// Adds a row and its line end.
fn push(table: &mut String, row: std::fmt::Arguments<'_>) {
    table.push_str(&row.to_string());
    table.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_replaced_between_its_markers_only() {
        let text = "a\n<!-- begin generated: x -->\nold\n<!-- end generated: x -->\nb\n";
        let new = replace(text, "x", "new\n").expect("markers");
        assert_eq!(new, "a\n<!-- begin generated: x -->\nnew\n<!-- end generated: x -->\nb\n");
        assert_eq!(replace(text, "y", "new\n"), None);
    }

    #[test]
    fn the_documents_are_fresh() {
        let stale: Vec<_> = stale().expect("readable documents").into_iter().map(|(path, _)| path).collect();
        assert!(stale.is_empty(), "stale: {stale:?}; `cargo xtask codegen` renews them");
    }
}
