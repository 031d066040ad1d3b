//! Finds the BPF object that `cargo xtask build` made and copies it to where `src/object.rs` embeds it from.
//!
//! Looked for in this order: the path in `BEELINE_BPF_OBJECT`, `<workspace>/target/bpf/beeline.o`. Without either, an empty file is
//! embedded: everything compiles and tests, and loading says what is missing.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=BEELINE_BPF_OBJECT");
    let workspace = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../..");
    let default = workspace.join("target/bpf/beeline.o");
    let source = env::var_os("BEELINE_BPF_OBJECT").map_or(default, PathBuf::from);
    println!("cargo::rerun-if-changed={}", source.display());
    let object = fs::read(&source).unwrap_or_default();
    if object.is_empty() {
        println!(
            "cargo::warning=no BPF object at {}: this build cannot load the data plane",
            source.display()
        );
    }
    let target = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("beeline.o");
    if let Err(error) = fs::write(&target, object) {
        panic!("{}: {error}", target.display());
    }
}
