//! The real kubectl where bytes stream: logs, exec, attach, cp, and watches.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::traffic::Background;
use super::{Report, contains, eventually, fails, kubectl_with, kubectl_words};
use crate::cluster::kubectl;
use crate::cluster::plan::{self, Plan};
use crate::shell;

pub(super) fn run(_plan: &Plan, report: &mut Report) {
    report.check("the streams' pods are Ready", || {
        kubectl_with("apply", &pods())?;
        kubectl_words("wait --for=condition=Ready pod/talker pod/tool --timeout=60s").map(drop)
    });
    logs(report);
    processes(report);
    report.check("cp there and back", copy);
    report.check("get -w sees a change", || {
        let watch = Background::start(&mut kubectl::command(["get", "configmaps", "-w"]))?;
        kubectl_words("create configmap watched")?;
        let seen = watch.read_until("watched", Duration::from_secs(10));
        kubectl_words("delete configmap watched")?;
        seen
    });
    report.check("the streams' pods are deleted", || {
        kubectl_words("delete pod talker crasher tool --grace-period=1 --timeout=60s").map(drop)
    });
}

fn logs(report: &mut Report) {
    report.check("logs", || contains(&kubectl_words("logs talker")?, &["line 1\n", "line 2\n"]));
    report.check("logs --tail", || {
        let lines = kubectl_words("logs talker --tail=2")?;
        if lines.lines().count() == 2 { Ok(()) } else { bail!("not two lines: {lines}") }
    });
    report.check("logs --timestamps --since", || {
        contains(&kubectl_words("logs talker --timestamps --since=1h")?, &["Z line 1"])
    });
    report.check("logs -f", || {
        let follow = Background::start(&mut kubectl::command(["logs", "-f", "talker", "--tail=1"]))?;
        let last = kubectl_words("logs talker --tail=1")?;
        let number: u64 = last.trim().rsplit(' ').next().context("a number")?.parse()?;
        follow.read_until(&format!("line {}", number + 5), Duration::from_secs(15))
    });
    report.check("logs --previous", || {
        eventually(Duration::from_secs(60), || {
            contains(&kubectl_words("logs crasher --previous")?, &["about to fail"])
        })
    });
    report.check("a crashing container shows its restarts and back-off", || {
        eventually(Duration::from_secs(60), || {
            let row = kubectl_words("get pod crasher")?;
            contains(&row, &["CrashLoopBackOff"])
        })
    });
}

/// exec and attach.
fn processes(report: &mut Report) {
    report.check("exec", || contains(&kubectl::output(["exec", "tool", "--", "echo", "hello"])?, &["hello"]));
    report.check("exec returns the command's exit code", || {
        let said = fails(kubectl::output(["exec", "tool", "--", "sh", "-c", "exit 7"]))?;
        contains(&said, &["exit code 7"])
    });
    report.check("exec -i reads its input to the end", || {
        let output =
            shell::fed(&mut kubectl::command(["exec", "-i", "tool", "--", "wc", "-c"]), &[b'x'; 100_000])?;
        contains(&output, &["100000"])
    });
    report.check("exec -it has a terminal", || {
        // script(1) gives kubectl a terminal of its own.
        let line = shell::describe(&kubectl::command([
            "exec",
            "-it",
            "tool",
            "--",
            "sh",
            "-c",
            "'test -t 0 && stty size && echo a terminal'",
        ]));
        contains(&shell::quiet(Command::new("script").args(["-qec", &line, "/dev/null"]))?, &["a terminal"])
    });
    report.check("attach", || {
        let attach = Background::start(&mut kubectl::command(["attach", "talker"]))?;
        attach.read_until("line ", Duration::from_secs(10))
    });
}

fn copy() -> Result<()> {
    let source = plan::directory().join("copied");
    let back = plan::directory().join("copied-back");
    let bytes: Vec<u8> =
        (0..200_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&source, &bytes)?;
    kubectl::output(["cp".as_ref(), source.as_os_str(), "tool:/tmp/copied".as_ref()])?;
    kubectl::output(["cp".as_ref(), "tool:/tmp/copied".as_ref(), back.as_os_str()])?;
    let same = std::fs::read(&back)? == bytes;
    std::fs::remove_file(source)?;
    std::fs::remove_file(back)?;
    if same { Ok(()) } else { bail!("the bytes that came back differ") }
}

/// Pods and what they run.
const PODS: [(&str, &str); 3] = [
    ("talker", r#"[sh, -c, "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.2; done"]"#),
    ("crasher", r#"[sh, -c, "echo about to fail; exit 3"]"#),
    ("tool", r#"[sleep, "1000000"]"#),
];

/// [`PODS`] as documents.
fn pods() -> String {
    let pod = |(name, command)| {
        format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    imagePullPolicy: Never
    command: {command}
"#
        )
    };
    PODS.map(pod).join("---")
}
