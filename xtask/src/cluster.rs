//! The development cluster: nodes as network namespaces of this machine, joined by a bridge, each with its own agent.
//!
//! `up` and `down` are tables of steps; each step's module starts and knows one part. State is the kernel's and the
//! files under `target/cluster`, so that every command finds a cluster that another one made, or half made.

pub(crate) mod agent;
pub(crate) mod api;
pub(crate) mod cgroup;
pub(crate) mod containerd;
pub(crate) mod control;
pub(crate) mod daemon;
pub(crate) mod demo;
pub(crate) mod down;
pub(crate) mod fabric;
pub(crate) mod images;
pub(crate) mod kubectl;
pub(crate) mod plan;
pub(crate) mod rules;
pub(crate) mod status;
pub(crate) mod up;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::place::Place;
use crate::shell;
use plan::Plan;

/// Runs `command` in the client's namespace and returns its exit code.
pub(crate) fn enter_client(command: &[String]) -> Result<ExitCode> {
    Plan::read()?;
    enter(&Place { namespace: Some(plan::CLIENT.to_owned()), cgroup: None }, command)
}

/// Runs `command` on node `name` and returns its exit code.
pub(crate) fn enter_node(name: &str, command: &[String]) -> Result<ExitCode> {
    let plan = Plan::read()?;
    let Some(node) = plan.nodes().into_iter().find(|node| node.name == name) else {
        let names: Vec<_> = plan.nodes().into_iter().map(|node| node.name).collect();
        bail!("no node `{name}`: the cluster has {}", names.join(", "));
    };
    enter(&node.host(), command)
}

fn enter(place: &Place, words: &[String]) -> Result<ExitCode> {
    let (program, arguments) = words.split_first().context("an empty command")?;
    let mut command = place.command(program)?;
    command.args(arguments).env("KUBECONFIG", plan::kubeconfig());
    let line = shell::describe(&command);
    let status = place.run(|| command.status().with_context(|| format!("start `{line}`")))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
