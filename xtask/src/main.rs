//! `cargo xtask`: everything a person does with this repository. One `match` here, one module a command.
//!
//! It drives real programs (cargo, ip, containerd, kubectl) and holds no logic of the product.

mod bench;
mod build;
mod cluster;
mod codegen;
mod flags;
mod fuzz;
mod place;
mod root;
mod scenarios;
mod setup;
mod shell;
mod test;
mod tidy;
mod tree;

use anyhow::Result;
use clap::Parser;

use flags::{Command, Image};

fn main() -> std::process::ExitCode {
    match run(flags::Xtask::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<std::process::ExitCode> {
    if command.needs_root() {
        root::become_root()?;
    }
    match command {
        Command::Setup { optional } => setup::run(optional)?,
        Command::Build(args) => build::run(args.profile())?,
        Command::Up(args) => cluster::up::run(&args)?,
        Command::Status { json } => cluster::status::run(json)?,
        Command::Down => cluster::down::run()?,
        Command::Client { command } => return cluster::enter_client(&command),
        Command::Node { name, command } => return cluster::enter_node(&name, &command),
        Command::Image(Image::Load { source }) => cluster::images::load(&source)?,
        Command::Test(args) => return test::run(&args),
        Command::Bench(args) => bench::run(&args)?,
        Command::Fuzz { seconds } => fuzz::run(seconds)?,
        Command::Codegen { check } => codegen::run(check)?,
        Command::Tidy => tidy::run()?,
    }
    Ok(std::process::ExitCode::SUCCESS)
}
