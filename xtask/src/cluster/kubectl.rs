//! kubectl as the cluster's administrator.

use std::process::Command;

use anyhow::Result;

use crate::cluster::plan;
use crate::shell;

/// `kubectl ARGUMENTS...` with the administrator's kubeconfig.
pub(crate) fn command<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Command {
    let mut kubectl = Command::new("kubectl");
    kubectl.arg("--kubeconfig").arg(plan::kubeconfig()).args(arguments);
    kubectl
}

/// Runs it and returns its output; an exit code other than 0 is an error with what it said.
pub(crate) fn output<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Result<String> {
    shell::quiet(&mut command(arguments))
}

/// Whether the API server says that it is ready.
pub(crate) fn ready() -> bool {
    plan::kubeconfig().exists() && output(["get", "--raw=/readyz", "--request-timeout=2s"]).is_ok()
}
