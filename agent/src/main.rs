//! One node: the kubelet and the data plane in one binary: composition only.
//!
//! `run` is a node of a Beeline cluster, `proxy` the data plane alone on a node of any Kubernetes cluster, `status` what the pinned tables and
//! links say. Ending the process, by whatever signal, touches no container, link or table.

mod alarms;
mod cluster;
mod config;
mod dead_sockets;
mod health;
mod health_checks;
mod metrics;
mod node;
mod pods;
mod progress;
mod roles;
mod segment;
mod state;
mod unserved;
mod view;

use anyhow::Result;
use clap::Parser;

use config::{Command, Flags};

fn main() -> Result<()> {
    let flags = Flags::parse();
    match flags.command {
        Command::Status { bpf_dir, json, tables } => status(&bpf_dir, json, tables),
        Command::Run(run) => roles::block_on(roles::run(run)),
        Command::Proxy(proxy) => roles::block_on(roles::proxy(proxy)),
    }
}

fn status(bpf_dir: &std::path::Path, json: bool, tables: bool) -> Result<()> {
    let mut status = datapath::status::read(bpf_dir, tables)?;
    status.features.push(dead_sockets_feature());
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{status}");
    }
    Ok(())
}

/// Whether connected UDP sockets of backends that go can be destroyed here.
fn dead_sockets_feature() -> datapath::status::Feature {
    let can = network::sockets::Diagnosis::open().and_then(|diagnosis| diagnosis.can_destroy());
    let note = match &can {
        Ok(()) => "connected UDP sockets end with their backend".to_owned(),
        Err(error) => format!("connected UDP sockets keep a backend that is gone: {error}"),
    };
    datapath::status::Feature { name: "sock_destroy", used: can.is_ok(), note }
}
