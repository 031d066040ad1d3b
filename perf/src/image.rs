//! `perf image`: an image with this program and `echo`, for clusters to run ([`oci_image`] writes it).
//!
//! This program may be linked dynamically: the libraries that it has loaded go into the image, under their paths.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use oci_image::{Config, Source, full_name};

use crate::flags::Image;

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
    let name = full_name(&args.name);
    let config = Config { entrypoint: vec!["/echo".to_owned()], path: Some("/".to_owned()) };
    oci_image::write(&name, Source::Programs(&entries), &config, &args.out)?;
    println!("{}: {name}", args.out.display());
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
}
