//! Every command of `perf` as a user calls it, for an instant, where it can run without a cluster. Those that need one are
//! run by scenarios of `cargo xtask test`: `service`, `image`, `control` and `probe`, and `rules` behind `up --proxy`.
//!
//! No figure is judged.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use serde_json::Value;

/// Commands that are tried here.
const HERE: &[&str] = &["ratio", "load", "datagram", "cost", "suite", "report", "compare", "soak"];
/// Commands that need a cluster, and are tried on one.
const ON_A_CLUSTER: &[&str] = &["service", "image", "rules", "control", "probe"];

/// Answers lines over TCP and datagrams, as little of `echo` as is needed.
fn server() -> SocketAddr {
    let lines = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = lines.local_addr().unwrap();
    let datagrams = UdpSocket::bind(address).unwrap();
    thread::spawn(move || {
        for stream in lines.incoming().flatten() {
            thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, peer)) = datagrams.recv_from(&mut buffer) {
            datagrams.send_to(&buffer[..length], peer).unwrap();
        }
    });
    address
}

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("perf-commands-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// What `perf ARGUMENTS` wrote to its output, and whether it went well.
fn perf(arguments: &[&str]) -> (String, bool) {
    let output = Command::new(env!("CARGO_BIN_EXE_perf")).args(arguments).output().unwrap();
    if !output.status.success() {
        println!("perf {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
}

fn check(arguments: &[&str]) -> String {
    let (text, well) = perf(arguments);
    assert!(well, "perf {} failed", arguments.join(" "));
    text
}

/// The results among lines of JSON.
fn results(text: &str) -> Vec<Value> {
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["kind"] == "result").collect()
}

#[test]
fn every_command_is_run_by_some_test() {
    let help = check(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = commands.map_while(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    for name in names {
        assert!(HERE.contains(&name) || ON_A_CLUSTER.contains(&name), "{name} is run by no test");
    }
}

#[test]
fn ratio_load_and_datagram_measure_a_server() {
    let address = server().to_string();
    for traffic in ["crr", "rr", "udp"] {
        let text = check(&[
            "ratio",
            "--reference",
            &address,
            "--target",
            &address,
            "--traffic",
            traffic,
            "--pairs",
            "2",
            "--slice-ms",
            "2",
            "--reset",
        ]);
        assert_eq!(results(&text).len(), 1, "{text}");
    }
    for rate in [&["--rate", "100"][..], &[]] {
        let text =
            check(&[&["load", "--target", &address, "--traffic", "rr", "--seconds", "1"], rate].concat());
        assert!(results(&text)[0]["detail"]["operations"].as_u64() > Some(0), "{text}");
    }
    assert_eq!(check(&["datagram", "--target", &address, "--text", "hello"]).trim(), "hello");
}

#[test]
fn soak_counts_what_was_lost_and_nothing_was() {
    let address = server().to_string();
    let text = check(&[
        "soak",
        "--target",
        &address,
        "--udp-target",
        &address,
        "--long",
        "2",
        "--seconds",
        "1",
        "--grace-seconds",
        "1",
    ]);
    let totals: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert!(totals.is_object(), "{text}");
}

#[test]
fn report_and_compare_read_what_was_measured() {
    let address = server().to_string();
    let directory = Directory::new("report");
    let at = |name: &str| directory.0.join(name).to_string_lossy().into_owned();
    let (old, new, html, markdown) = (at("old.jsonl"), at("new.jsonl"), at("r.html"), at("r.md"));
    for file in [&old, &new] {
        let text = check(&[
            "ratio",
            "--reference",
            &address,
            "--target",
            &address,
            "--traffic",
            "udp",
            "--pairs",
            "2",
            "--slice-ms",
            "2",
        ]);
        std::fs::write(file, text).unwrap();
    }
    check(&["report", &old, &new, "--html", &html, "--markdown", &markdown]);
    for (path, words) in [(&html, "<h2>named targets</h2>"), (&markdown, "## named targets")] {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(words), "{words} is not in {text}");
    }
    let said = check(&["compare", &old, &new]);
    assert!(said.contains("named targets/udp/"), "{said}");
    assert!(!perf(&["compare", &old, &markdown]).1, "a file that holds no results is refused");
}

#[test]
fn cost_writes_its_results() {
    let object = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/beeline.o");
    let object = std::env::var_os("BEELINE_BPF_OBJECT").map_or(object, PathBuf::from);
    if !rustix::process::geteuid().is_root() || !object.is_file() {
        println!("skipped: needs root and target/bpf/beeline.o (cargo xtask build)");
        return;
    }
    let directory = Directory::new("cost");
    let out = directory.0.join("cost.jsonl").to_string_lossy().into_owned();
    check(&[
        "cost",
        "--quick",
        "--only",
        "not ours, IPv4",
        "--object",
        &object.to_string_lossy(),
        "--out",
        &out,
    ]);
    assert_eq!(results(&std::fs::read_to_string(out).unwrap()).len(), 1);
}

#[test]
fn the_suite_says_what_it_will_do_and_leaves_nothing_behind() {
    // .../debug/deps/commands-HASH: echo lies two up.
    let own = std::env::current_exe().unwrap();
    let echo = own.ancestors().nth(2).unwrap().join("echo");
    if !rustix::process::geteuid().is_root() || !echo.is_file() {
        println!("skipped: needs root and echo (cargo build -p echo)");
        return;
    }
    let directory = Directory::new("suite");
    let out = directory.0.join("suite.jsonl").to_string_lossy().into_owned();
    let mut command = Command::new(env!("CARGO_BIN_EXE_perf"));
    command
        .args(["suite", "--quick", "--only", "pod to ClusterIP/crr", "--echo"])
        .arg(&echo)
        .args(["--out", &out]);
    let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let prefix = format!("perf-{}-", child.id());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("comparisons in") && said.contains("on an idle machine"), "{said}");
    assert_eq!(results(&std::fs::read_to_string(out).unwrap()).len(), 5, "{said}");
    for place in ["/run/netns", "/sys/fs/bpf", "/sys/fs/cgroup"] {
        let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
        let left: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().contains(&prefix))
            .collect();
        assert_eq!(left, Vec::<PathBuf>::new(), "in {place}");
    }
}
