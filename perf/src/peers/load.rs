//! Rules into the kernel, in the calling thread's network namespace, by the programs that kube-proxy uses, too.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Input of `iptables-restore`; what it does not name stays. The legacy backend where there is one.
pub(crate) fn iptables(text: &str) -> Result<()> {
    let restore = ["iptables-legacy-restore", "iptables-restore"].into_iter().find_map(program);
    let restore = restore.context("iptables-restore is not installed")?;
    feed(&restore.to_string_lossy(), &["--noflush", "--wait=5"], text)
}

/// One transaction of nftables.
pub(crate) fn nftables(text: &str) -> Result<()> {
    feed("nft", &["-f", "-"], text)
}

/// Runs a program with `text` as its input.
fn feed(name: &str, arguments: &[&str], text: &str) -> Result<()> {
    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("run {name}"))?;
    let mut input = child.stdin.take().context("the program's input")?;
    // A program that ends early has said why.
    let written = input.write_all(text.as_bytes());
    drop(input);
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}", said.lines().take(3).collect::<Vec<_>>().join("; "));
    written.with_context(|| format!("feed {name}"))
}

/// A program in the usual directories of programs.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    directories.map(|directory| directory.join(name)).find(|path| path.is_file())
}
