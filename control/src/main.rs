//! The control plane in one binary, roles by subcommand: composition only.

mod config;
mod driving;
mod etcd;
mod local_copy;
mod roles;
mod scheduling;
mod supervise;

use std::io::IsTerminal as _;

use clap::Parser as _;
use config::{Command, Role};
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<()> {
    let command = Command::parse();
    let filter = EnvFilter::try_from_env("BEELINE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    if let Role::IssueNode(args) = &command.role {
        return roles::issue_node(args);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match &command.role {
            Role::All(args) => roles::server(args, true).await,
            Role::Apiserver(args) => roles::server(args, false).await,
            Role::Scheduler(args) => roles::scheduler(args).await,
            Role::Controllers(args) => roles::controllers(args).await,
            Role::IssueNode(_) => Ok(()),
        }
    });
    // Tasks that are stuck in a blocking call must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}
