//! `cargo xtask setup`: a table of what this repository needs beyond Rust, each with its reason, and how it is got.
//!
//! It installs Debian packages and Rust components only; on another distribution it names what is missing and stops.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{shell, tree};

/// One thing that must be on the machine.
struct Requirement {
    name: &'static str,
    why: &'static str,
    probe: Probe,
    install: Install,
}

/// How its presence is seen.
enum Probe {
    Program(&'static str),
    Package(&'static str),
    RustSource,
    StaticTarget,
    Directory(&'static str),
}

/// How it is got.
enum Install {
    Debian(&'static str),
    Rustup(&'static [&'static str]),
    StaticTarget,
    BpfLinker,
}

const fn package(name: &'static str, why: &'static str, program: &'static str) -> Requirement {
    Requirement { name, why, probe: Probe::Program(program), install: Install::Debian(name) }
}

/// LLVM's prefix for bpf-linker: the version must be at least that of rustc's own LLVM.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

const REQUIREMENTS: &[Requirement] = &[
    package("build-essential", "a C compiler and linker, for crates that build C", "cc"),
    package(
        "protobuf-compiler",
        "the clients of etcd and containerd are generated from their .proto files",
        "protoc",
    ),
    package("iproute2", "the development cluster is made of network namespaces", "ip"),
    package("ethtool", "offloads are set on the cluster's links", "ethtool"),
    package("etcd-server", "the control plane's store", "etcd"),
    package("containerd", "the container runtime", "containerd"),
    package("runc", "starts containers for containerd", "runc"),
    package("iptables", "tests show that no service rule is outside eBPF", "iptables-save"),
    package("nftables", "tests show that no service rule is outside eBPF", "nft"),
    package("kubernetes-client", "kubectl", "kubectl"),
    package("curl", "tests send requests that kubectl would not", "curl"),
    Requirement {
        name: "busybox-static",
        why: "the shell image of the examples",
        probe: Probe::Package("busybox-static"),
        install: Install::Debian("busybox-static"),
    },
    Requirement {
        name: "llvm-22-dev",
        why: "bpf-linker links eBPF objects with LLVM",
        probe: Probe::Directory(LLVM_PREFIX),
        install: Install::Debian("llvm-22-dev"),
    },
    Requirement {
        name: "rust-src",
        why: "the BPF target has no prebuilt core library",
        probe: Probe::RustSource,
        install: Install::Rustup(&["component", "add", "rust-src"]),
    },
    Requirement {
        name: "the musl target",
        why: "programs in images are static",
        probe: Probe::StaticTarget,
        install: Install::StaticTarget,
    },
    Requirement {
        name: "bpf-linker",
        why: "links the eBPF programs into one object",
        probe: Probe::Program("bpf-linker"),
        install: Install::BpfLinker,
    },
];

/// What tests and benchmarks go on without, saying what they left out.
const OPTIONAL: &[Requirement] = &[
    package(
        "haproxy",
        "`cargo xtask bench` measures it as the proxy in user space; without it that row says so",
        "haproxy",
    ),
    package(
        "conntrack",
        "`cargo xtask bench` empties the peers' connection tables before new flows; without it they fill up",
        "conntrack",
    ),
    package(
        "chromium",
        "a test opens the benchmark's report in it; without it the test is skipped, saying so",
        "chromium",
    ),
];

/// Installs what is missing, with `optional` what is optional, too; says so, and why; prints one line when nothing is.
pub(crate) fn run(optional: bool) -> Result<()> {
    let mut wanted = missing(REQUIREMENTS)?;
    if wanted.is_empty() {
        println!("setup: all {} requirements are present", REQUIREMENTS.len());
    }
    let extra = missing(OPTIONAL)?;
    if optional {
        wanted.extend(extra);
    } else {
        for requirement in extra {
            println!(
                "setup: optional and not here: {}: {} (`cargo xtask setup --optional` installs it)",
                requirement.name, requirement.why
            );
        }
    }
    if wanted.is_empty() { Ok(()) } else { install_all(&wanted) }
}

/// Like [`run`], without a word when nothing is missing.
pub(crate) fn ensure() -> Result<()> {
    match missing(REQUIREMENTS)? {
        missing if missing.is_empty() => Ok(()),
        missing => install_all(&missing),
    }
}

fn missing(table: &'static [Requirement]) -> Result<Vec<&'static Requirement>> {
    let mut missing = Vec::new();
    for requirement in table {
        if !requirement.probe.present()? {
            missing.push(requirement);
        }
    }
    Ok(missing)
}

fn install_all(missing: &[&'static Requirement]) -> Result<()> {
    for requirement in missing {
        println!("setup: {} is missing: {}", requirement.name, requirement.why);
    }
    crate::root::become_root()?;
    let packages: Vec<_> = missing.iter().filter_map(|requirement| requirement.install.package()).collect();
    if !packages.is_empty() {
        install_packages(&packages)?;
    }
    for requirement in missing {
        requirement.install.run().with_context(|| format!("install {}", requirement.name))?;
        if !requirement.probe.present()? {
            bail!("{} is still missing after its installation", requirement.name);
        }
    }
    Ok(())
}

fn install_packages(packages: &[&str]) -> Result<()> {
    if !on_path("apt-get") {
        bail!("no apt-get here: install by hand what the Debian packages {} hold", packages.join(" "));
    }
    println!("setup: apt-get install {}", packages.join(" "));
    shell::quiet(Command::new("apt-get").arg("update"))?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "--yes", "--no-install-recommends"]);
    shell::quiet(install.args(packages)).map(drop)
}

impl Probe {
    fn present(&self) -> Result<bool> {
        Ok(match self {
            Self::Program(program) => on_path(program),
            Self::Package(name) => Command::new("dpkg-query")
                .args(["--show", "--showformat=${db:Status-Status}", name])
                .output()
                .is_ok_and(|output| output.stdout == b"installed"),
            Self::Directory(path) => PathBuf::from(path).is_dir(),
            Self::RustSource => sysroot()?.join("lib/rustlib/src/rust/library/core").is_dir(),
            Self::StaticTarget => sysroot()?.join("lib/rustlib").join(tree::static_target()).is_dir(),
        })
    }
}

impl Install {
    fn package(&self) -> Option<&'static str> {
        match self {
            Self::Debian(name) => Some(name),
            _ => None,
        }
    }

    fn run(&self) -> Result<()> {
        match self {
            // All packages were installed together, before.
            Self::Debian(_) => Ok(()),
            Self::Rustup(arguments) => rustup(arguments),
            Self::StaticTarget => rustup(&["target", "add", &tree::static_target()]),
            Self::BpfLinker => {
                let mut cargo = Command::new("cargo");
                cargo
                    .current_dir(tree::root())
                    .env("LLVM_PREFIX", LLVM_PREFIX)
                    .env_remove("CARGO_TARGET_DIR");
                let features = ["--no-default-features", "--features", "llvm-22", "--jobs", "2"];
                shell::run(cargo.args(["install", "--locked", "bpf-linker"]).args(features))
            }
        }
    }
}

fn rustup(arguments: &[&str]) -> Result<()> {
    shell::run(Command::new("rustup").current_dir(tree::root()).args(arguments))
}

fn sysroot() -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    let path = shell::quiet(rustc.current_dir(tree::root()).args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(path.trim()))
}

/// Whether `program` is in one of the directories of `PATH`, or where administrators' programs are.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    directories.into_iter().any(|directory| directory.join(program).is_file())
}
