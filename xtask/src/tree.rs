//! Where things are: the checkout, cargo's target directory, and what `build` leaves in it.

use std::path::{Path, PathBuf};

use crate::flags::Profile;

/// The checkout's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the checkout")
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where `build` puts the eBPF object, and `agent/datapath`'s build script finds it.
pub(crate) fn bpf_object() -> PathBuf {
    root().join("target/bpf/beeline.o")
}

/// One of our programs, as built with `profile`.
pub(crate) fn program(profile: Profile, name: &str) -> PathBuf {
    let directory = match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    };
    target().join(directory).join(name)
}

/// The target triple of static programs on this machine.
pub(crate) fn static_target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// The statically linked `echo`.
pub(crate) fn echo() -> PathBuf {
    target().join(static_target()).join("release/echo")
}
