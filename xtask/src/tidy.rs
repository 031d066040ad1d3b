//! `cargo xtask tidy`: checks what can be checked about the tree, and names every finding.
//!
//! Formatting and lints are cargo's; the invariants on dependencies come from `cargo metadata`; sizes and module
//! documents are read from the files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{shell, tree};

/// The most lines a file may have before its tests.
const MAX_LINES: usize = 600;

/// Names that say nothing about a file's concept.
const BANNED_NAMES: &[&str] = &["utils", "helpers", "common", "misc", "types", "manager"];

/// Crates that decide and do nothing else (invariant 1), and what they may therefore not depend on.
const PURE: &[&str] = &["api", "controllers", "scheduler", "service", "abi", "pipeline"];
const EFFECTS: &[&str] =
    &["tokio", "hyper", "kube", "reqwest", "rustix", "libc", "aya", "etcd-client", "rand", "tonic"];

/// The only dependents that some crates may have (invariants 2 and 4).
const ONLY_USED_BY: &[(&str, &[&str])] = &[
    ("etcd-client", &["store"]),
    ("store", &["apiserver", "beeline-control"]),
    // `perf` runs the programs by BPF_PROG_TEST_RUN and reads what they cost.
    ("aya", &["datapath", "perf"]),
    ("containerd-client", &["kubelet"]),
];

/// What nothing below `agent/` may reach, not even through `runtime` (invariant 3).
const CONTROL: &[&str] = &["api", "store", "apiserver", "controllers", "scheduler"];

/// Where `unsafe` may stand (invariant 5).
const UNSAFE_PLACES: &[&str] = &["agent-ebpf/src/ctx", "agent-ebpf/src/maps", "agent/datapath/src/sys"];

/// Runs every check; all findings are printed before it fails.
pub(crate) fn run() -> Result<()> {
    let mut findings = Vec::new();
    findings.extend(cargo(&["fmt", "--all", "--check"]));
    findings.extend(cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]));
    findings.extend(dependencies()?);
    findings.extend(
        crate::codegen::stale()?
            .into_iter()
            .map(|(path, _)| format!("{path} is stale: `cargo xtask codegen`")),
    );
    for file in source_files()? {
        findings.extend(check_file(&file)?);
    }
    for finding in &findings {
        println!("tidy: {finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    println!("tidy: nothing to find fault with");
    Ok(())
}

fn cargo(arguments: &[&str]) -> Option<String> {
    let status = Command::new("cargo").current_dir(tree::root()).args(arguments).status();
    (!status.is_ok_and(|status| status.success())).then(|| format!("`cargo {}` fails", arguments.join(" ")))
}

/// Findings about who depends on whom.
fn dependencies() -> Result<Vec<String>> {
    let mut cargo = Command::new("cargo");
    let metadata =
        shell::quiet(cargo.current_dir(tree::root()).args(["metadata", "--format-version=1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().context("packages")? {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
        let names = normal.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned));
        edges.insert(package["name"].as_str().unwrap_or_default().to_owned(), names.collect());
    }
    Ok(judge(&edges))
}

fn judge(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, dependencies) in edges {
        if PURE.contains(&name.as_str()) {
            let effects = dependencies.iter().filter(|dependency| EFFECTS.contains(&dependency.as_str()));
            findings.extend(effects.map(|effect| format!("`{name}` is pure and depends on `{effect}`")));
        }
        for (used, users) in ONLY_USED_BY {
            if dependencies.contains(*used) && !users.contains(&name.as_str()) {
                findings
                    .push(format!("`{name}` depends on `{used}`, which is for {} only", users.join(", ")));
            }
        }
    }
    for agent in ["beeline-agent", "kubelet", "network", "service", "datapath"] {
        let reached = reached(edges, agent);
        findings.extend(
            CONTROL
                .iter()
                .filter(|name| reached.contains(**name))
                .map(|name| format!("`{agent}` reaches `{name}`: the API is the only link upward")),
        );
    }
    findings
}

/// Every crate that `from` depends on, directly or through others. Crates from outside cannot lead back into the workspace.
fn reached<'a>(edges: &'a BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = vec![from];
    while let Some(name) = open.pop() {
        for dependency in edges.get(name).into_iter().flatten() {
            if reached.insert(dependency.as_str()) {
                open.push(dependency);
            }
        }
    }
    reached
}

fn source_files() -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    let listed = shell::quiet(git.current_dir(tree::root()).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "*.rs",
    ]))?;
    Ok(listed.lines().map(PathBuf::from).filter(|path| tree::root().join(path).exists()).collect())
}

fn check_file(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(tree::root().join(path))
        .with_context(|| format!("read {}", path.display()))?;
    Ok(judge_file(path, &text))
}

fn judge_file(path: &Path, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let shown = path.display();
    if !text.starts_with("//!") {
        findings.push(format!("{shown}: does not open with `//!`"));
    }
    let is_test = path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
    if lines > MAX_LINES && !is_test {
        findings.push(format!("{shown}: {lines} lines before its tests, {MAX_LINES} at most"));
    }
    if path.file_stem().is_some_and(|stem| BANNED_NAMES.iter().any(|name| stem == *name)) {
        findings.push(format!("{shown}: the name says nothing about its concept"));
    }
    let is_unsafe =
        |line: &str| line.contains("unsafe {") || line.contains("unsafe impl") || line.contains("unsafe fn");
    let allowed = UNSAFE_PLACES
        .iter()
        .any(|place| path.starts_with(place) || path.with_extension("") == Path::new(place));
    if !allowed
        && let Some(line) =
            text.lines().position(|line| is_unsafe(line) && !line.trim_start().starts_with("//"))
    {
        // The checker itself names what it looks for.
        if !path.starts_with("xtask") {
            findings.push(format!("{shown}:{}: unsafe code outside its places", line + 1));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(rows: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
        rows.iter()
            .map(|(name, uses)| ((*name).to_owned(), uses.iter().map(|name| (*name).to_owned()).collect()))
            .collect()
    }

    #[test]
    fn forbidden_dependencies_are_named() {
        let findings = judge(&edges(&[
            ("service", &["abi", "tokio"]),
            ("scheduler", &["etcd-client"]),
            ("kubelet", &["store", "runtime"]),
            ("apiserver", &["store", "api"]),
            ("runtime", &["kube", "controllers"]),
        ]));
        assert_eq!(
            findings,
            [
                "`kubelet` depends on `store`, which is for apiserver, beeline-control only",
                "`scheduler` is pure and depends on `etcd-client`",
                "`scheduler` depends on `etcd-client`, which is for store only",
                "`service` is pure and depends on `tokio`",
                "`kubelet` reaches `store`: the API is the only link upward",
                "`kubelet` reaches `controllers`: the API is the only link upward",
            ]
        );
    }

    #[test]
    fn files_are_judged_by_document_size_name_and_unsafe_code() {
        let long = "//! x\n".to_owned() + &"//\n".repeat(MAX_LINES);
        assert_eq!(judge_file(Path::new("a/src/lib.rs"), "//! fine\n"), [] as [String; 0]);
        assert_eq!(judge_file(Path::new("a/src/utils.rs"), "fn x() {}\n").len(), 2);
        assert_eq!(judge_file(Path::new("a/src/lib.rs"), &long).len(), 1);
        let code = "//! x\nfn f() { unsafe { g() } }\n";
        assert_eq!(judge_file(Path::new("agent/src/main.rs"), code).len(), 1);
        assert_eq!(judge_file(Path::new("agent/datapath/src/sys/mmap.rs"), code), [] as [String; 0]);
    }
}
