//! `perf image`: an image with this program and `echo`, for clusters to run. No builder and no registry: one tar file
//! that `kind load image-archive`, `ctr images import`, `docker load` and `cargo xtask image load` take.
//!
//! This program may be linked dynamically: the libraries that it has loaded go into the image, under their paths.
//!
//! # See
//! OCI image format: image layout, image manifest, image configuration; `manifest.json` is docker's.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::flags::Image;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The path of a program in the image.
type Entry = (PathBuf, PathBuf);

/// `perf image`.
pub(crate) fn run(args: &Image) -> Result<()> {
    let own = std::env::current_exe().context("find this program")?;
    let echo = args.echo.clone().unwrap_or_else(|| own.with_file_name("echo"));
    ensure!(echo.is_file(), "{} is not there: build echo, and name it by --echo", echo.display());
    let mut entries: Vec<Entry> = vec![(own.clone(), "perf".into()), (echo, "echo".into())];
    entries.extend(libraries(&fs::read_to_string("/proc/self/maps")?));
    if let Some(interpreter) = interpreter(&fs::read(&own)?) {
        let inside = interpreter.strip_prefix("/").unwrap_or(&interpreter).to_owned();
        entries.push((interpreter, inside));
    }
    write(&full_name(&args.name), &entries, &args.out)?;
    println!("{}: {}", args.out.display(), full_name(&args.name));
    Ok(())
}

/// Shared libraries among what is mapped, under their own paths.
fn libraries(maps: &str) -> Vec<Entry> {
    let paths = maps.lines().filter_map(|line| line.split_once('/').map(|(_, path)| path));
    let libraries: BTreeSet<_> = paths.filter(|path| path.contains(".so")).collect();
    libraries.into_iter().map(|path| (Path::new("/").join(path), path.into())).collect()
}

/// What a dynamic program asks to be loaded by: the first string of that form (it follows the program headers).
fn interpreter(program: &[u8]) -> Option<PathBuf> {
    let head = &program[..program.len().min(64 * 1024)];
    let mut strings = head.split(|byte| *byte == 0);
    let found =
        strings.find(|text| text.starts_with(b"/lib") && text.windows(3).any(|part| part == b"ld-"))?;
    Some(PathBuf::from(String::from_utf8(found.to_vec()).ok()?))
}

/// The full reference of a short image name, as container clients complete it.
pub(crate) fn full_name(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    let tagged = if last.contains(':') { name.to_owned() } else { format!("{name}:latest") };
    match name.split_once('/') {
        None => format!("docker.io/library/{tagged}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => tagged,
        Some(_) => format!("docker.io/{tagged}"),
    }
}

fn write(name: &str, entries: &[Entry], out: &Path) -> Result<()> {
    let layer = layer(entries)?;
    let config = json!({
        "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
        "os": "linux",
        "config": {"Entrypoint": ["/echo"], "Env": ["PATH=/"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    let config = serde_json::to_vec(&config)?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config), "layers": [descriptor(LAYER, &layer)],
    }))?;
    let mut entry = descriptor(MANIFEST, &manifest);
    entry["annotations"] =
        json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [entry]}))?;
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", hex(bytes));
    let docker = json!([{"Config": blob(&config), "RepoTags": [name], "Layers": [blob(&layer)]}]);
    let mut tar = tar::Builder::new(File::create(out).with_context(|| format!("create {}", out.display()))?);
    append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    for bytes in [&layer, &config, &manifest] {
        append(&mut tar, &blob(bytes), bytes, 0o644)?;
    }
    append(&mut tar, "index.json", &index, 0o644)?;
    append(&mut tar, "manifest.json", &serde_json::to_vec(&docker)?, 0o644)?;
    tar.into_inner()?.flush().context("flush the image")
}

fn layer(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut seen = BTreeSet::new();
    for (from, to) in entries.iter().filter(|(_, to)| seen.insert(to.clone())) {
        let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        append(&mut tar, &to.to_string_lossy(), &bytes, 0o755)?;
    }
    Ok(tar.into_inner()?)
}

fn append<W: Write>(tar: &mut tar::Builder<W>, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, path, bytes).with_context(|| format!("append {path}"))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn libraries_are_what_is_mapped_and_shared() {
        let maps = "7f00-7f01 r--p 00000000 08:01 12 /usr/lib/x86_64-linux-gnu/libc.so.6\n\
                    7f02-7f03 r-xp 00000000 08:01 12 /usr/lib/x86_64-linux-gnu/libc.so.6\n\
                    5500-5501 r--p 00000000 08:01 13 /usr/bin/perf\n7ffd-7ffe rw-p 00000000 00:00 0 [stack]\n";
        let found: Vec<_> = libraries(maps).into_iter().map(|(_, to)| to).collect();
        assert_eq!(found, [PathBuf::from("usr/lib/x86_64-linux-gnu/libc.so.6")]);
    }

    #[test]
    fn the_interpreter_is_found_and_a_static_program_has_none() {
        let program = b"\x7fELF..\0\0/lib64/ld-linux-x86-64.so.2\0more\0";
        assert_eq!(interpreter(program), Some(PathBuf::from("/lib64/ld-linux-x86-64.so.2")));
        assert_eq!(interpreter(b"\x7fELF\0static\0"), None);
    }

    #[test]
    fn an_image_holds_its_files_and_both_indexes() {
        let directory = std::env::temp_dir().join(format!("perf-image-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (program, out) = (directory.join("x"), directory.join("image.tar"));
        fs::write(&program, "x").unwrap();
        write(&full_name("perf"), &[(program, "perf".into())], &out).unwrap();
        let mut tar = tar::Archive::new(File::open(&out).unwrap());
        let names: Vec<_> = tar
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        for name in ["oci-layout", "index.json", "manifest.json"] {
            assert!(names.iter().any(|seen| seen == name), "{names:?}");
        }
        assert_eq!(full_name("registry.example:5000/perf:1"), "registry.example:5000/perf:1");
        fs::remove_dir_all(&directory).unwrap();
    }
}
