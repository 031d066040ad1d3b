//! `kubectl` with a kubeconfig and a namespace.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub(crate) struct Kubectl {
    kubeconfig: Option<PathBuf>,
    namespace: String,
}

impl Kubectl {
    /// Without a kubeconfig, kubectl looks where it always does.
    pub(crate) fn new(kubeconfig: Option<&Path>, namespace: &str) -> Self {
        Self { kubeconfig: kubeconfig.map(Path::to_owned), namespace: namespace.to_owned() }
    }

    /// It, with these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        if let Some(path) = &self.kubeconfig {
            command.arg("--kubeconfig").arg(path);
        }
        command.arg("--namespace").arg(&self.namespace).args(arguments);
        command
    }

    /// What it prints.
    pub(crate) fn output(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).stdin(Stdio::null()).output().context("run kubectl")?;
        said(arguments, &output)
    }

    /// What it gets, as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.output(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("read what kubectl {} gave", arguments.join(" ")))
    }

    /// Creates or changes an object.
    pub(crate) fn apply(&self, object: &Value) -> Result<()> {
        let arguments = ["apply", "-f", "-"];
        let mut command = self.command(&arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run kubectl")?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(object.to_string().as_bytes())?;
        }
        said(&arguments, &child.wait_with_output()?).map(drop)
    }

    /// Waits until every pod of the namespace is Ready.
    pub(crate) fn wait_for_pods(&self, seconds: u64) -> Result<()> {
        let timeout = format!("--timeout={seconds}s");
        self.output(&["wait", "--for=condition=Ready", "pod", "--all", &timeout]).map(drop)
    }

    /// Removes the namespace and all that is in it.
    pub(crate) fn delete_namespace(&self) -> Result<()> {
        self.output(&["delete", "namespace", &self.namespace, "--ignore-not-found", "--timeout=120s"])
            .map(drop)
    }
}

fn said(arguments: &[&str], output: &Output) -> Result<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`kubectl {}`: {}", arguments.join(" "), errors.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
